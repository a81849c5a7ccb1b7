"""What others change of our rules is found by the kernel's word, put back at once, and told with who did it."""

import asyncio
import socket
import sys

import pytest

from enforcers.enforcer import describe
from enforcers.runtimes.given_runtime import GivenRuntime
from schemas.status import CvenStatus, DriftKind, Order, PodState
from tests.enforcers.cven_world import Told, enforcing, healed, realized, running, told, until
from tests.enforcers.pod_world import ALLOW, CLIENTS, World, both, enforced, sets
from tests.enforcers.tampering import ACTS, Act, handle_of, iptables, nft

pytestmark = pytest.mark.netns

NEVER = 3600.0
"""Seconds between two verifications, where hearing of a change must suffice."""


def ours(world: World, family: int) -> list[str]:
    """Our chains and rules, and that our jumps come first."""
    lines = world.rules(family=family).splitlines()
    found = [line for line in lines if ":EW-" in line or "-A EW-" in line]
    return found + [
        next((line for line in lines if f"-A {hook}" in line), "") for hook in ("PREROUTING", "POSTROUTING")
    ]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
async def test_a_change_of_our_rules_is_put_back_at_once_and_told_with_who_did_it(world, act: Act, family):
    world.listen("web", 80, family)
    async with enforcing(world, verify_seconds=NEVER) as cven:
        before = {each: ours(world, each) for each in (4, 6)}
        act.do(world, family)

        found = await healed(cven)

        assert act.kind in {each.kind for each in found.differences}
        assert any(each.startswith(f"{act.process(family)}[") for each in found.processes), found.processes
        assert found.seconds is not None
        assert {each: ours(world, each) for each in (4, 6)} == before
        assert world.reaches("a", "web", 80, family)
        assert not world.reaches("b", "web", 80, family)
        assert (cven.state_of("uid-web"), cven.exceptions) == (PodState.ENFORCED, ())


async def test_a_rule_that_keeps_our_comment_and_does_something_else_is_found(world):
    """Our comment says which rule should be there; whether it is still ours only the rule itself says."""
    world.listen("web", 80)
    async with enforcing(world, verify_seconds=NEVER) as cven:
        comment = world.rules().split("EW-IN-NEW -m conntrack --ctdir REPLY")[1].split('--comment "')[1].split('"')[0]
        rule = ("EW-IN-NEW", "1", "-m", "comment", "--comment", comment, "-j", "RETURN")
        await asyncio.to_thread(iptables, world, 4, "-R", *rule)

        (found,) = (await healed(cven)).differences

        assert (found.kind, found.object) == (DriftKind.CHAIN, "mangle EW-IN-NEW (IPv4)")
        assert "--ctdir REPLY" in world.rules()


async def test_what_others_have_in_our_table_stays_as_they_made_it(world):
    async with enforcing(world, verify_seconds=NEVER) as cven:
        iptables(world, 4, "-I", "PREROUTING", "-p", "udp", "--dport", "9", "-j", "ACCEPT")
        await healed(cven)
        nft(world, 4, "add chain TABLE theirs")
        nft(world, 4, "add rule TABLE theirs counter")

        foreign = world.foreign_rules()
        act = next(each for each in ACTS if each.name == "delete our jump")
        act.do(world, 4)
        await healed(cven, 2)

        assert world.foreign_rules() == foreign
        assert "-p udp -m udp --dport 9 -j ACCEPT" in foreign


async def test_a_foreign_accept_in_a_chain_before_ours_lets_nothing_past_us(world):
    world.listen("web", 80)
    async with enforcing(world, verify_seconds=NEVER) as cven:
        nft(world, 4, "add table inet early")
        nft(world, 4, "add chain inet early first { type filter hook prerouting priority -300; }")
        nft(world, 4, "add rule inet early first accept")

        await until("it to be looked at", lambda: cven.node.pods["uid-web"].tables.read_back.generation > 3)
        assert not world.reaches("b", "web", 80)
        assert cven.node.tamperings.healed == 0


def _flush_a_chain(world: World) -> None:
    iptables(world, 4, "-F", "EW-IN-NEW")


def _flush_a_set(world: World) -> None:
    world.command("web", "ipset", "flush", f"ew-{CLIENTS}-4")


@pytest.mark.parametrize(("change", "seconds"), [(_flush_a_chain, NEVER), (_flush_a_set, 0.1)])
async def test_under_a_pause_a_change_is_told_and_left_and_put_back_when_that_ends(world, change, seconds):
    async with enforcing(world, verify_seconds=seconds) as cven:
        before = ours(world, 4)
        cven.node.order(Order(by="test"))
        assert cven.state_of("uid-web") is PodState.ENFORCED
        writes = cven.writes
        await asyncio.to_thread(change, world)

        await until("it to be found", lambda: cven.node.tamperings.recent)
        (found,), (exception,) = cven.node.tamperings.recent, cven.exceptions
        assert found.seconds is None
        assert exception.reason == f"paused, so what someone changed is not put back: {found.differences[0]}"
        assert (cven.state_of("uid-web"), cven.node.tamperings.healed, cven.writes) == (PodState.PAUSED, 0, writes)

        cven.node.undo()
        await healed(cven)
        assert ours(world, 4) == before
        assert "10.77.1.3" in world.command("web", "ipset", "list", f"ew-{CLIENTS}-4")
        assert (cven.state_of("uid-web"), cven.exceptions) == (PodState.ENFORCED, ())


async def test_a_heal_is_told_in_the_status_and_counted(world):
    async with enforcing(world, verify_seconds=NEVER) as cven:
        await asyncio.to_thread(ACTS[0].do, world, 4)
        found = await healed(cven)

        own, _ = describe(cven, GivenRuntime())
        assert isinstance(own, CvenStatus)
        assert (own.healed, own.tampering) == (1, (found,))
        text = str(found.differences[0])
        assert text.startswith("mangle EW-IN-NEW (IPv4): 6 rules before, now 0 rules: lacks ")
        assert text.endswith(", own-node and 3 more")
        metrics = cven.node.metrics.registry
        assert metrics.get_sample_value("eastwest_drift_healed_total", {"kind": "chain"}) == 1
        assert metrics.get_sample_value("eastwest_drift_healing_seconds_count") == 1
        assert cven.node.patches[-1].what == "put back: IPv4: EW-IN-NEW"


async def test_our_own_writes_are_never_taken_for_tampering(world):
    reader = Told(told(1, ALLOW, clients=both("a")))
    async with running(world, reader, verify_seconds=0.05) as cven:
        for revision in range(2, 30):
            reader.tell(told(revision, ALLOW, clients=both("a", "b") if revision % 2 else set()))
            await realized(cven, revision)
        assert (cven.node.tamperings.recent, cven.exceptions) == ((), ())


async def test_a_restarted_enforcer_puts_back_what_was_changed_while_nobody_watched(world):
    world.listen("web", 80)
    await enforced(world, ALLOW, sets(clients=both("a")))
    before = ours(world, 4)
    handle = handle_of(world, 4, "EW-IN-NEW", "drop")
    nft(world, 4, f"delete rule TABLE EW-IN-NEW handle {handle}")
    iptables(world, 4, "-I", "PREROUTING", "-j", "ACCEPT")
    world.command("web", "ipset", "flush", "ew-node-6")

    async with enforcing(world, verify_seconds=NEVER):
        assert ours(world, 4) == before
        assert "fd77::1" in world.command("web", "ipset", "list", "ew-node-6")
        assert not world.reaches("b", "web", 80)


async def test_packets_get_through_only_between_the_change_and_the_heal(world):
    """Counted at the receiver: the Pod's own socket. What is allowed loses nothing meanwhile."""
    server = world.open_socket("web", kind=socket.SOCK_DGRAM)
    server.bind(("10.77.1.2", 53))
    server.setblocking(False)
    listener = world.listen("web", 80)
    async with enforcing(world, verify_seconds=NEVER) as cven:
        client = world.connect("a", "web", 80)
        allowed = world.accept(listener)
        script = (
            "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
            "while True:\n s.sendto(b'x',('10.77.1.2',53)); time.sleep(0.0005)\n"
        )
        sender = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={world.path('b')}", sys.executable, "-c", script
        )
        try:
            for round_ in range(1, 6):
                await asyncio.to_thread(ACTS[-1].do, world, 4)
                await healed(cven, round_)
                drained(server)  # what was let through before the heal has arrived by now: one machine, no queue
                client.sendall(b"on")
                assert allowed.recv(8) == b"on"
            leaked = drained(server)
            await asyncio.sleep(0.1)
            assert drained(server) == 0, f"after the heal; {leaked} since the last"
        finally:
            sender.kill()
            await sender.wait()


def drained(server: socket.socket) -> int:
    count = 0
    while True:
        try:
            server.recv(16)
        except BlockingIOError:
            return count
        count += 1
