"""What no event tells of a Pod: who else writes to our bit, and how full its connection table is."""

import asyncio
import shutil

import pytest
from structlog.testing import capture_logs

from enforcers.core.layout import DEFAULT_MARK
from enforcers.core.netlink.rule_listing import MarkRule
from enforcers.enforcer import describe
from enforcers.kernel.connections.inspecting import Inspection
from enforcers.node import inspecting
from enforcers.node.inspecting import look
from enforcers.runtimes.given_runtime import GivenRuntime
from schemas.status import PodState, RuntimeStatus
from tests.components.presence import missing
from tests.enforcers.cven_world import Told, realized, running, told, until
from tests.enforcers.pod_world import ALLOW, World, address, both, enforced, sets

pytestmark = pytest.mark.netns

SOON = 0.1
"""Seconds between two looks."""

INTO_XTABLES = {
    "-j CONNMARK --set-mark 0x1": 0xFFFFFFFF,
    "-j CONNMARK --set-xmark 0x1/0xff": 0xFF,
    "-j CONNMARK --or-mark 0x10000000": 0x10000000,
    "-j CONNMARK --save-mark": 0xFFFFFFFF,
    "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff": 0xFF,
    "-j CONNMARK --restore-mark": 0,
    "-j MARK --set-mark 0x1": 0,
}
INTO_NFTABLES = {
    "ct mark set 0x1": 0xFFFFFFFF,
    "ct mark set meta mark": 0xFFFFFFFF,
    "ct mark set ct mark | 0x1": 0x1,
    "ct mark set ct mark & 0xefffffff": 0x10000000,
    "ct mark 0x10000000 accept": 0,
    "meta mark set ct mark": 0,
}


async def seen(world: World) -> tuple[MarkRule, ...]:
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    await pod.inspect()
    return pod.connections.inspected.mark_rules


@pytest.mark.parametrize(("written", "bits"), INTO_XTABLES.items())
async def test_a_foreign_iptables_rule_is_reported_where_it_may_change_our_bit(world, written, bits):
    world.command("web", "iptables-nft-restore", "--noflush", text=f"*mangle\n-A OUTPUT {written}\nCOMMIT\n")
    expected = (MarkRule("mangle", "OUTPUT", bits),) if bits & DEFAULT_MARK else ()
    assert await seen(world) == expected


@pytest.mark.parametrize(("written", "bits"), INTO_NFTABLES.items())
async def test_a_foreign_nftables_rule_is_reported_where_it_may_change_our_bit(world, written, bits):
    lines = f"table inet theirs {{\nchain c {{\ntype filter hook output priority 0;\n{written}\n}}\n}}\n"
    world.command("web", "nft", "-f", "-", text=lines)
    expected = (MarkRule("theirs", "c", bits),) if bits & DEFAULT_MARK else ()
    assert await seen(world) == expected


async def test_such_a_rule_is_a_problem_of_its_pod_in_the_status(world):
    world.command("web", "nft", "-f", "-", text="table ip t {\nchain c {\nct mark set 0\n}\n}\n")
    async with running(world, Told(told(1, ALLOW, clients=both("a")))) as cven:
        await until("the problem to be seen", cven.standing.problems)
        assert cven.standing.problems() == (
            "shop/web: a rule in table t, chain c writes to the bit of the connection mark that is ours",
        )


async def test_it_is_told_of_its_pod_beside_its_state_and_logged_once(world):
    world.command("web", "nft", "-f", "-", text="table ip t {\nchain c {\nct mark set 0\n}\n}\n")
    problem = "a rule in table t, chain c writes to the bit of the connection mark that is ours"
    async with running(world, Told(told(1, ALLOW, clients=both("a")))) as cven:
        await realized(cven, 1)
        pod = cven.node.pods["uid-web"]
        pod.connections.inspected = Inspection()
        with capture_logs() as logged:
            await look(pod)
            await look(pod)
        assert [(each["pod"], each["problem"]) for each in logged] == [("shop/web", problem)]

        _, runtime = describe(cven, GivenRuntime())
        assert isinstance(runtime, RuntimeStatus)
        assert [(each.name, each.state, each.problems) for each in runtime.pods] == [
            ("web", PodState.ENFORCED, (problem,)),
        ]


async def test_a_pod_whose_rules_miss_one_of_its_addresses_is_looked_into_as_well(world, monkeypatch):
    monkeypatch.setattr(inspecting, "INSPECT_SECONDS", SOON)
    world.ip("web", f"addr del {address('web', 6)}/64 dev eth0")
    world.command("web", "nft", "-f", "-", text="table ip t {\nchain c {\nct mark set 0\n}\n}\n")
    async with running(world, Told(told(1, ALLOW, clients=both("a")))) as cven:
        await realized(cven, 1)
        assert cven.state_of("uid-web") is PodState.UNENFORCEABLE

        await until("the problem to be seen", cven.standing.problems)
        assert cven.node.pods["uid-web"].connections.inspected.limit > 0
        assert cven.state_of("uid-web") is PodState.UNENFORCEABLE


async def test_rules_of_iptables_legacy_that_come_and_go_at_runtime_are_a_problem_meanwhile(world, monkeypatch):
    if shutil.which("iptables-legacy") is None:
        missing("iptables-legacy is not installed", "apt install iptables")
    monkeypatch.setattr(inspecting, "INSPECT_SECONDS", SOON)
    problem = "iptables-legacy's table filter (IPv4) is evaluated as well: 1 rule"
    async with running(world, Told(told(1, ALLOW, clients=both("a")))) as cven:
        await realized(cven, 1)
        assert cven.standing.problems() == ()
        with capture_logs() as logged:
            await asyncio.to_thread(world.command, "web", "iptables-legacy", "-A", "INPUT", "-j", "DROP")
            await until("it to be told", lambda: cven.standing.problems() == (f"shop/web: {problem}",))
        assert [(each["pod"], each["found"]) for each in logged] == [("shop/web", (problem,))]

        await asyncio.to_thread(world.command, "web", "iptables-legacy", "-F")
        await until("it to be told no more", lambda: cven.standing.problems() == ())
        assert cven.state_of("uid-web") is PodState.ENFORCED


async def test_connections_are_counted_against_their_limit(world):
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    for _ in range(3):
        world.associated("web", "a", 80)
    await pod.inspect()

    assert pod.connections.inspected.connections == 3
    assert pod.connections.inspected.limit > 3
    assert pod.problems == ()


def test_a_table_that_is_nearly_full_is_a_problem():
    assert Inspection(90, 100).problems == ["its connection table is full to 90% or more of 100 connections"]
    assert Inspection(90, 100).problems == Inspection(91, 100).problems, "or it would be told again and again"
    assert Inspection(89, 100).problems == []
    assert Inspection(1, 0).problems == []
