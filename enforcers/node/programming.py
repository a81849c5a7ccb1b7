"""Writing to the Pods of a node: a round is whatever is dirty by then, Pods in parallel.

    dirty Pods ─▶ round ─▶ written ──▶ acknowledging
        ▲           │
        └── retry ◀─┴─▶ late: goes on by itself

A round begins as soon as something is dirty, also while others are under way: hundreds of new Pods keep none of their
neighbours waiting. A mark that came before a round began is handed on when the round ends, and in order: every Pod it
concerns was dirty, or is named as an exception. Nothing but what was released by hand is written before the node's
complete state is known.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from enforcers.node.local_node import TROUBLE, LocalNode
from enforcers.pods.pod import PodEnforcement
from schemas.policy import Mark
from schemas.status import PodState
from streams.backoff import Backoff

LATE_SECONDS: Final = 1.0
"""A Pod that takes longer to program is waited for by nobody."""
LATE: Final = "still being programmed"
GIVEN_UP_SECONDS: Final = 30.0
"""A Pod that takes longer still is begun anew."""

Written = Callable[[list[Mark]], Awaitable[None]]
"""Told after each round: the marks it covers."""


class Programming:
    """Writes what is dirty on *node*; tells *written* after each round."""

    def __init__(self, node: LocalNode, written: Written) -> None:
        self._node = node
        self._written = written
        self._turns = asyncio.Semaphore(node.settings.parallel)
        self._newest: dict[PodEnforcement, asyncio.Task[None]] = {}
        self._waiting: dict[PodEnforcement, asyncio.Task[None]] = {}  # have not asked yet what the Pod should hold
        self._backoff = Backoff(first_seconds=0.1, limit_seconds=10.0)
        self._retry_at = 0.0  # loop time, where anything is failing
        self._since = time.time()  # sandboxes from before were not ours to meet

    async def run(self, stop: asyncio.Event) -> None:
        """Until *stop* is set and all rounds have ended; setting ``node.work`` makes it look."""
        node, loop = self._node, asyncio.get_running_loop()
        before: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                await self._wait_for_work()
                node.work.clear()
                retry = bool(node.failing) and loop.time() >= self._retry_at
                if retry:
                    self._retry_at = math.inf  # until it is known what came of it
                dirty, marks = node.take_work(again=retry)
                begun = {uid: self._begin(tasks, uid, node.pods[uid]) for uid in sorted(dirty & node.pods.keys())}
                before = tasks.create_task(self._end(begun, marks, before), name="end a round")

    async def _wait_for_work(self) -> None:
        """Until something is dirty, or it is time to try again what failed."""
        try:
            async with asyncio.timeout_at(self._retry_at if self._node.failing else None):
                await self._node.work.wait()
        except TimeoutError:
            pass

    def _begin(self, tasks: asyncio.TaskGroup, uid: str, pod: PodEnforcement) -> asyncio.Task[None]:
        """One is under way for a Pod at most, and one waits that will do all that the Pod is told meanwhile."""
        if pod not in self._waiting:
            task = tasks.create_task(self._program(uid, pod, self._newest.get(pod)), name=f"program {pod.sandbox.name}")
            self._waiting[pod] = self._newest[pod] = task
        return self._waiting[pod]

    async def _program(self, uid: str, pod: PodEnforcement, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            # Members cost microseconds: nobody waits with them until others have their rules.
            async with nullcontext() if pod.holds_rules_of(self._node.program_of(uid)) else self._turn():
                self._waiting.pop(pod, None)
                if self._node.may_write(uid):
                    await self._realize(uid, pod)
                else:  # paused while it waited for its turn: dirty until it may be written to
                    self._node.mark_dirty([uid])
        finally:
            if self._newest.get(pod) is asyncio.current_task():
                del self._newest[pod]
                self._waiting.pop(pod, None)
            self._node.changed.set()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of so many. Who is late gives it to the next, and goes on beside: Pods can make their own tables slow."""
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._turns.release()

        await self._turns.acquire()
        late = asyncio.get_running_loop().call_later(LATE_SECONDS, give_back)
        try:
            yield
        finally:
            late.cancel()
            give_back()

    async def _end(
        self, begun: Mapping[str, asyncio.Task[None]], marks: list[Mark], before: asyncio.Task[None] | None
    ) -> None:
        """Wait for a round; who is late goes on by himself, named as an exception."""
        node, loop = self._node, asyncio.get_running_loop()
        if begun:
            await asyncio.wait(begun.values(), timeout=LATE_SECONDS)
        if before is not None:
            await asyncio.wait([before])
        for uid, task in begun.items():
            if not task.done() and uid in node.pods:
                node.failing[uid] = LATE
        if node.known and not node.passive:
            await self._written(marks)
        if not node.failing:
            self._backoff.reset()
            self._retry_at = 0.0
        elif not loop.time() < self._retry_at < math.inf:
            self._retry_at = loop.time() + self._backoff.delay()
            node.work.set()  # who waits for work does not know yet until when
        node.changed.set()

    async def _realize(self, uid: str, pod: PodEnforcement) -> None:
        node = self._node
        began, tampered = time.perf_counter(), pod.tampered
        untouched = pod.writes == 0 and pod.state is not PodState.OPEN
        try:
            async with asyncio.timeout(GIVEN_UP_SECONDS):
                program = node.program_of(uid)
                patch = await pod.realize(program, node.sets_of(program), sweep=node.may_sweep(uid))
        except TimeoutError:
            node.fail(uid, pod, TimeoutError(f"not programmed within {GIVEN_UP_SECONDS:g} s"))
        except TROUBLE as error:
            node.fail(uid, pod, error)
        else:
            if patch:
                healing = tampered and not pod.tampered
                node.note(pod.sandbox, patch, time.perf_counter() - began, healing=healing)
                if untouched and pod.sandbox.created_at > self._since:
                    node.metrics.enforced_after_seconds.observe(time.time() - pod.sandbox.created_at)
            # Else it does not hold yet what it was told since.
            if node.pods.get(uid) is pod and pod not in self._waiting:
                node.succeed(uid, pod)
