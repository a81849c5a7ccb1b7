"""Rows about chains: a node's Pods programmed from nothing, found as they should be, and rewritten again and again.

ours       a C-VEN, from its start, or from the change of a policy, until every Pod's rules are in the kernel
limit      the tools alone, with their input prepared, many at a time: nothing is decided and nothing read
otherwise  the same, by `ip netns exec`, one after the other

Every Pod has a program of its own about 5 sets: at a cold start 50 rules in each family beside those that every
isolated Pod has; where it is rewritten, 10.
"""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from compose.lab.capability import obstacles
from enforcers.core.difference import advance, compare, desire, realized
from enforcers.core.layout import FAMILIES, NODE_SET, TABLE, Family, Interface, set_name
from enforcers.core.node_state import TrackedSet
from enforcers.core.observation import NOTHING
from enforcers.core.set_rendering import FAMILY_NAMES
from enforcers.cven import Cven
from enforcers.kernel import namespaces
from enforcers.kernel.rules.chain_backends import PREFIXES, ChainBackendName
from enforcers.runtimes.given_runtime import GivenRuntime
from schemas import addresses
from schemas.policy import Mark, NodeUpdate, SetChange
from tests.bench.measuring import Figure, Unavailable, at_least, settled_memory, timed
from tests.components.waiting import until
from tests.enforcers.cven_world import Told, running_on
from tests.enforcers.node.crowd import SETS, Crowd, made_crowd, members

PODS: Final = 110
"""The most that a node has by default."""
ROUNDS: Final = 10
"""Each rewrites every Pod."""
AT_A_TIME: Final = 16
"""Pods; more does not make the tools faster on two cores."""
ETH0: Final = Interface("eth0")
FIRST_PORT: Final = 1000
COLD_RULES: Final = 50
PATCHED_RULES: Final = 10
COLD_GOALS_SECONDS: Final[Mapping[ChainBackendName, float]] = {"restore": 0.5, "netlink": 0.25}
PATCHES_GOALS: Final[Mapping[ChainBackendName, int]] = {"restore": 300, "netlink": 2000}
SUFFIXES: Final[Mapping[ChainBackendName, str]] = {"restore": "", "netlink": "-netlink"}
"""Of a row, by how ours writes chains."""
TRACKED: Final = {NODE_SET: TrackedSet(), **{identity: TrackedSet(found) for identity, found in members().items()}}

Step = Sequence[tuple[Sequence[str], str]]
"""Commands with their input; those of one step may run at a time."""


def cold_start(scale: float) -> list[Figure]:
    """From nothing, and from what another C-VEN left. Ratio: times faster than otherwise."""
    figures = []
    with _crowd(scale) as crowd:
        writing = [_first_write(crowd, number) for number in range(crowd.count)]
        _, limit = timed(lambda: asyncio.run(_at_a_time(crowd, writing, life=0)))
        _renew(crowd, life=1)
        _, other = timed(lambda: _in_turn(crowd, writing, life=1))
        for life, chains in enumerate(SUFFIXES, start=2):
            _renew(crowd, life)
            ours = asyncio.run(_until_realized(crowd, life, chains))
            figures.append(_cold(f"node-cold-start{SUFFIXES[chains]}", ours, limit, other, COLD_GOALS_SECONDS[chains]))
        standing = asyncio.run(_until_realized(crowd, life, chains))
        reading = [_READ] * crowd.count
        _, limit = timed(lambda: asyncio.run(_at_a_time(crowd, reading, life)))
        _, other = timed(lambda: _in_turn(crowd, reading, life))
    return [*figures, _cold("node-cold-start-standing", standing, limit, other, COLD_GOALS_SECONDS["restore"])]


def patches(scale: float) -> list[Figure]:
    """Both families of a chain whose ports changed, Pod after Pod. Ratio: times more than otherwise."""
    rounds = at_least(ROUNDS * scale, 2)
    with _crowd(scale) as crowd:
        ours = {chains: asyncio.run(_rounds_per_second(crowd, rounds, chains)) for chains in SUFFIXES}
        limit = 0.0
        for number in range(rounds):
            writing = [_rewrite(crowd, pod, rounds + number) for pod in range(crowd.count)]
            limit += timed(lambda given=writing: asyncio.run(_at_a_time(crowd, given, life=0)))[1]
        writing = [_rewrite(crowd, pod, 2 * rounds) for pod in range(crowd.count)]
        other = crowd.count / timed(lambda: _in_turn(crowd, writing, life=0))[1]
    return [
        Figure(
            row=f"pod-patches{SUFFIXES[chains]}",
            unit="patches/s",
            ours=found,
            limit=crowd.count * rounds / limit,
            alternative=other,
            alternative_name="ip netns exec, one after the other",
            ratio=found / other,
            goal=f"≥ {PATCHES_GOALS[chains]:,} patches/s",
            holds=found >= PATCHES_GOALS[chains],
        )
        for chains, found in ours.items()
    ]


def _cold(row: str, ours: float, limit: float, other: float, goal_seconds: float) -> Figure:
    return Figure(
        row=row,
        unit="s",
        ours=ours,
        limit=limit,
        alternative=other,
        alternative_name="ip netns exec, one after the other",
        ratio=other / ours,
        goal=f"≤ {goal_seconds:g} s",
        holds=ours <= goal_seconds,
    )


# --- ours ------------------------------------------------------------------------------------------------------------


async def _until_realized(crowd: Crowd, life: int, chains: ChainBackendName) -> float:
    """Seconds from the start of a C-VEN that is told everything at once."""
    with settled_memory():
        began = time.perf_counter()
        async with _enforcing(crowd, life, COLD_RULES, chains) as (cven, _):
            await cven.realized(1)
            await until("no Pod to be left", lambda: not cven.exceptions, poll_seconds=0.001)
            return time.perf_counter() - began


async def _rounds_per_second(crowd: Crowd, rounds: int, chains: ChainBackendName) -> float:
    async with _enforcing(crowd, 0, PATCHED_RULES, chains) as (cven, told):
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
        assert not cven.exceptions, cven.exceptions
    return crowd.count * rounds / seconds


@asynccontextmanager
async def _enforcing(crowd: Crowd, life: int, rules: int, chains: ChainBackendName) -> AsyncIterator[tuple[Cven, Told]]:
    told = Told(_update(crowd, rules, 0))
    runtime = GivenRuntime([crowd.sandbox(number, life) for number in range(crowd.count)])
    async with running_on(crowd.node, told, runtime, chain_backend=chains) as cven:
        yield cven, told


def _update(crowd: Crowd, rules: int, number: int) -> NodeUpdate:
    """Everything, in round *number*; later ones are changes of the programs only."""
    return NodeUpdate(
        programs=tuple(crowd.program(pod, first_port=_port(number), rules=rules) for pod in range(crowd.count)),
        sets=() if number else tuple(SetChange(id=identity, added=found) for identity, found in members().items()),
        mark=Mark(revision=number + 1),
        complete=not number,
    )


def _port(number: int) -> int:
    return FIRST_PORT * (number + 1)


# --- the tools -------------------------------------------------------------------------------------------------------


async def _at_a_time(crowd: Crowd, work: Iterable[Sequence[Step]], life: int) -> None:
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(path: Path, steps: Sequence[Step]) -> None:
        async with turns:
            for step in steps:
                await asyncio.gather(*(namespaces.run(path, command, text) for command, text in step))

    await asyncio.gather(*(one(crowd.path(number, life), steps) for number, steps in enumerate(work)))


def _in_turn(crowd: Crowd, work: Iterable[Sequence[Step]], life: int) -> None:
    for number, steps in enumerate(work):
        entering = ["ip", "netns", "exec", crowd.path(number, life).name]
        for step in steps:
            for command, text in step:
                subprocess.run([*entering, *command], input=text.encode(), stdout=subprocess.DEVNULL, check=True)


_READ: Final[Sequence[Step]] = [
    [(["ipset", "save"], ""), *(([f"{PREFIXES[family]}-save", "-t", TABLE], "") for family in FAMILIES)]
]


def _first_write(crowd: Crowd, number: int) -> Sequence[Step]:
    lines = []
    for identity in (NODE_SET, *SETS):
        for family in FAMILIES:
            lines.append(f"create {set_name(identity, family)} hash:ip family {FAMILY_NAMES[family]}")
            lines += [
                f"add {set_name(identity, family)} {addresses.unpack(member)}"
                for member in TRACKED[identity].members
                if (len(member) == 4) == (family == 4)
            ]
    wanted = desire(crowd.program(number, first_port=_port(0), rules=COLD_RULES), ETH0)
    tables = compare(wanted, NOTHING, TRACKED).tables
    return [[(["ipset", "restore"], "\n".join([*lines, ""]))], _restores(tables)]


def _rewrite(crowd: Crowd, number: int, round_number: int) -> Sequence[Step]:
    before, after = (
        desire(crowd.program(number, first_port=_port(each), rules=PATCHED_RULES), ETH0)
        for each in (round_number, round_number + 1)
    )
    return [_restores(advance(after, realized(before, TRACKED), TRACKED).tables)]


def _restores(tables: Mapping[Family, str]) -> Step:
    return [([f"{PREFIXES[family]}-restore", "--noflush"], text) for family, text in tables.items()]


# --- namespaces ------------------------------------------------------------------------------------------------------


@contextmanager
def _crowd(scale: float) -> Iterator[Crowd]:
    if found := obstacles():
        raise Unavailable("; ".join(f"{each.what}; {each.remedy}" for each in found))
    with made_crowd(at_least(PODS * scale, 4)) as crowd:
        yield crowd


def _renew(crowd: Crowd, life: int) -> None:
    """Namespaces in which there is nothing yet."""
    crowd.remove(range(crowd.count), life - 1)
    crowd.make(range(crowd.count), life)
