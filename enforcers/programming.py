"""Writing to the Pods of a node: a round at a time, whatever is dirty by then, Pods in parallel.

    dirty Pods ─▶ round ─▶ written ──▶ acknowledging
        ▲           │
        └── retry ◀─┴─▶ late: goes on by itself

A mark that came before a round began is handed on when the round ends: every Pod it concerns was dirty, or is named as
an exception. Nothing but what was released by hand is written before the node's complete state is known.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

from enforcers.local_node import TROUBLE, LocalNode
from enforcers.pod import PodEnforcement
from schemas.policy import Mark
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
        self._late: set[str] = set()  # being programmed since an earlier round
        self._missed: set[str] = set()  # of these, what is dirty again
        self._retry_at = 0.0  # loop time, where anything is failing

    async def run(self, stop: asyncio.Event) -> None:
        """Until *stop* is set and the round that was begun has ended; setting ``node.work`` makes it look."""
        node, loop = self._node, asyncio.get_running_loop()
        backoff = Backoff(first_seconds=0.1, limit_seconds=10.0)
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                await self._wait_for_work()
                node.work.clear()
                retry = bool(node.failing) and loop.time() >= self._retry_at
                dirty, marks = node.take_work(again=retry)
                await self._round(tasks, dirty)
                if node.known and not node.passive:
                    await self._written(marks)
                if not node.failing:
                    backoff.reset()
                    self._retry_at = 0.0
                elif retry or self._retry_at <= loop.time():
                    self._retry_at = loop.time() + backoff.delay()
                node.changed.set()

    async def _wait_for_work(self) -> None:
        """Until something is dirty, or it is time to try again what failed."""
        try:
            async with asyncio.timeout_at(self._retry_at if self._node.failing else None):
                await self._node.work.wait()
        except TimeoutError:
            pass

    async def _round(self, tasks: asyncio.TaskGroup, uids: Iterable[str]) -> None:
        """Program *uids*; one that is late goes on by itself, named as an exception, and its neighbours do not wait."""
        begun: dict[str, asyncio.Task[None]] = {}
        for uid in sorted(uids):
            if uid in self._late:
                self._missed.add(uid)
            elif pod := self._node.pods.get(uid):
                begun[uid] = tasks.create_task(self._realize(uid, pod), name=f"program {pod.sandbox.name}")
        if not begun:
            return
        _, late = await asyncio.wait(begun.values(), timeout=LATE_SECONDS)
        for uid, task in begun.items():
            if task in late:
                self._late.add(uid)
                self._node.failing[uid] = LATE
                task.add_done_callback(partial(self._caught_up, uid))

    def _caught_up(self, uid: str, _: asyncio.Task[None]) -> None:
        self._late.discard(uid)
        if uid in self._missed and uid in self._node.pods:  # what it was told meanwhile it does not hold yet
            self._node.failing[uid] = LATE
            self._node.mark_dirty([uid])
        self._missed.discard(uid)
        self._node.changed.set()

    async def _realize(self, uid: str, pod: PodEnforcement) -> None:
        node = self._node
        async with self._turns:
            began, tampered = time.perf_counter(), pod.tampered
            try:
                async with asyncio.timeout(GIVEN_UP_SECONDS):
                    program = node.program_of(uid)
                    patch = await pod.realize(program, node.sets_of(program))
            except TimeoutError:
                node.fail(uid, pod, TimeoutError(f"not programmed within {GIVEN_UP_SECONDS:g} s"))
            except TROUBLE as error:
                node.fail(uid, pod, error)
            else:
                if patch:
                    healing = tampered and not pod.tampered
                    node.note(pod.sandbox, patch, time.perf_counter() - began, healing=healing)
                node.succeed(uid, pod)
