"""Realized means written, in both families: nothing is confirmed before, and what cannot be is named beside it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcers.core.netlink.connections import Connection
from enforcers.kernel.connections import conntrack, judging
from enforcers.kernel.connections.judging import Ground
from enforcers.kernel.sockets import NetlinkSocket
from enforcers.node import acknowledging
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.status import PodState
from tests.enforcers.cven_world import Told, realized, running, slow_tool, told, until
from tests.enforcers.pod_world import ALLOW, CLIENTS, DENY, World, both
from tests.enforcers.sockets import passes

pytestmark = pytest.mark.netns


def isolated_in(world: World, family: int) -> bool:
    return "default-" in world.rules(family=family)


@contextmanager
def held_judging(
    monkeypatch: pytest.MonkeyPatch, whose: Callable[[Ground], bool] = lambda ground: True
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """While inside, an audit on such a ground sets the first event and then waits for the second."""
    audit, begun, go = judging.audit, threading.Event(), threading.Event()

    def slowly(netlink: NetlinkSocket, ground: Ground) -> judging.Judged:
        if whose(ground):
            begun.set()
            assert go.wait(20)
        return audit(netlink, ground)

    monkeypatch.setattr(judging, "audit", slowly)
    try:
        yield begun, go
    finally:
        go.set()


async def test_a_revision_is_not_confirmed_for_a_pod_that_has_only_one_family(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """IPv6 takes as long as the test wants."""
    go = slow_tool(tmp_path, monkeypatch, "ip6tables-nft-restore")

    async with running(world, Told(told(7, DENY, clients=set()))) as cven:
        await until("IPv4 to be written", lambda: isolated_in(world, 4))
        assert not isolated_in(world, 6)
        assert cven.revision == -1 or cven.exceptions
        assert cven.state_of("uid-web") is PodState.PENDING

        await realized(cven, 7)  # for whom it holds: nobody waits for a Pod that is late
        assert [each.reason for each in cven.exceptions] == ["still being programmed"]
        assert not isolated_in(world, 6)

        go.touch()
        await until("the exception to end", lambda: cven.exceptions == ())
        assert isolated_in(world, 6)
        assert cven.state_of("uid-web") is PodState.ENFORCED


@pytest.mark.parametrize(("broken", "sound"), [("ip", 6), ("ip6", 4)])
async def test_a_pod_of_which_one_family_cannot_be_written_is_an_exception_until_it_can(
    world: World, broken: str, sound: int
):
    """A foreign base chain of our hook at another priority: no tool of iptables can use that table."""
    family = 10 - sound
    world.command("web", "nft", "add", "table", broken, "mangle")
    hook = "{ type filter hook prerouting priority -151; }"
    world.command("web", "nft", "add", "chain", broken, "mangle", "PREROUTING", hook)

    async with running(world, Told(told(7, DENY, clients=set()))) as cven:
        await realized(cven, 7)
        assert [each.uid for each in cven.exceptions] == ["uid-web"]
        assert cven.state_of("uid-web") is PodState.UNENFORCEABLE
        assert isolated_in(world, sound)

        world.command("web", "nft", "delete", "table", broken, "mangle")
        await until("both families", lambda: cven.exceptions == ())
        assert cven.state_of("uid-web") is PodState.ENFORCED
        assert (isolated_in(world, sound), isolated_in(world, family)) == (True, True)


@pytest.mark.parametrize("tool", ["iptables-nft", "ip6tables-nft"])
async def test_what_went_while_it_was_away_is_back_before_the_revision_is_confirmed(world: World, tool: str):
    update = told(7, DENY, clients=set())
    async with running(world, Told(update)) as cven:
        await realized(cven, 7)
    before = [world.rules(family=family) for family in (4, 6)]
    world.command("web", tool, "-t", "mangle", "-F")

    async with running(world, Told(update)) as again:
        await realized(again, 7)
        assert [world.rules(family=family) for family in (4, 6)] == before
        assert again.exceptions == ()


async def test_a_pod_with_more_connections_than_can_be_judged_in_time_is_an_exception_and_no_brake(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Every acknowledgement of its node would wait for a Pod that has a million."""
    world.listen("web", 80)
    reader = Told(told(6, ALLOW, clients=both("a")))
    with held_judging(monkeypatch) as (_, go):
        async with running(world, reader) as cven:
            await realized(cven, 6)
            assert world.reaches("a", "web", 80)
            reader.tell(told(7, DENY, clients=set()))
            await realized(cven, 7)
            assert [each.reason for each in cven.exceptions] == ["its connections are still being judged"]
            monkeypatch.setattr(acknowledging, "LATE_SECONDS", 60)
            reader.tell(told(8, complete=False, clients=both("b")))
            await realized(cven, 8)

            go.set()
            await until("the exception to end", lambda: cven.exceptions == ())


async def test_what_is_wrong_with_a_pod_is_not_forgotten_for_its_connections_being_judged(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(acknowledging, "LATE_SECONDS", 0.05)
    world.connected("a", "web", 80)
    with held_judging(monkeypatch) as (_, go):
        async with running(world, Told(told(6, ALLOW, clients=both("a")))) as cven:
            await realized(cven, 6)
            cven.node.failing["uid-web"] = "something else"

            await cven.acknowledging._audit(["uid-web"])

            assert cven.node.failing == {"uid-web": "something else"}
            go.set()


async def test_a_revision_is_not_confirmed_for_a_pod_that_the_second_audit_of_the_one_before_is_judging(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(acknowledging, "ACKNOWLEDGE_SECONDS", 5 * acknowledging.SECOND_AUDIT_SECONDS)
    reader = Told(told(6, ALLOW, clients=both("a")))
    world.connected("a", "web", 80)
    with held_judging(monkeypatch, lambda ground: not ground.sets[CLIENTS].members) as (begun, go):
        async with running(world, reader) as cven:
            await realized(cven, 6)
            reader.tell(NodeUpdate(sets=(SetChange(id=CLIENTS, removed=frozenset(both("a"))),), mark=Mark(revision=7)))
            await until("the audit to begin", begun.is_set)

            await realized(cven, 7)
            assert [each.reason for each in cven.exceptions] == [acknowledging.LATE]
            go.set()
            await until("the exception to end", lambda: cven.exceptions == ())


async def test_a_connection_that_the_kernel_confirms_after_the_first_audit_is_cut_by_the_second(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Its first packet was let in by the rules before and held on its way: it is in no list at first, then marked."""
    audit = judging.audit
    hidden: list[Connection] = []

    def confirming_late(netlink: NetlinkSocket, ground: Ground) -> judging.Judged:
        if hidden or ground.sets[CLIENTS].members:
            return audit(netlink, ground)
        hidden.extend(conntrack.marked(netlink, ground.mark))
        conntrack.unmark(netlink, ground.mark, hidden)
        judged = audit(netlink, ground)
        conntrack.mark(netlink, ground.mark, hidden)
        return judged

    monkeypatch.setattr(judging, "audit", confirming_late)
    reader = Told(told(6, ALLOW, clients=both("a")))
    client, server = world.connected("a", "web", 80)
    async with running(world, reader) as cven:
        await realized(cven, 6)
        assert passes(client, server)

        gone = SetChange(id=CLIENTS, removed=frozenset(both("a")))
        reader.tell(NodeUpdate(sets=(gone,), mark=Mark(revision=7)))
        await realized(cven, 7)

        await until("the connection to be cut", lambda: cven.node.cuts.recent, seconds=5)
        assert not passes(client, server)
        assert hidden
