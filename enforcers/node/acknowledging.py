"""Saying what is realized, once the connections that a change concerns were judged: beside the rounds of writing.

A connection table takes milliseconds to walk, and no member waits for that. A connection whose entry was not confirmed
at the first audit is by the second, or never.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from enforcers.node.local_node import TROUBLE, LocalNode
from enforcers.pods.pod import PodEnforcement
from schemas.policy import Mark
from streams.batches import Batches

SECOND_AUDIT_SECONDS: Final = 0.15
LATE_SECONDS: Final = 1.0
LATE: Final = "its connections are still being judged"
AGAIN_SECONDS: Final = 1.0
"""Until a Pod whose connections could not be judged is written to anew."""
ACKNOWLEDGE_SECONDS: Final = 0.1
"""At least this long between two acknowledgements: each walks the connection table once per Pod that was tightened."""


class Acknowledging:
    """Judges connections and confirms revisions on *node*."""

    def __init__(self, node: LocalNode) -> None:
        self.revision = -1
        """Realized; -1: none yet."""
        self.latencies: list[float] = []
        """Milliseconds from an event's observation to the kernel; whoever reports takes them away."""
        self._node = node
        self._tasks: asyncio.TaskGroup | None = None
        self._judging: dict[PodEnforcement, asyncio.Task[None]] = {}
        self._reached = asyncio.Condition()
        self._written: Batches[list[Mark]] = Batches(limit=1 << 20)  # of each round that ended
        self._again: Batches[str] = Batches(limit=1 << 20)

    async def written(self, marks: list[Mark]) -> None:
        """A round of writing has ended that covers *marks*."""
        if marks or (self._node.settled and self._due()):
            await self._written.put([marks])

    async def realized(self, revision: int) -> None:
        """Return once *revision* is realized on this node, but for its exceptions."""
        async with self._reached:
            await self._reached.wait_for(lambda: self.revision >= revision)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._acknowledge_written(), name="acknowledge")
            tasks.create_task(self._audit_again(), name="audit again")

    async def _acknowledge_written(self) -> None:
        loop = asyncio.get_running_loop()
        async for rounds in self._written:
            began = loop.time()
            await self._acknowledge([mark for marks in rounds for mark in marks])
            self._node.changed.set()
            await asyncio.sleep(max(0.0, began + ACKNOWLEDGE_SECONDS - loop.time()))

    async def _acknowledge(self, marks: list[Mark]) -> None:
        """The state is complete: judge the connections of what changed, then say that the newest mark is realized."""
        due = self._due()
        await self._audit(due)
        if due:
            await self._again.put(due)
        if not marks:  # a Pod that came late, or was mended
            return
        self.revision = marks[-1].revision
        arrived = datetime.now(UTC)
        told = [mark.time for mark in marks if mark.changed and mark.time]
        for seconds in ((arrived - datetime.fromisoformat(time)).total_seconds() for time in told):
            self.latencies.append(seconds * 1000)
            self._node.metrics.latency_seconds.observe(seconds)
        async with self._reached:
            self._reached.notify_all()

    def _due(self) -> list[str]:
        """Whose connections have to be judged. What is failing waits until it does not."""
        node = self._node
        return [uid for uid, pod in node.pods.items() if pod.audit_due and uid not in node.failing]

    async def _audit_again(self) -> None:
        async for uids in self._again:
            await asyncio.sleep(SECOND_AUDIT_SECONDS)
            await self._audit(set(uids))

    async def _audit(self, uids: Iterable[str]) -> None:
        """Judge the connections of Pods, each by itself, until nobody has ended for a while.

        Who takes longer, since he has a million or somebody else is at work there, goes on, named as an exception.
        """
        node, begun = self._node, {uid: self._begin(uid) for uid in uids if uid in self._node.pods}
        waiting = set(begun.values())
        while waiting:
            ended, waiting = await asyncio.wait(waiting, timeout=LATE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                break
        for uid, task in begun.items():
            if not task.done() and uid in node.pods:
                node.failing.setdefault(uid, LATE)  # whatever else is wrong does not end with the judgement

    def _begin(self, uid: str) -> asyncio.Task[None]:
        assert self._tasks is not None, "it runs"
        pod = self._node.pods[uid]
        if pod not in self._judging:
            self._judging[pod] = self._tasks.create_task(self._judge(uid, pod), name=f"judge {pod.sandbox.name}")
        return self._judging[pod]

    async def _judge(self, uid: str, pod: PodEnforcement) -> None:
        node = self._node
        try:
            await pod.audit()
        except TROUBLE as error:
            node.fail(uid, pod, error)
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, node.mark_dirty, [uid])
        finally:
            del self._judging[pod]
            if node.failing.get(uid) == LATE:
                del node.failing[uid]
                node.changed.set()
