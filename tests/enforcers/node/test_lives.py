"""Many Pods come, are programmed, change, and go in every way they can; afterwards nothing of them is left.

A few hundred lives in every run; ``LIVES=10000`` for as many as a node sees in weeks (some minutes).
"""

import asyncio
import gc
import os
import resource
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from enforcers.cven import Cven
from enforcers.pods.pod import PodEnforcement
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.status import PodState
from tests.components.waiting import until
from tests.enforcers.cven_world import Told, running_on
from tests.enforcers.node.crowd import Crowd, made_crowd, members

pytestmark = pytest.mark.netns

SLOTS = 20
LIVES = int(os.environ.get("LIVES", "240"))
SECONDS_PER_LIFE = 0.5
"""Ten times what it takes on an idle machine."""
WITHIN_SECONDS = 30.0
POOLS = ("asyncio", "run-commands", "inside-namespaces", "long-tables")
"""Threads that stay, up to a limit."""
MOST_GROWN = 40 << 20
"""Bytes of memory since the first generation: it grows by 13 MB until everything has run often enough."""


class Lives:
    """Pods of *crowd*, one generation after the other: all of one are replaced by those of the next.

    These are other Pods, but for every other generation of those *replaced*: the same in another sandbox.
    """

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.runtime = GivenRuntime()
        self.told = Told()
        self.revision = 0
        self.standing: int | None = None
        """The generation whose namespaces are there, but for those that were cut short."""
        self.slots = range(crowd.count)
        self.cut_short, self.gone, self.replaced, self.released = (self.slots[start::4] for start in range(4))

    def uid(self, slot: int, generation: int) -> str:
        return f"uid-{slot}-{generation // 2 * 2 if slot in self.replaced else generation}"

    def sandboxes(self, slots: Iterable[int], generation: int) -> list[Sandbox]:
        return [self.crowd.sandbox(slot, generation, uid=self.uid(slot, generation)) for slot in slots]

    def tell(self, generation: int, *, first_port: int, extra: int = 0) -> None:
        """Programs and sets for all, complete."""
        self.revision += 1
        changes = (SetChange(id=identity, added=found) for identity, found in members(50 + extra).items())
        programs = tuple(
            self.crowd.program(slot, uid=self.uid(slot, generation), first_port=first_port) for slot in self.slots
        )
        mark = Mark(revision=self.revision)
        self.told.tell(NodeUpdate(programs=programs, sets=tuple(changes), mark=mark, complete=True))

    def tell_open(self, slots: Iterable[int], generation: int) -> None:
        """Nothing isolates these any more."""
        self.revision += 1
        isolated = (self.crowd.program(slot, uid=self.uid(slot, generation)) for slot in slots)
        programs = tuple(msgspec.structs.replace(each, ingress=None, egress=None) for each in isolated)
        self.told.tell(NodeUpdate(programs=programs, mark=Mark(revision=self.revision)))

    async def live(self, cven, generation: int) -> None:
        crowd = self.crowd
        await asyncio.to_thread(crowd.make, self.slots, generation)
        self.runtime.tell(self.sandboxes(self.slots, generation))  # replaces the generation before
        self.tell(generation, first_port=1000 + generation)
        await until("the first to be begun", lambda: any(pod._turn.locked() for pod in cven.node.pods.values()))
        await asyncio.to_thread(crowd.remove, self.cut_short, generation)  # while they are programmed, most of them
        here = [slot for slot in self.slots if slot not in self.gone]
        self.runtime.tell(self.sandboxes(here, generation))
        whole = [self.uid(slot, generation) for slot in here if slot not in self.cut_short]
        await self.all_enforced(cven, whole)

        await self.remove_standing()
        self.standing = generation
        self.tell(generation, first_port=5000 + generation, extra=generation % 3)
        await self.all_enforced(cven, whole)
        self.tell_open(self.released, generation)
        released = [self.uid(slot, generation) for slot in self.released]
        await until(
            "the released ones to hold nothing of ours",
            lambda: all(cven.state_of(uid) is PodState.OPEN for uid in released),
            within_seconds=WITHIN_SECONDS,
        )
        assert "ew-" not in crowd.command(crowd.path(self.released[0], generation), "ipset", "list", "-n")

    async def all_enforced(self, cven, uids: list[str]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            await cven.realized(self.revision)
        await until(
            "all that are whole to be enforced",
            lambda: all(cven.state_of(uid) is PodState.ENFORCED for uid in uids),
            within_seconds=WITHIN_SECONDS,
        )

    async def end(self) -> None:
        """The last generation goes, and all of its namespaces."""
        self.runtime.tell(())
        await self.remove_standing()

    async def remove_standing(self) -> None:
        if self.standing is not None:
            left = [*self.gone, *self.replaced, *self.released]
            await asyncio.to_thread(self.crowd.remove, left, self.standing)
        self.standing = None


def held(crowd: Crowd, cven: Cven) -> dict[str, object]:
    """All that a Pod could leave behind."""
    gc.collect()
    return {
        "file descriptors": Counter(_kind(each) for each in Path("/proc/self/fd").iterdir()),
        "threads": Counter(each.name for each in threading.enumerate() if not each.name.startswith(POOLS)),
        "children": sum(len(each.read_text().split()) for each in Path("/proc/self/task").glob("*/children")),
        "tasks": Counter(task.get_name().split()[0] for task in asyncio.all_tasks()),
        "namespaces": crowd.wires(),
        "enforcements": sum(isinstance(each, PodEnforcement) for each in gc.get_objects()),
        "kept": kept(cven),
    }


def kept(cven: Cven) -> dict[str, int]:
    """How much is in everything that the parts of a C-VEN keep by Pod, by set or by anything else."""
    node = cven.node
    parts = (node, node.policy, node.tamperings, cven.acknowledging, cven._programming, cven._drifting)
    return {
        f"{type(part).__name__}.{name}": _size(each)
        for part in parts
        for name, each in vars(part).items()
        if isinstance(each, dict | set)
    }


def _size(kept: dict[Any, Any] | set[Any]) -> int:
    """With what is in sets that are in it."""
    inner = kept.values() if isinstance(kept, dict) else ()
    return len(kept) + sum(len(each) for each in inner if isinstance(each, set))


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _kind(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink()).split(":")[0]
    except OSError:  # the listing's own
        return "gone"


@pytest.mark.timeout(60 + LIVES * SECONDS_PER_LIFE)
async def test_pods_that_came_and_went_in_every_way_leave_nothing_behind(capable, capsys):
    with made_crowd(SLOTS, empty=True) as crowd:
        lives = Lives(crowd)
        async with running_on(crowd.node, lives.told, lives.runtime, disk_after_seconds=0.0) as cven:
            await lives.live(cven, 0)
            await lives.end()
            await until("the first generation to be let go of", lambda: crowd.wires() == 0)
            await until("the C-VEN to rest", lambda: not cven.node._dirty and not cven._drifting._looking)
            before, memory_before = held(crowd, cven), resident()

            last = max(2, LIVES // SLOTS)
            for generation in range(1, last + 1):
                await lives.live(cven, generation)
            await lives.end()

            def as_before() -> bool:
                assert held(crowd, cven) == before
                return True

            await until("all to be let go of", as_before, within_seconds=10, ignoring=(AssertionError,))
            after, memory_after = held(crowd, cven), resident()

    with capsys.disabled():
        print(f"\nafter {SLOTS} Pods: {told_of(before, memory_before)}")
        print(f"after {SLOTS * (1 + last)} Pods: {told_of(after, memory_after)}")
    assert memory_after - memory_before < MOST_GROWN


def told_of(found: dict[str, object], memory: int) -> str:
    counts = (f"{what}: {dict(each) if isinstance(each, dict) else each}" for what, each in found.items())
    return "; ".join([*counts, f"{memory >> 20} MB"])
