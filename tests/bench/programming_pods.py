"""Rows about chains: a node's Pods programmed from nothing, found as they should be, and rewritten again and again.

ours       a C-VEN, from its start, or from the change of a policy, until every Pod's rules are in the kernel
limit      what ours writes with, and no more, many Pods at a time: messages on kept sockets, packed before, and for
           chains, but for the rows that end in -netlink, the tools, their input prepared; nothing is decided
otherwise  the tools by `ip netns exec`, one after the other; ours with both reference backends; pyroute2

At a cold start every Pod has 50 rules in each family beside those that every isolated Pod has; where it is
rewritten, 10.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from compose.lab.capability import obstacles
from enforcers.cven import Cven
from enforcers.kernel.rules.chain_backends import ChainBackendName
from enforcers.kernel.sets.set_backends import BackendName
from enforcers.runtimes.given_runtime import GivenRuntime
from schemas.policy import Mark, NodeUpdate, SetChange
from tests.bench import bare_writes
from tests.bench.bare_writes import COLD_RULES, PATCHED_RULES, at_a_time, in_turn
from tests.bench.measuring import Figure, Unavailable, at_least, settled_memory, timed
from tests.components.waiting import until
from tests.enforcers.cven_world import Told, running_on
from tests.enforcers.node.crowd import Crowd, made_crowd, members
from tests.enforcers.pod_world import eventually

PODS: Final = 110
"""The most that a node has by default."""
ROUNDS: Final = 10
"""Each rewrites every Pod."""
GONE_SECONDS: Final = 60.0
SAMPLE: Final = 5
"""Pods whose sets pyroute2 is given."""
COLD_GOALS_SECONDS: Final[Mapping[ChainBackendName, float]] = {"restore": 0.5, "netlink": 0.25}
PATCHES_GOALS: Final[Mapping[ChainBackendName, int]] = {"restore": 300, "netlink": 2000}
SUFFIXES: Final[Mapping[ChainBackendName, str]] = {"restore": "", "netlink": "-netlink"}
"""Of a row, by how ours writes chains."""
IN_TURN: Final = "ip netns exec, one after the other"
REFERENCE: Final = "eastwest with set_backend=restore and chain_backend=restore"


def cold_start(scale: float) -> list[Figure]:
    """From nothing, and from what another C-VEN left. Ratio: times faster than otherwise."""
    with _crowd(scale) as crowd:
        lives = _lives(crowd)
        writing = [bare_writes.first_write(crowd, number) for number in range(crowd.count)]
        limits = {
            "restore": _prepared_cold_start(crowd, next(lives)),
            "netlink": _packed_cold_start(crowd, next(lives)),
        }
        life = next(lives)
        _, other = timed(lambda: in_turn(crowd, writing, life))
        sample = min(SAMPLE, crowd.count)
        each_pod = bare_writes.by_pyroute2(crowd, sample, next(lives)) / sample
        sampled = f", {sample} Pods measured and multiplied" if sample < crowd.count else ""
        others = {
            f"pyroute2 IPSet, the sets alone, entry by entry{sampled}": each_pod * crowd.count,
            REFERENCE: asyncio.run(_until_realized(crowd, next(lives), "restore", "restore")),
        }
        figures = []
        for chains, suffix in SUFFIXES.items():
            life = next(lives)
            ours = asyncio.run(_until_realized(crowd, life, chains))
            row, goal = f"node-cold-start{suffix}", COLD_GOALS_SECONDS[chains]
            figures.append(_cold(row, ours, limit=limits[chains], other=other, others=others, goal_seconds=goal))
        standing = asyncio.run(_until_realized(crowd, life, chains))
        others = {REFERENCE: asyncio.run(_until_realized(crowd, life, "restore", "restore"))}
        reading = [bare_writes.READ] * crowd.count
        with bare_writes.kept_sockets(crowd, life) as sockets:
            limit = bare_writes.send_all(list(map(bare_writes.packed_reading, sockets)))
        _, other = timed(lambda: in_turn(crowd, reading, life))
    row, goal = "node-cold-start-standing", COLD_GOALS_SECONDS["restore"]
    return [*figures, _cold(row, standing, limit=limit, other=other, others=others, goal_seconds=goal)]


def patches(scale: float) -> list[Figure]:
    """Both families of a chain whose ports changed, Pod after Pod. Ratio: times more than otherwise."""
    rounds = at_least(ROUNDS * scale, 2)
    with _crowd(scale) as crowd:
        ours = {chains: asyncio.run(_rounds_per_second(crowd, rounds, chains)) for chains in SUFFIXES}
        reference = asyncio.run(_rounds_per_second(crowd, rounds, "restore", "restore"))
        by_tool = 0.0
        for number in range(rounds, 2 * rounds):
            writing = [bare_writes.rewrite(each) for each in _next_tables(crowd, number)]
            by_tool += timed(lambda given=writing: asyncio.run(at_a_time(crowd, given, life=0)))[1]
        writing = [bare_writes.rewrite(each) for each in _next_tables(crowd, 2 * rounds)]
        other = crowd.count / timed(lambda: in_turn(crowd, writing, life=0))[1]
        limits = {"restore": by_tool, "netlink": _packed_rounds(crowd, range(2 * rounds + 1, 3 * rounds + 1))}
    return [
        Figure(
            row=f"pod-patches{SUFFIXES[chains]}",
            unit="patches/s",
            ours=found,
            limit=crowd.count * rounds / limits[chains],
            alternative=other,
            alternative_name=IN_TURN,
            others={REFERENCE: reference},
            ratio=found / other,
            goal=f"≥ {PATCHES_GOALS[chains]:,} patches/s",
            holds=found >= PATCHES_GOALS[chains],
        )
        for chains, found in ours.items()
    ]


def _cold(
    row: str, ours: float, *, limit: float, other: float, others: dict[str, float], goal_seconds: float
) -> Figure:
    return Figure(
        row=row,
        unit="s",
        ours=ours,
        limit=limit,
        alternative=other,
        alternative_name=IN_TURN,
        others=others,
        ratio=other / ours,
        goal=f"≤ {goal_seconds:g} s",
        holds=ours <= goal_seconds,
    )


# --- limits ----------------------------------------------------------------------------------------------------------


def _prepared_cold_start(crowd: Crowd, life: int) -> float:
    chains = [bare_writes.rewrite(bare_writes.first_tables(crowd, pod)) for pod in range(crowd.count)]
    with bare_writes.kept_sockets(crowd, life) as sockets:
        seconds = bare_writes.send_all(list(map(bare_writes.packed_sets, sockets)))
        return seconds + timed(lambda: asyncio.run(at_a_time(crowd, chains, life)))[1]


def _packed_cold_start(crowd: Crowd, life: int) -> float:
    with bare_writes.kept_sockets(crowd, life) as sockets:
        return bare_writes.send_all(
            [bare_writes.packed_first_write(crowd, pod, netlink) for pod, netlink in enumerate(sockets)]
        )


def _packed_rounds(crowd: Crowd, rounds: range) -> float:
    with bare_writes.kept_sockets(crowd, life=0) as sockets:
        return sum(
            bare_writes.send_all(list(map(bare_writes.packed_rewrite, sockets, _next_tables(crowd, number))))
            for number in rounds
        )


def _next_tables(crowd: Crowd, number: int) -> list[bare_writes.Tables]:
    return [bare_writes.next_tables(crowd, pod, number) for pod in range(crowd.count)]


# --- ours ------------------------------------------------------------------------------------------------------------


async def _until_realized(crowd: Crowd, life: int, chains: ChainBackendName, sets: BackendName = "netlink") -> float:
    """Seconds from the start of a C-VEN that is told everything at once."""
    with settled_memory():
        began = time.perf_counter()
        async with _enforcing(crowd, life, COLD_RULES, chains, sets) as (cven, _):
            await cven.realized(1)
            await until("no Pod to be left", lambda: not cven.exceptions, poll_seconds=0.001)
            return time.perf_counter() - began


async def _rounds_per_second(
    crowd: Crowd, rounds: int, chains: ChainBackendName, sets: BackendName = "netlink"
) -> float:
    async with _enforcing(crowd, 0, PATCHED_RULES, chains, sets) as (cven, told):
        await cven.realized(1)
        await until("no Pod to be left", lambda: not cven.exceptions)
        updates = [_update(crowd, PATCHED_RULES, number) for number in range(1, rounds + 1)]
        with settled_memory():
            before, began = cven.writes, time.perf_counter()
            for update in updates:
                told.tell(update)
                before += crowd.count
                await until("every Pod to be written", lambda wanted=before: cven.writes >= wanted, poll_seconds=0.001)
            seconds = time.perf_counter() - began
        await until("no Pod to be left", lambda: not cven.exceptions)  # a slow round leaves Pods named as late
    return crowd.count * rounds / seconds


@asynccontextmanager
async def _enforcing(
    crowd: Crowd, life: int, rules: int, chains: ChainBackendName, sets: BackendName
) -> AsyncIterator[tuple[Cven, Told]]:
    told = Told(_update(crowd, rules, 0))
    runtime = GivenRuntime([crowd.sandbox(number, life) for number in range(crowd.count)])
    async with running_on(crowd.node, told, runtime, chain_backend=chains, set_backend=sets) as cven:
        yield cven, told


def _update(crowd: Crowd, rules: int, number: int) -> NodeUpdate:
    """Everything, in round *number*; later ones are changes of the programs only."""
    return NodeUpdate(
        programs=tuple(bare_writes.program(crowd, pod, number, rules) for pod in range(crowd.count)),
        sets=() if number else tuple(SetChange(id=identity, added=found) for identity, found in members().items()),
        mark=Mark(revision=number + 1),
        complete=not number,
    )


# --- namespaces ------------------------------------------------------------------------------------------------------


@contextmanager
def _crowd(scale: float) -> Iterator[Crowd]:
    if found := obstacles():
        raise Unavailable("; ".join(f"{each.what}; {each.remedy}" for each in found))
    with made_crowd(at_least(PODS * scale, 4)) as crowd:
        yield crowd


def _lives(crowd: Crowd) -> Iterator[int]:
    """Each with namespaces in which there is nothing yet, once those before are gone: that takes the kernel time."""
    life = 0
    while True:
        yield life
        crowd.remove(range(crowd.count), life)
        eventually("the namespaces to be gone", lambda: not crowd.wires(), GONE_SECONDS)
        life += 1
        crowd.make(range(crowd.count), life)
