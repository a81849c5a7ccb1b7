"""Rows of membership changes in a Pod's namespace: so many addresses join an ipset, or leave it."""

import asyncio
import gc
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from pyroute2 import IPSet

from compose.lab.capability import obstacles
from enforcers.core.difference import Contents, Membership
from enforcers.core.layout import set_name
from enforcers.core.netlink import ipset
from enforcers.kernel.namespaces import inside
from enforcers.kernel.scratch import scratch_namespace
from enforcers.kernel.sets.set_backends import NetlinkSets, RestoreSets, SetBackend
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas import addresses
from schemas.sets import SetKind, set_id
from tests.bench.measuring import Figure, Row, Unavailable, at_least, each_timed, quantile

COUNTS: Final = (1, 100, 1000, 100_000)
GOAL_SECONDS: Final = {1: 60e-6, 100: 60e-6, 1000: 500e-6, 100_000: 50e-3}
ENTRIES: Final = 200_000
"""How many are changed in all, so that every count has its time."""
ROUNDS: Final = (10, 2000)
"""At least and at most."""
SPAWNED_ROUNDS: Final = 5
SAMPLE: Final = 200
"""Entries that pyroute2 is given; more take it as much longer each."""
IDENTITY: Final = set_id(SetKind.ADDRESSES, "bench")
NAME: Final = set_name(IDENTITY, 4)


def _delta(count: int, scale: float) -> list[Figure]:
    """*count* addresses join an ipset that has room for them, and leave again: the time of one such change, in the
    middle. Ours is what the enforcer calls. The limit sends what was packed before on a kept socket. Ratio: times
    faster than the ipset tool."""
    if found := obstacles():
        raise Unavailable("; ".join(f"{each.what}; {each.remedy}" for each in found))
    members = tuple((10 << 24 | number).to_bytes(4, "big") for number in range(1, at_least(count * scale) + 1))
    rounds = min(max(at_least(ENTRIES * scale / len(members)), ROUNDS[0]), ROUNDS[1])
    # No uvloop: the C-VEN does without it as well.
    ours, limit, restore, each_entry = asyncio.run(_measured(members, rounds))
    unit, factor = ("ms", 1e3) if count > 1000 else ("µs", 1e6)
    sampled = f", {SAMPLE} measured and multiplied" if len(members) > SAMPLE else ""
    goal = GOAL_SECONDS[count]
    return [
        Figure(
            row=f"member-delta-{count}", unit=unit, ours=ours * factor, limit=limit * factor,
            alternative=restore * factor, alternative_name="ipset restore",
            others={f"pyroute2 IPSet, entry by entry{sampled}": each_entry * len(members) * factor},
            ratio=restore / ours, goal=f"≤ {goal * factor:g} {unit}", holds=ours <= goal,
        )
    ]  # fmt: skip


ROWS: Final[dict[str, Row]] = {f"member-delta-{count}": partial(_delta, count) for count in COUNTS}


async def _measured(members: tuple[bytes, ...], rounds: int) -> tuple[float, float, float, float]:
    """Seconds of ours, of the limit, of the tool, and of one entry by pyroute2."""
    with scratch_namespace() as path, NetlinkSocket(path, NETLINK_NETFILTER) as netlink:
        sets, tool = NetlinkSets(lambda: netlink), RestoreSets(path)
        await sets.create([Contents(IDENTITY, 4, members)])
        await sets.change([Membership(IDENTITY, 4, removed=members)])
        return (
            await _middle(_changes(sets, members), rounds),
            _limit(path, members, rounds),
            await _middle(_changes(tool, members), min(rounds, SPAWNED_ROUNDS)),
            inside(path, lambda: _by_pyroute2(members[:SAMPLE])),
        )


def _changes(sets: SetBackend, members: tuple[bytes, ...]) -> list[Callable[[], Awaitable[None]]]:
    joining, leaving = Membership(IDENTITY, 4, added=members), Membership(IDENTITY, 4, removed=members)
    return [lambda: sets.change([joining]), lambda: sets.change([leaving])]


async def _middle(changes: list[Callable[[], Awaitable[None]]], rounds: int) -> float:
    gc.collect()
    seconds = []
    for change in changes * rounds:
        started = time.perf_counter()
        await change()
        seconds.append(time.perf_counter() - started)
    return quantile(seconds, 0.5)


def _limit(path: Path, members: tuple[bytes, ...], rounds: int) -> float:
    kept = inside(path, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
    answer = bytearray(1 << 17)

    def send(requests: list[bytes]) -> None:
        for request in requests:
            kept.send(request)
            kept.recv_into(answer)
            assert not any(answer[16:20]), "the kernel refused"

    packed = [list(ipset.changes(IDENTITY, 4, members, adding=adding)) for adding in (True, False)]
    with kept:
        return quantile(each_timed([partial(send, requests) for requests in packed] * rounds), 0.5)


def _by_pyroute2(members: tuple[bytes, ...]) -> float:
    texts = [addresses.unpack(member) for member in members]
    with IPSet() as tool:
        changes = [partial(change, NAME, text) for change in (tool.add, tool.delete) for text in texts]
        return quantile(each_timed(changes * (SAMPLE // len(texts))), 0.5)
