"""The bench runs and says what it promises. How fast anything is, no test asserts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.bench import bare_writes, run
from tests.bench.measuring import Figure, Unavailable
from tests.enforcers.node.crowd import Crowd, made_crowd

FIELDS = {"row", "unit", "ours", "limit", "alternative", "alternative_name", "ratio", "goal", "holds"}
SAVING = (["iptables-nft-save", "-t", "mangle"], ["ip6tables-nft-save", "-t", "mangle"], ["ipset", "save"])


def measured(folder: Path, rows: str, *, scale: str) -> tuple[list[dict[str, Any]], str]:
    """The figures of *rows*, and what was printed of them."""
    file = folder / "figures.json"
    result = CliRunner().invoke(run.main, ["--rows", rows, "--scale", scale, "--json", str(file)])
    assert result.exit_code == 0, result.output
    return json.loads(file.read_text()), result.output


def test_the_chosen_rows_are_written_as_a_list_of_figures(tmp_path: Path):
    figures, _ = measured(tmp_path, "fold,address-change", scale="0.01")
    assert [each["row"] for each in figures] == ["fold", "address-change", "address-change-p99"]
    for each in figures:
        assert each.keys() == FIELDS
        assert all(each[name] > 0 for name in ("ours", "limit", "alternative", "ratio"))
        assert isinstance(each["holds"], bool)


@pytest.mark.netns
def test_a_row_with_several_alternatives_names_each(tmp_path: Path):
    rows = [f"member-delta-{count}" for count in (1, 100, 1000, 100000)]
    figures, output = measured(tmp_path, ",".join(rows), scale="0.01")
    assert [each["row"] for each in figures] == rows
    for each in figures:
        assert each.keys() == FIELDS | {"others"}
        assert each["alternative_name"] == "ipset restore"
        assert any(name.startswith("pyroute2") for name in each["others"])
        assert all(value > 0 for value in (each["ours"], each["limit"], each["alternative"], *each["others"].values()))
        assert all(name in output for name in each["others"])


@pytest.mark.netns
@pytest.mark.nats
def test_the_way_to_the_kernel_is_measured_to_the_last_member(tmp_path: Path):
    figures, _ = measured(tmp_path, "event-to-kernel-embedded", scale="0.02")
    assert [each["row"] for each in figures] == ["event-to-kernel-embedded", "event-to-kernel-embedded-p99"]
    assert all(each.keys() == FIELDS for each in figures)


@pytest.mark.netns
def test_pods_are_programmed_and_rewritten_to_the_last_one(tmp_path: Path):
    figures, _ = measured(tmp_path, "node-cold-start,pod-patches", scale="0.04")
    assert [each["row"] for each in figures] == [
        *("node-cold-start", "node-cold-start-netlink", "node-cold-start-standing"),
        *("pod-patches", "pod-patches-netlink"),
    ]
    for each in figures:
        assert each.keys() == FIELDS | {"others"}
        assert any(name.startswith("eastwest with set_backend=restore") for name in each["others"])
        assert all(value > 0 for value in (each["ours"], each["limit"], each["alternative"], *each["others"].values()))
    assert all(any(name.startswith("pyroute2") for name in each["others"]) for each in figures[:2])


@pytest.mark.netns
def test_what_the_limit_sends_packed_is_what_the_tools_would_have_written():
    with made_crowd(1) as crowd:
        crowd.make([0], life=1)
        for life, written in enumerate((_by_tools, _packed)):
            written(crowd, life)
        by_tools, packed = ([crowd.command(crowd.path(0, life), *words) for words in SAVING] for life in (0, 1))
    assert [_settled(each) for each in packed] == [_settled(each) for each in by_tools]
    assert all("EW-IN-NEW" in each for each in by_tools[:2])


def _by_tools(crowd: Crowd, life: int) -> None:
    for tables in (bare_writes.first_write(crowd, 0), bare_writes.rewrite(bare_writes.next_tables(crowd, 0, 0))):
        bare_writes.in_turn(crowd, [tables], life)


def _packed(crowd: Crowd, life: int) -> None:
    with bare_writes.kept_sockets(crowd, life) as (netlink,):
        bare_writes.packed_first_write(crowd, 0, netlink)()
        bare_writes.packed_rewrite(netlink, bare_writes.next_tables(crowd, 0, 0))()


def _settled(saved: str) -> list[str]:
    """Without times, the order of members, and what a set's hash begins with."""
    lines = (re.sub(r" (hashsize|maxelem|bucketsize|initval) \S+", "", line) for line in saved.splitlines())
    return sorted(line for line in lines if not line.startswith("#"))


@pytest.mark.netns
def test_what_others_change_of_rules_and_of_sets_is_measured_until_it_is_back(tmp_path: Path):
    figures, _ = measured(tmp_path, "drift-to-healed,drift-to-healed-set", scale="0.01")
    assert [each["row"] for each in figures] == [
        *("drift-to-healed", "drift-to-healed-p99"),
        *("drift-to-healed-set", "drift-to-healed-set-p99"),
    ]
    for each in figures:
        assert each.keys() == FIELDS
        assert all(each[name] > 0 for name in ("ours", "limit", "alternative", "ratio"))


def test_a_row_that_cannot_run_here_says_why_and_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def impossible(_scale: float) -> list[Figure]:
        raise Unavailable("no java")

    monkeypatch.setitem(run.ROWS, "impossible", impossible)
    file = tmp_path / "figures.json"
    result = CliRunner().invoke(run.main, ["--rows", "impossible", "--json", str(file)])

    assert result.exit_code == 0
    (figure,) = json.loads(file.read_text())
    assert (figure["ours"], figure["holds"], figure["note"]) == (None, None, "no java")


def test_a_row_that_crashes_is_told_and_spoils_no_other(monkeypatch: pytest.MonkeyPatch):
    def broken(_scale: float) -> list[Figure]:
        raise ValueError("broken")

    monkeypatch.setitem(run.ROWS, "broken", broken)
    result = CliRunner().invoke(run.main, ["--rows", "broken,label-change", "--scale", "0.001"])

    assert result.exit_code == 1
    assert "label-change" in result.output


def test_an_unknown_row_is_refused_by_name():
    result = CliRunner().invoke(run.main, ["--rows", "speed"])
    assert result.exit_code == 2
    assert "speed" in result.output
