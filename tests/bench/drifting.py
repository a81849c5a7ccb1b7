"""The row from someone's change of our rules to their being back.

ours        a jump is deleted by netlink ─▶ heard ─▶ read ─▶ compared ─▶ tools ─▶ it stands there again
limit       the same, and whoever did it calls iptables-nft-restore at once
otherwise   iptables-nft-save every second, and iptables-nft-restore where something lacks
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from structlog.testing import capture_logs

from compose.lab.capability import obstacles
from enforcers.core.difference import Jump
from enforcers.core.layout import Interface
from enforcers.core.rendering import jumps
from enforcers.kernel import namespaces
from enforcers.kernel.rules import native
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from tests.bench.measuring import Figure, Unavailable, at_least, quantile
from tests.components.waiting import until
from tests.enforcers.cven_world import enforcing
from tests.enforcers.pod_world import World, made_world

ROUNDS: Final = 100
POLLED_ROUNDS: Final = 10
POLL_SECONDS: Final = 1.0
NEVER: Final = 3600.0
HOOK: Final = "PREROUTING"

Mend = Callable[[], Awaitable[None]]
"""Returns when our jump stands there again."""


def drift_to_healed(scale: float) -> list[Figure]:
    """One Pod; another process's share of the machine counts. Ratio: times the limit."""
    if found := obstacles():
        raise Unavailable("; ".join(f"{each.what}; {each.remedy}" for each in found))
    with capture_logs():  # each round is a warning
        limit, ours, polled = asyncio.run(_all(at_least(ROUNDS * scale, 5), at_least(POLLED_ROUNDS * scale, 2)))
    return [
        Figure(
            row=name,
            unit="ms",
            ours=quantile(ours, share) * 1e3,
            limit=quantile(limit, share) * 1e3,
            alternative=quantile(polled, share) * 1e3,
            alternative_name=f"iptables-nft-save every {POLL_SECONDS:g} s",
            ratio=quantile(ours, share) / quantile(limit, share),
            goal="none",
            holds=True,
        )
        for name, share in (("drift-to-healed", 0.5), ("drift-to-healed-p99", 0.99))
    ]


async def _all(rounds: int, polled: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds per round of the limit, of ours, and of the alternative."""
    with made_world() as world:
        async with enforcing(world, verify_seconds=NEVER) as cven:

            async def by_ours() -> None:
                healed = cven.node.tamperings.healed
                await until("a heal", lambda: cven.node.tamperings.healed > healed, poll_seconds=0.0005)
                cven.node.tamperings.forget("uid-web")  # or it would take the bench for a contest

            ours = await _each(world, rounds, by_ours)
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
