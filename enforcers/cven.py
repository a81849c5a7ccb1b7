"""The C-VEN: one node's enforcement, from its policy reader, its runtime and its own addresses to its Pods.

    PolicyReader ──▶ NodeState ─┐
    Runtime ───────▶ sandboxes ─┼─▶ dirty Pods ──▶ programming, Pods in parallel ──▶ realized revision ──▶ status
    addresses ─────▶ node set ──┘        ▲                       │   (audit of connections, beside the rounds)
                                         └──── retry, later ◀────┘

Receiving marks Pods dirty and costs next to nothing; one task writes, a round at a time, whatever is dirty by then. A
mark that came before a round began is realized when the round ends: every Pod it concerns was dirty, or is named as an
exception. Nothing is written before the node's complete state is known, from NATS or from the own snapshot; and the
word of a snapshot sweeps nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from enforcers.core import layout
from enforcers.core.difference import Sets
from enforcers.core.node_state import NodeState, TrackedSet
from enforcers.kernel import conntrack
from enforcers.kernel.addressing import watch_addresses
from enforcers.kernel.namespaces import HERE, CommandFailed, NoNamespace
from enforcers.kernel.sockets import NetlinkRefused
from enforcers.metrics import Metrics
from enforcers.pod import NoInterface, PodEnforcement
from enforcers.runtimes.runtime import Runtime
from enforcers.settings import EnforcerSettings
from enforcers.snapshot import Kept
from schemas import addresses
from schemas.policy import Mark, NodeUpdate
from schemas.programs import Direction, Mode, Program
from schemas.status import PodException, PodState
from streams.backoff import Backoff
from streams.batches import Batches
from streams.lifecycle import first_of
from streams.telemetry import Health

SECOND_AUDIT_SECONDS: Final = 0.15
ACKNOWLEDGE_SECONDS: Final = 0.1
"""At least this long between two acknowledgements: each walks the connection table once per Pod that was tightened."""
LATE_SECONDS: Final = 1.0
"""A Pod that takes longer to program is waited for by nobody."""
LATE: Final = "still being programmed"
GIVEN_UP_SECONDS: Final = 30.0
"""A Pod that takes longer still is begun anew."""

_log = structlog.get_logger("enforcers.cven")

TROUBLE: Final = (NoInterface, NoNamespace, CommandFailed, NetlinkRefused, KeyError, OSError)
"""What is one Pod's trouble. Anything else is a bug and ends the process; rules stand meanwhile."""

UNKNOWN: Final = Direction(isolating=("setting unknown_pods",))
"""For a Pod that the snapshot on disk does not know, if so set: nobody but its own node."""


class Cven:
    """Enforces on one node. Its sources are given, so that the lab and a cluster differ only in these."""

    def __init__(
        self,
        settings: EnforcerSettings,
        runtime: Runtime,
        *,
        node_netns: Path = HERE,
        kept: Kept | None = None,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self.settings = settings
        self.node = NodeState()
        """What should be."""
        self.pods: dict[str, PodEnforcement] = {}
        """By the runtime's uid: what is."""
        self.revision = -1
        """Realized; -1: none yet."""
        self.latencies: list[float] = []
        """Milliseconds from an event's observation to the kernel; whoever reports takes them away."""
        self.from_disk = False
        """Whether it enforces what it kept, since nobody told it anything newer."""
        self.changed = asyncio.Event()
        """Set when there is something to report."""
        self._acknowledged = asyncio.Condition()
        self._runtime = runtime
        self._node_netns = node_netns
        self._metrics = metrics
        self._health = health
        self._fixed = frozenset(map(addresses.pack, settings.extra_node_addresses))
        self._node_addresses = TrackedSet(self._fixed)
        self._addressed = False  # whether the node's own addresses were read
        self._settled = False  # whether all that was told adds up to a revision, or is of the snapshot
        self._retry_at = 0.0  # loop time, where anything is failing
        self._dirty: set[str] = set()
        self._failing: dict[str, str] = {}  # uid → why
        self._late: set[str] = set()  # being programmed since an earlier round
        self._missed: set[str] = set()  # of these, what is dirty again
        self._turns = asyncio.Semaphore(settings.parallel)
        self._marks: list[Mark] = []
        self._written: Batches[list[Mark]] = Batches(limit=1 << 20)  # of each round that ended
        self._work = asyncio.Event()
        self._again: Batches[str] = Batches(limit=1 << 20)
        self._kept = kept

    def __repr__(self) -> str:
        pods = f"{len(self.pods)} Pods, {len(self._dirty)} dirty"
        return f"<C-VEN of {self.settings.node}, realized {self.revision}, {pods}>"

    @property
    def exceptions(self) -> tuple[PodException, ...]:
        """The Pods here that do not hold what they should, as of now, not of the last mark: a retry may succeed."""
        return tuple(self._exceptions())

    @property
    def passive(self) -> bool:
        """Whether it writes nothing, by order."""
        return self.settings.observe or self.settings.pause

    @property
    def writes(self) -> int:
        """Patches written to the Pods that are here now."""
        return sum(pod.writes for pod in self.pods.values())

    async def run(self, updates: AsyncIterator[NodeUpdate], stop: asyncio.Event) -> None:
        """Enforce what *updates* tell until *stop* is set; then end the round that was begun. Rules stay."""
        try:
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(self._take_policy(updates), name="take in policy"),
                    tasks.create_task(self._take_sandboxes(), name="take in sandboxes"),
                    tasks.create_task(self._take_addresses(), name="take in addresses"),
                    tasks.create_task(self._acknowledge_written(), name="acknowledge"),
                    tasks.create_task(self._audit_again(), name="audit again"),
                    tasks.create_task(self._fall_back(), name="fall back to the disk"),
                ]
                programming = tasks.create_task(self._program(tasks, stop), name="program Pods")
                await first_of(programming, stop)
                self._work.set()
                await asyncio.wait([programming])
                for task in others:
                    task.cancel()
        finally:
            for pod in self.pods.values():
                await pod.idle()  # or the end of the loop would come before the end of its socket
                pod.close()
        _log.info("stopped; the rules of all Pods stay", node=self.settings.node, pods=len(self.pods))

    async def realized(self, revision: int) -> None:
        """Return once *revision* is realized on this node, but for `exceptions`."""
        async with self._acknowledged:
            await self._acknowledged.wait_for(lambda: self.revision >= revision)

    async def _take_policy(self, updates: AsyncIterator[NodeUpdate]) -> None:
        async for update in updates:
            self._mark_dirty(self.node.apply(update))
            if update.complete:
                self.from_disk = False
                self._mark_dirty(self.pods)  # what no program names is swept
            self._settled = update.mark is not None
            if update.mark is not None and self.node.complete:
                self._marks.append(update.mark)
                self._work.set()
            self._health.set_ready("policy", self.node.complete, "the node's complete policy is not known yet")

    async def _take_sandboxes(self) -> None:
        async for sandboxes in self._runtime.watch():
            for uid in self.pods.keys() - sandboxes.keys():
                self.pods.pop(uid).close()
                self._failing.pop(uid, None)
            for uid, sandbox in sandboxes.items():
                known = self.pods.get(uid)
                if known is None or (known.sandbox.id, known.sandbox.netns) != (sandbox.id, sandbox.netns):
                    if known is not None:
                        known.close()
                    self.pods[uid] = PodEnforcement(sandbox, self.settings.mark, self.settings.set_backend)
                    self._mark_dirty([uid])
                else:
                    moved = set(known.sandbox.addresses) != set(sandbox.addresses)
                    known.sandbox = sandbox
                    if moved:  # or it has them only now: runtimes tell of a Pod before its network is made
                        known.doubt()
                        self._mark_dirty([uid])
            self._health.set_ready("runtime", True)
            self.changed.set()

    async def _take_addresses(self) -> None:
        async with aclosing(watch_addresses(self._node_netns)) as watching:
            async for found in watching:
                wanted = found | self._fixed
                changed = self._node_addresses.change(wanted, self._node_addresses.members - wanted)
                if changed or not self._addressed:
                    self._mark_dirty(self.pods)
                self._addressed = True

    async def _fall_back(self) -> None:
        """Enforce what was kept if nobody tells anything newer in time, as after a reboot while NATS is away."""
        await asyncio.sleep(self.settings.disk_after_seconds)
        if self._kept is None or self.node.complete:
            return
        _log.warning("NATS is not heard: enforcing from disk", revision=self._kept.revision)
        self.from_disk = self._settled = True
        self.node.apply(self._kept.update())
        self._mark_dirty(self.pods)

    def _mark_dirty(self, uids: Iterable[str]) -> None:
        self._dirty.update(uids)
        self._work.set()

    async def _program(self, tasks: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(first_seconds=0.1, limit_seconds=10.0)
        while not stop.is_set():
            await self._wait_for_work()
            self._work.clear()
            if not (self.node.complete or self.from_disk) or not self._addressed:
                continue
            dirty, self._dirty = self._dirty, set()
            marks, self._marks = self._marks, []
            settled = self._settled
            retry = bool(self._failing) and loop.time() >= self._retry_at
            if not self.passive:
                await self._round(tasks, dirty | self._failing.keys() if retry else dirty)
                if marks or (settled and self._due()):
                    await self._written.put([marks])
            if not self._failing:
                backoff.reset()
                self._retry_at = 0.0
            elif retry or self._retry_at <= loop.time():
                self._retry_at = loop.time() + backoff.delay()
            self.changed.set()

    async def _wait_for_work(self) -> None:
        """Until something is dirty, or it is time to try again what failed."""
        try:
            async with asyncio.timeout_at(self._retry_at if self._failing else None):
                await self._work.wait()
        except TimeoutError:
            pass

    async def _round(self, tasks: asyncio.TaskGroup, uids: Iterable[str]) -> None:
        """Program *uids*; one that is late goes on by itself, named as an exception, and its neighbours do not wait."""
        begun: dict[str, asyncio.Task[None]] = {}
        for uid in sorted(uids):
            if uid in self._late:
                self._missed.add(uid)
            elif pod := self.pods.get(uid):
                begun[uid] = tasks.create_task(self._realize(uid, pod), name=f"program {pod.sandbox.name}")
        if not begun:
            return
        _, late = await asyncio.wait(begun.values(), timeout=LATE_SECONDS)
        for uid, task in begun.items():
            if task in late:
                self._late.add(uid)
                self._failing[uid] = LATE
                task.add_done_callback(partial(self._caught_up, uid))

    def _caught_up(self, uid: str, _: asyncio.Task[None]) -> None:
        self._late.discard(uid)
        if uid in self._missed and uid in self.pods:  # what it was told meanwhile it does not hold yet
            self._failing[uid] = LATE
            self._mark_dirty([uid])
        self._missed.discard(uid)
        self.changed.set()

    async def _realize(self, uid: str, pod: PodEnforcement) -> None:
        async with self._turns:
            try:
                async with asyncio.timeout(GIVEN_UP_SECONDS):
                    with self._metrics.patch_seconds.time():
                        program = self._program_of(uid, pod)
                        wrote = await pod.realize(program, self._sets_of(program))
            except TimeoutError:
                self._fail(uid, pod, TimeoutError(f"not programmed within {GIVEN_UP_SECONDS:g} s"))
            except TROUBLE as error:
                self._fail(uid, pod, error)
            else:
                self._failing.pop(uid, None)
                self._metrics.patches.inc(wrote)

    def _program_of(self, uid: str, pod: PodEnforcement) -> Program | None:
        program = self.node.programs.get(uid)
        if program is None and self.from_disk and self.settings.unknown_pods == "isolate":
            sandbox = pod.sandbox
            return Program(
                uid=uid,
                namespace=sandbox.namespace,
                name=sandbox.name,
                node=self.settings.node,
                ingress=UNKNOWN,
                egress=UNKNOWN,
            )
        return program

    def _fail(self, uid: str, pod: PodEnforcement, error: BaseException) -> None:
        pod.doubt()
        pod.state = PodState.ERROR
        if self.pods.get(uid) is not pod:  # it went away meanwhile, and its trouble with it
            return
        reason = f"{type(error).__name__}: {error}"
        if self._failing.get(uid) != reason:
            _log.error("Pod not programmed", pod=f"{pod.sandbox.namespace}/{pod.sandbox.name}", reason=reason)
        self._failing[uid] = reason
        self._metrics.failures.inc()

    def _sets_of(self, program: Program | None) -> Sets:
        """What *program* names, taken with it: later the node may know other ones. Raises `KeyError`."""
        named = program.sets if program is not None else ()
        return {**{identity: self.node.sets[identity] for identity in named}, layout.NODE_SET: self._node_addresses}

    async def _acknowledge_written(self) -> None:
        """Beside the rounds: a connection table takes milliseconds to walk, and no member waits for that."""
        loop = asyncio.get_running_loop()
        async for rounds in self._written:
            began = loop.time()
            await self._acknowledge([mark for marks in rounds for mark in marks])
            self.changed.set()
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
        self._metrics.realized.set(self.revision)
        arrived = datetime.now(UTC)
        self.latencies += [
            (arrived - datetime.fromisoformat(mark.time)).total_seconds() * 1000
            for mark in marks
            if mark.changed and mark.time
        ]
        async with self._acknowledged:
            self._acknowledged.notify_all()

    def _due(self) -> list[str]:
        """Whose connections have to be judged. What is failing waits until it does not."""
        return [uid for uid, pod in self.pods.items() if pod.audit_due and uid not in self._failing]

    async def _audit_again(self) -> None:
        """A connection whose entry was not confirmed at the first audit is by now, or never."""
        async for uids in self._again:
            await asyncio.sleep(SECOND_AUDIT_SECONDS)
            await self._audit(set(uids))

    async def _audit(self, uids: Iterable[str]) -> None:
        for uid in uids:
            pod = self.pods.get(uid)
            program = self._program_of(uid, pod) if pod is not None else None
            if pod is None or program is None:
                continue
            pod.audit_due = False
            try:
                sets = self._sets_of(program)
                cuts = await pod.audit(program, sets, lambda: conntrack.translations(self._node_netns))
            except TROUBLE as error:
                self._fail(uid, pod, error)
                pod.audit_due = True
                self._mark_dirty([uid])
            else:
                self._metrics.cuts.inc(len(cuts))

    def _exceptions(self) -> Iterator[PodException]:
        for uid, reason in sorted(self._failing.items()):
            sandbox = self.pods[uid].sandbox
            yield PodException(uid=uid, namespace=sandbox.namespace, name=sandbox.name, reason=reason)

    def state_of(self, uid: str) -> PodState:
        """What has become of the Pod *uid*."""
        pod, program = self.pods.get(uid), self.node.programs.get(uid)
        if pod is None:
            return PodState.PENDING
        if program is not None and program.mode is Mode.IDLE:
            return PodState.IDLE
        return PodState.PAUSED if self.passive and pod.state is PodState.PENDING else pod.state
