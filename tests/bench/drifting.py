"""Rows from someone's change of our rules, or of our sets, to their being back.

            of rules, from the change on
ours        a jump is deleted by netlink ─▶ heard ─▶ read ─▶ compared ─▶ tools ─▶ it stands there again
limit       the same, and whoever did it calls iptables-nft-restore at once
otherwise   iptables-nft-save every second, and iptables-nft-restore where something lacks

            of sets, from the look that finds it: nobody hears of these
ours        a member is deleted by ipset ┄▶ the Pod's turn ─▶ read ─▶ compared ─▶ netlink ─▶ it is there again
limit       the set is listed and the member sent, both packed before, on a kept socket
otherwise   ipset save, and ipset restore where something lacks
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from structlog.testing import capture_logs

from compose.lab.capability import obstacles
from enforcers.core.difference import Jump
from enforcers.core.layout import Interface, set_name
from enforcers.core.netlink import ipset
from enforcers.core.rendering import jumps
from enforcers.cven import Cven
from enforcers.kernel import namespaces
from enforcers.kernel.rules import native
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from tests.bench.measuring import Figure, Unavailable, at_least, each_timed, quantile
from tests.components.waiting import until
from tests.enforcers.cven_world import enforcing
from tests.enforcers.pod_world import CLIENTS, World, address, made_world, packed

ROUNDS: Final = 100
POLLED_ROUNDS: Final = 10
POLL_SECONDS: Final = 1.0
NEVER: Final = 3600.0
HOOK: Final = "PREROUTING"
VERIFY_SECONDS: Final = 0.05
"""Between two turns of the one Pod; the time until its turn is not measured."""
NAME: Final = set_name(CLIENTS, 4)
MEMBER: Final = f"add {NAME} {address('a')}"
DELETING: Final = ["ipset", "del", NAME, address("a")]

Mend = Callable[[], Awaitable[None]]
"""Returns when our jump stands there again."""
Measured = tuple[list[float], list[float], list[float]]
"""Seconds per round of the limit, of ours, and of the alternative."""
Measure = Callable[[int, int], Coroutine[None, None, Measured]]
"""Given the rounds of the first two, and of the alternative."""


def drift_to_healed(scale: float) -> list[Figure]:
    """One Pod; another process's share of the machine counts. Ratio: times the limit."""
    return _measured("drift-to-healed", _of_rules, scale, f"iptables-nft-save every {POLL_SECONDS:g} s")


def drift_of_set_to_healed(scale: float) -> list[Figure]:
    """The same, from the look that finds it. Ratio: times the limit."""
    return _measured("drift-to-healed-set", _of_sets, scale, "ipset save and restore, from the save on")


def _measured(row: str, measure: Measure, scale: float, other: str) -> list[Figure]:
    if found := obstacles():
        raise Unavailable("; ".join(f"{each.what}; {each.remedy}" for each in found))
    with capture_logs():  # each round is a warning
        limit, ours, polled = asyncio.run(measure(at_least(ROUNDS * scale, 5), at_least(POLLED_ROUNDS * scale, 2)))
    return [
        Figure(
            row=name,
            unit="ms",
            ours=quantile(ours, share) * 1e3,
            limit=quantile(limit, share) * 1e3,
            alternative=quantile(polled, share) * 1e3,
            alternative_name=other,
            ratio=quantile(ours, share) / quantile(limit, share),
            goal="none",
            holds=True,
        )
        for name, share in ((row, 0.5), (f"{row}-p99", 0.99))
    ]


# --- of rules --------------------------------------------------------------------------------------------------------


async def _of_rules(rounds: int, polled: int) -> Measured:
    with made_world() as world:
        async with enforcing(world, verify_seconds=NEVER) as cven:
            ours = await _each(world, rounds, lambda: _heal(cven))
        line = jumps(Interface("eth0"))[HOOK].line(HOOK, "-I")
        text = f"*mangle\n{line}\nCOMMIT\n"

        async def at_once() -> None:
            await namespaces.run(world.path("web"), ["iptables-nft-restore", "--noflush"], text)

        async def by_polling() -> None:
            await asyncio.sleep(random.uniform(0, POLL_SECONDS))
            assert line not in await namespaces.run(world.path("web"), ["iptables-nft-save", "-t", "mangle"])
            await at_once()

        return await _each(world, rounds, at_once), ours, await _each(world, polled, by_polling)


async def _each(world: World, rounds: int, mend: Mend) -> list[float]:
    seconds = []
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        for _ in range(rounds):
            found = native.read(netlink).tables[4]
            began = time.perf_counter()
            native.remove(netlink, [Jump(4, HOOK, found.jumps(HOOK)[0].handle)])
            await mend()
            seconds.append(time.perf_counter() - began)
    return seconds


async def _heal(cven: Cven) -> None:
    healed = cven.node.tamperings.healed
    await until("a heal", lambda: cven.node.tamperings.healed > healed, poll_seconds=0.0005)
    cven.node.tamperings.forget("uid-web")  # or it would take the bench for a contest


# --- of sets ---------------------------------------------------------------------------------------------------------


async def _of_sets(rounds: int, polled: int) -> Measured:
    with made_world() as world:
        ours = []
        async with enforcing(world, verify_seconds=VERIFY_SECONDS) as cven:
            for _ in range(rounds):
                await asyncio.sleep(random.uniform(1, 2) * VERIFY_SECONDS)  # at any time once it has rested
                heal = asyncio.create_task(_heal(cven))
                await namespaces.run(world.path("web"), DELETING)
                await heal
                ours.append(cven.node.tamperings.recent[-1].seconds)
        with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
            return _by_netlink(netlink, rounds), ours, await _by_the_tool(world, polled)


def _by_netlink(netlink: NetlinkSocket, rounds: int) -> list[float]:
    listing = ipset.listing_query(NAME)
    deleting, adding = (list(ipset.changes(CLIENTS, 4, (packed("a"),), adding=adding)) for adding in (False, True))

    def mend() -> None:
        netlink.dump(listing)
        netlink.request(*adding)

    seconds = []
    for _ in range(rounds):
        netlink.request(*deleting)
        seconds += each_timed([mend])
    return seconds


async def _by_the_tool(world: World, rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        await namespaces.run(world.path("web"), DELETING)
        began = time.perf_counter()
        assert MEMBER not in await namespaces.run(world.path("web"), ["ipset", "save", NAME])
        await namespaces.run(world.path("web"), ["ipset", "restore"], f"{MEMBER}\n")
        seconds.append(time.perf_counter() - began)
    return seconds
