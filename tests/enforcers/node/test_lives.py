"""Many Pods come, are programmed, change, and go in every way they can; afterwards nothing of them is left.

A few hundred lives in every run; ``LIVES=10000`` for as many as a node sees in weeks (some minutes).
"""

import asyncio
import gc
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from enforcers.pods.pod import PodEnforcement
from enforcers.runtimes.given_runtime import GivenRuntime
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


class Lives:
    """Pods of *crowd*, one generation after the other: all of one are replaced by those of the next."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.runtime = GivenRuntime()
        self.told = Told()
        self.revision = 0
        self.standing: int | None = None
        """The generation whose namespaces are there, but for those that were cut short."""
        self.slots = range(crowd.count)
        self.cut_short, self.gone, self.replaced, self.released = (self.slots[start::4] for start in range(4))

    def tell(self, *, first_port: int, extra: int = 0) -> None:
        """Programs and sets for all, complete."""
        self.revision += 1
        changes = (SetChange(id=identity, added=found) for identity, found in members(50 + extra).items())
        programs = tuple(self.crowd.program(slot, first_port=first_port) for slot in self.slots)
        mark = Mark(revision=self.revision)
        self.told.tell(NodeUpdate(programs=programs, sets=tuple(changes), mark=mark, complete=True))

    def tell_gone(self, slots: range) -> None:
        self.revision += 1
        gone = tuple(f"uid-{slot}" for slot in slots)
        self.told.tell(NodeUpdate(gone=gone, mark=Mark(revision=self.revision)))

    async def live(self, cven, generation: int) -> None:
        crowd = self.crowd
        await asyncio.to_thread(crowd.make, self.slots, generation)
        self.runtime.tell(crowd.sandbox(slot, generation) for slot in self.slots)  # replaces the generation before
        self.tell(first_port=1000 + generation)
        await until("the first to be begun", lambda: any(pod._turn.locked() for pod in cven.node.pods.values()))
        await asyncio.to_thread(crowd.remove, self.cut_short, generation)  # while they are programmed, most of them
        here = [slot for slot in self.slots if slot not in self.gone]
        self.runtime.tell(crowd.sandbox(slot, generation) for slot in here)
        await self.all_enforced(cven, [slot for slot in here if slot not in self.cut_short])

        await self.remove_standing()
        self.standing = generation
        self.tell(first_port=5000 + generation, extra=generation % 3)
        await self.all_enforced(cven, [slot for slot in here if slot not in self.cut_short])
        self.tell_gone(self.released)
        await until(
            "the released ones to hold nothing of ours",
            lambda: all(cven.state_of(f"uid-{slot}") is PodState.OPEN for slot in self.released),
            within_seconds=WITHIN_SECONDS,
        )
        assert "ew-" not in crowd.command(crowd.path(self.released[0], generation), "ipset", "list", "-n")

    async def all_enforced(self, cven, slots: list[int]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            await cven.realized(self.revision)
        await until(
            "all that are whole to be enforced",
            lambda: all(cven.state_of(f"uid-{slot}") is PodState.ENFORCED for slot in slots),
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


def held(crowd: Crowd) -> dict[str, object]:
    """All that a Pod could leave behind."""
    gc.collect()
    return {
        "file descriptors": Counter(_kind(each) for each in Path("/proc/self/fd").iterdir()),
        "threads": sum(not thread.name.startswith(POOLS) for thread in threading.enumerate()),
        "children": sum(len(each.read_text().split()) for each in Path("/proc/self/task").glob("*/children")),
        "tasks": Counter(task.get_name().split()[0] for task in asyncio.all_tasks()),
        "namespaces": crowd.wires(),
        "enforcements": sum(isinstance(each, PodEnforcement) for each in gc.get_objects()),
    }


def _kind(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink()).split(":")[0]
    except OSError:  # the listing's own
        return "gone"


@pytest.mark.timeout(60 + LIVES * SECONDS_PER_LIFE)
async def test_pods_that_came_and_went_in_every_way_leave_nothing_behind(capable):
    with made_crowd(SLOTS, empty=True) as crowd:
        lives = Lives(crowd)
        async with running_on(crowd.node, lives.told, lives.runtime, disk_after_seconds=0.0) as cven:
            await lives.live(cven, 0)
            await lives.end()
            await until("the first generation to be let go of", lambda: crowd.wires() == 0)
            before = held(crowd)

            last = max(2, LIVES // SLOTS)
            for generation in range(1, last + 1):
                await lives.live(cven, generation)
            await lives.end()

            def as_before() -> bool:
                assert held(crowd) == before
                return True

            await until("all to be let go of", as_before, within_seconds=10, ignoring=(AssertionError,))
