"""Where someone never stops changing our rules, where nothing can be heard or helped, and where Pods come and go."""

import asyncio
import contextlib
import ctypes
import subprocess
from collections.abc import Iterator

import pytest

from enforcers.cven import Cven
from enforcers.kernel import sockets
from schemas.status import PodState
from tests.enforcers.cven_world import Told, enforcing, healed, realized, running, told, until
from tests.enforcers.pod_world import ALLOW, DENY, World, both, program
from tests.enforcers.tampering import ACTS, iptables, nft

pytestmark = pytest.mark.netns

NEVER = 3600.0
NET_BROADCAST = 11


async def test_a_storm_of_foreign_changes_causes_no_write_and_hides_nothing_for_long(world):
    world.command("web", "nft", "add table inet theirs; add chain inet theirs busy")
    lines = "add rule inet theirs busy counter\nflush chain inet theirs busy\n" * 700
    async with enforcing(world, verify_seconds=NEVER) as cven:
        pod = cven.node.pods["uid-web"]
        before, writes = pod.tables.read_back.generation, pod.writes
        storm = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={world.path('web')}", "nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        blowing = asyncio.create_task(storm.communicate(lines.encode()))
        await until("the storm to be heard", lambda: pod.tables.read_back.generation > before + 100)
        assert (pod.writes, cven.node.tamperings.recent) == (writes, ())

        await asyncio.to_thread(iptables, world, 4, "-F", "EW-IN-NEW")
        await healed(cven)

        await blowing
        await until("its end to be seen", lambda: pod.tables.read_back.generation > before + 1400)
        assert (pod.writes, cven.node.tamperings.healed) == (writes + 1, 1)


async def test_where_more_happened_than_could_be_kept_every_pod_is_looked_at(world, monkeypatch):
    """The loop hears nothing while the kernel's buffer, a small one, runs over."""
    monkeypatch.setattr(sockets, "BUFFER_BYTES", 4096)
    world.command("web", "nft", "add table inet theirs; add chain inet theirs busy")
    lines = "add rule inet theirs busy counter\nflush chain inet theirs busy\n" * 100
    async with enforcing(world, verify_seconds=NEVER) as cven:
        world.command("web", "nft", "-i", text=lines)
        iptables(world, 4, "-F", "EW-IN-NEW")

        await healed(cven)


async def test_someone_who_never_stops_is_answered_less_and_less_and_named(world):
    async with enforcing(world, verify_seconds=0.1) as cven:
        fight = asyncio.create_task(fighting(world))
        try:
            await until("a contest", lambda: cven.state_of("uid-web") is PodState.CONTESTED)
            (exception,) = cven.exceptions
            assert exception.reason.startswith("contested: someone keeps changing what is ours: mangle EW-IN-NEW")
            heals = cven.node.tamperings.healed
            await asyncio.sleep(1.0)  # a first wait takes two
            assert cven.node.tamperings.healed - heals <= 1
            assert cven.state_of("uid-web") is PodState.CONTESTED
        finally:
            fight.cancel()
        await until("it to be put back in the end", lambda: ":default-" in world.rules())


async def fighting(world: World) -> None:
    while True:
        await asyncio.to_thread(iptables, world, 4, "-F", "EW-IN-NEW")


async def test_two_enforcers_that_want_different_things_do_not_wear_the_pod_out(world):
    wanted = [ALLOW, DENY]
    readers = [Told(told(1, each, clients=both("a"))) for each in wanted]
    async with (
        running(world, readers[0], verify_seconds=0.2) as one,
        running(world, readers[1], verify_seconds=0.2) as two,
    ):
        await until(
            "both to see a contest",
            lambda: all(each.state_of("uid-web") is PodState.CONTESTED for each in (one, two)),
            seconds=60,
        )
        before = one.writes + two.writes
        await asyncio.sleep(1.0)
        assert one.writes + two.writes - before <= 2


async def contest(world: World, cven: Cven) -> None:
    for times in range(1, 7):
        await asyncio.to_thread(ACTS[0].do, world, 6)
        await healed(cven, times)
    assert cven.state_of("uid-web") is PodState.CONTESTED


async def test_a_contested_pod_still_gets_what_policy_says(world):
    reader = Told(told(1, ALLOW, clients=both("a")))
    async with running(world, reader, verify_seconds=NEVER) as cven:
        await realized(cven, 1)
        await contest(world, cven)

        reader.tell(told(2, ALLOW, clients=both("a", "b")))
        await realized(cven, 2)

        world.listen("web", 80)
        assert world.reaches("b", "web", 80)
        assert cven.state_of("uid-web") is PodState.CONTESTED


async def test_a_pod_that_nothing_isolates_any_more_is_no_longer_contested(world):
    reader = Told(told(1, ALLOW, clients=both("a")))
    async with running(world, reader, verify_seconds=NEVER) as cven:
        await realized(cven, 1)
        await contest(world, cven)

        reader.tell(told(2, program(), clients=set()))
        await realized(cven, 2)

        assert (cven.state_of("uid-web"), cven.exceptions) == (PodState.OPEN, ())


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["add table TABLE { flags dormant; }"], "table mangle is dormant"),
        (
            [
                "delete table TABLE",
                "add table TABLE",
                "add chain TABLE PREROUTING { type filter hook prerouting priority 5; }",
            ],
            "someone hooked PREROUTING elsewhere (hook 0, priority 5)",
        ),
        (["delete table TABLE", "add table TABLE", "add chain TABLE PREROUTING"], "a chain that no packet enters"),
    ],
    ids=["dormant", "another priority", "no hook"],
)
async def test_a_table_in_which_no_rule_can_work_makes_the_pod_unenforceable_until_it_is_gone(world, lines, reason):
    world.listen("web", 80)
    async with enforcing(world, verify_seconds=NEVER) as cven:
        nft(world, 4, "; ".join(lines))

        await until("it to be said", lambda: cven.state_of("uid-web") is PodState.UNENFORCEABLE)
        assert [reason in each.reason for each in cven.exceptions] == [True]

        nft(world, 4, "delete table TABLE")
        await until("it to be enforced again", lambda: cven.state_of("uid-web") is PodState.ENFORCED)
        assert (cven.exceptions, world.reaches("b", "web", 80)) == ((), False)


async def test_without_the_right_to_hear_it_says_so_and_finds_it_by_turns(world):
    with without(NET_BROADCAST):
        async with enforcing(world, verify_seconds=0.1) as cven:
            await until("it to be said", lambda: "drift" in cven.node.problems)
            assert "NET_BROADCAST" in cven.node.problems["drift"]

            await asyncio.to_thread(ACTS[0].do, world, 4)

            assert (await healed(cven)).processes == ()


@contextlib.contextmanager
def without(capability: int) -> Iterator[None]:
    """The calling thread lacks *capability* for a while."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high ones
    assert libc.capget(header, data) == 0
    data[0] &= ~(1 << capability)
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] |= 1 << capability
        assert libc.capset(header, data) == 0
