"""`eastwest doctor` says the truth about this machine."""

import json
import shlex
import subprocess

import pytest
from click.testing import CliRunner

from compose.command import main
from compose.doctor.checks import LAB_PROGRAMS, PROGRAMS
from compose.doctor.neighbours import _others, source_nat
from enforcers.core.netlink.connections import Connection, Endpoints
from schemas import addresses
from tests.compose.commands import EASTWEST


@pytest.mark.netns
def test_a_machine_that_can_enforce_is_told_so_line_by_line(capable):
    result = CliRunner().invoke(main, ["doctor", "-o", "json"])

    told = json.loads(result.output)
    assert [finding for finding in told["findings"] if finding["needed"] and not finding["ok"]] == []
    assert [finding["ok"] for finding in told["findings"] if finding["what"] == "sets by netlink"] == [True]
    assert told["able"]
    assert result.exit_code == 0


def test_what_is_missing_is_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    result = CliRunner().invoke(main, ["doctor"])

    assert result.exit_code == 1
    for word, programs in (("missing", PROGRAMS), ("warning", LAB_PROGRAMS)):
        for program, remedy in programs.items():
            assert f"{word}  {program}" in result.output
            assert remedy in result.output


@pytest.mark.netns
def test_a_machine_on_which_nobody_tells_of_changed_rules_can_enforce_nevertheless(capable):
    command = ["setpriv", "--bounding-set=-net_broadcast", EASTWEST, "doctor", "-o", "json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)

    (found,) = (each for each in told["findings"] if each["what"] == "capabilities")
    assert (found["ok"], found["detail"]) == (False, "lacks NET_BROADCAST")
    assert told["able"]


@pytest.mark.netns
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("Calico", ["iptables-nft", "-N", "cali-FORWARD"]),
        ("Cilium", ["ip6tables-nft", "-t", "mangle", "-N", "CILIUM_PRE_mangle"]),
        ("kube-router", ["iptables-legacy", "-N", "KUBE-NWPLCY-DEFAULT"]),
        ("kube-network-policies", ["nft", "add", "table", "inet", "kube-network-policies"]),
    ],
)
def test_a_second_enforcer_is_found_by_its_rules(capable, name, command):
    script = f"{shlex.join(command)} && exec {EASTWEST} doctor -o json"
    told = json.loads(subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, check=True).stdout)

    (found,) = (each for each in told["findings"] if "second" in each["what"])
    assert not found["ok"]
    assert found["detail"].startswith(name)
    assert not found["needed"]


def test_a_second_enforcer_is_found_by_its_process_and_our_own_rules_are_none():
    assert list(_others(":EW-IN - [0:0]\n:KUBE-SERVICES - [0:0]\ntable ip mangle", {"kubelet", "containerd"})) == []
    assert list(_others("", {"cilium-agent"})) == ["Cilium (process cilium-agent)"]
    assert list(_others("", {"kube-network-policies"[:15]})) == [
        "kube-network-policies (process kube-network-policies)"
    ]


def tracked(source: str, destination: str, *, real: str = "", seen_as: str = "") -> Connection:
    """A connection, whose packets the node sends to *real* and lets leave as *seen_as*."""
    original = Endpoints(addresses.pack(source), addresses.pack(destination), 6, 40000, 80)
    reply = Endpoints(addresses.pack(real or destination), addresses.pack(seen_as or source), 6, 80, 40000)
    return Connection(original, reply, 0, b"")


PODS = {addresses.pack("10.244.1.2"), addresses.pack("fd44::1:2")}


@pytest.mark.parametrize(
    "innocent",
    [
        tracked("10.244.1.2", "10.244.2.3"),
        tracked("10.244.1.2", "10.96.0.1", real="10.244.2.3"),  # a Service
        tracked("10.244.1.2", "10.96.0.1", real="10.244.1.2", seen_as="10.244.1.1"),  # itself through a Service
        tracked("10.244.1.2", "198.51.100.7", seen_as="192.0.2.1"),  # out of the cluster
        tracked("192.0.2.9", "10.244.1.2", seen_as="10.244.1.1"),  # from outside, through a NodePort
    ],
)
def test_translations_that_have_to_be_are_not_warned_of(innocent):
    assert source_nat([innocent], PODS).ok


def test_source_nat_between_pods_is_named_with_both_ends():
    found = source_nat(
        [
            tracked("10.244.1.2", "10.244.2.3", seen_as="192.0.2.1"),
            tracked("fd44::1:2", "fd44:0:0:1::3", seen_as="2001:db8::1"),
        ],
        PODS,
    )
    assert not found.ok
    assert not found.needed
    assert "10.244.1.2 → 10.244.2.3 as 192.0.2.1" in found.detail
    assert "fd44::1:2 → fd44:0:0:1::3 as 2001:db8::1" in found.detail
