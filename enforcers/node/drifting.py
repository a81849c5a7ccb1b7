"""Finding what others changed of ours, and having it put back.

    rule changes of every namespace ─▶ a Pod is suspected ─▶ look ─▶ differs ─▶ dirty, like any other Pod
    every few seconds, by turns ──────────────┘                └── as it was: rest, then look again if suspected again

That something changed, whoever did it, only says where to look: what stands there decides. A Pod whose own rules change
all the time is looked at less and less often, twice a second in the end; writing is never the answer to that.
Looking goes on while nothing may be written: what differs then is told at once, and stays dirty until that ends.
"""

import asyncio
from contextlib import aclosing
from typing import Final

import structlog

from enforcers.core.drift.suspicion import Suspicion, is_covered
from enforcers.kernel.namespace_ids import NamespaceIds
from enforcers.kernel.rules.rule_changes import Changes, hear_rule_changes
from enforcers.node.local_node import TROUBLE, LocalNode
from enforcers.node.tampering import tampering
from enforcers.pods.pod import PodEnforcement
from schemas.status import PodState

REST_SECONDS: Final = 0.02
LONGEST_REST_SECONDS: Final = 0.5
TOLD_SECONDS: Final = 0.002
DEAF: Final = "cannot hear who changes rules (NET_BROADCAST is missing): found only every {:g} s"

_log = structlog.get_logger("enforcers.node.drifting")


class Drifting:
    """Looks after the Pods of *node*."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node
        self._suspicions: dict[str, Suspicion] = {}
        self._looking: set[str] = set()
        self._waiting: set[str] = set()
        self._ids: NamespaceIds | None = None
        self._known: dict[str, tuple[PodEnforcement, int]] = {}  # uid → and the number of its namespace
        self._uids: dict[int, str] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled."""
        with NamespaceIds() as ids:
            async with asyncio.TaskGroup() as tasks:
                self._ids, self._tasks = ids, tasks
                self.attach()
                tasks.create_task(self._hear(), name="hear rule changes")
                tasks.create_task(self._go_round(), name="verify by turns")

    def attach(self) -> None:
        """Pods came or went: learn by which number the kernel calls their namespaces."""
        if self._ids is None:
            return
        pods = self._node.pods
        for uid in self._known.keys() - pods.keys():
            del self._known[uid]
        for uid, pod in pods.items():
            if uid in self._known and self._known[uid][0] is pod:
                continue
            try:
                number = self._ids.id_of(pod.sandbox.netns)
            except TROUBLE:  # whoever programs it says so
                continue
            self._known[uid] = pod, number
            self._suspect(uid).unheard = True  # before it had a number
        self._uids = {number: uid for uid, (_, number) in self._known.items()}

    async def _hear(self) -> None:
        try:
            async with aclosing(hear_rule_changes()) as heard:
                async for changes in heard:
                    self._take(changes)
        except PermissionError as error:
            self._node.problems["drift"] = DEAF.format(self._node.settings.verify_seconds)
            _log.warning("rule changes are not heard", reason=str(error))

    def _take(self, heard: Changes) -> None:
        unheard = heard.lost or not heard.changes  # too many at once, or before it listened
        for uid in self._known if unheard else ():
            self._suspect(uid).unheard = True
        for each in heard.changes:
            changed = self._uids.get(each.namespace, "")
            if changed and not is_covered(each.generation, self._known[changed][0].tables.read_back.generation):
                self._suspect(changed).changes.append(each.generation)

    def _suspect(self, uid: str) -> Suspicion:
        assert self._tasks is not None
        suspicion = self._suspicions.setdefault(uid, Suspicion(asyncio.get_running_loop().time()))
        if uid not in self._looking:
            self._looking.add(uid)
            self._tasks.create_task(self._look_after(uid), name=f"look after {uid}")
        return suspicion

    async def _go_round(self) -> None:
        seconds = self._node.settings.verify_seconds
        while True:
            uids = sorted(self._node.pods)
            for uid in uids:
                self._suspect(uid).with_sets = True
                await asyncio.sleep(seconds / len(uids))
            if not uids:
                await asyncio.sleep(seconds)

    async def _look_after(self, uid: str) -> None:
        """Until nothing is suspected of the Pod any more."""
        rest = REST_SECONDS
        try:
            while suspicion := self._suspicions.pop(uid, None):
                if (pod := self._node.pods.get(uid)) is None:
                    return
                of_use = await self._look(uid, pod, suspicion)
                if of_use is not None:
                    rest = REST_SECONDS if of_use else min(LONGEST_REST_SECONDS, 2 * rest)
                    await asyncio.sleep(rest)
        finally:
            self._looking.discard(uid)

    async def _look(self, uid: str, pod: PodEnforcement, suspicion: Suspicion) -> bool | None:
        """Whether there is something to put back now; ``None``: nobody else changed a rule, so it cost nothing."""
        node, now = self._node, asyncio.get_running_loop().time
        contest = node.tamperings.contest(uid)
        wait = contest.wait(now())
        try:
            seen = await pod.look(
                node.all_sets, with_sets=suspicion.with_sets, doubt=not wait, is_covered=suspicion.is_covered
            )
        except TROUBLE as error:
            node.fail(uid, pod, error)
            node.mark_dirty([uid])
            return None
        if node.pods.get(uid) is not pod:
            return None
        if seen is None:
            if uid not in node.failing:
                return None
            node.mark_dirty([uid])  # what was in its way may be gone
            return False
        if not seen.differences:
            if not pod.tampered:
                contest.rest(now())
            node.settle(uid, pod)
            return None if seen.right == seen.now_right else False
        if not (processes := suspicion.processes(seen.right)):  # rules change a moment before it is told
            await asyncio.sleep(TOLD_SECONDS)
            processes = self._suspicions[uid].processes(seen.right) if uid in self._suspicions else ()
            if node.pods.get(uid) is not pod:
                return None
        found = tampering(node.api_uid(uid), pod.sandbox, seen.differences, processes)
        node.tamperings.find(uid, found, suspicion.since)
        if not wait:
            contest.heal(now())
            node.mark_dirty([uid])
        elif uid not in self._waiting:
            self._waiting.add(uid)
            assert self._tasks is not None
            self._tasks.create_task(self._wait(uid, wait), name=f"wait with {uid}")
        if contest.contested:
            pod.state = PodState.CONTESTED
        node.changed.set()
        return not wait

    async def _wait(self, uid: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._waiting.discard(uid)
        self._suspect(uid).with_sets = True
