"""One cluster's processor: folds its log, always; publishes what follows from it, while it owns the streams.

    log ──▶ take-in ──▶ inbox ──▶ work-off: fold ──▶ PolicyChange ──▶ writer (owner only)
                                        │
    owning: wait for a vacancy ─▶ take over ─▶ caught up? ─▶ publish the difference ─▶ marks, inventory, dead letters
                 ▲                                                                             │
                 └───────────────────── ownership lost, or its state unknown ◀─────────────────┘

A standby does all that an owner does, except publishing; so it takes over with a fold that is warm.
"""

import asyncio
import contextlib
import gc
import time
from contextlib import aclosing
from typing import Final

import structlog

from processors.core.cluster_fold import Advance, ClusterFold
from processors.dead_letters import DeadLetters
from processors.inventory_publishing import publish_inventory
from processors.metrics import Metrics
from processors.sending import Sending
from processors.settings import ProcessorSettings
from processors.status_records import StatusRecords
from processors.vacancy import Vacancy
from schemas.status import ProcessorStatus
from streams.backoff import Backoff
from streams.batches import Batches
from streams.channels.policy_writer import PolicyWriter, Published
from streams.channels.reporting import VERSION, now, report_status
from streams.core.difference import difference
from streams.errors import Fenced, LogUnavailable, OutcomeUnknown, StreamError
from streams.lifecycle import finished, first_of
from streams.log import Log, Record
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health

FOLD_RECORDS: Final = 2000
"""Folded in one go; between two such the loop attends to others."""
NEEDS_SOMEONE_SECONDS: Final = 60.0
"""How often to try what only a person can mend: each try makes every enforcer catch up."""

_log = structlog.get_logger("processors")


class ClusterProcessor:
    """Serves *cluster* from `run` until its stop event is set."""

    def __init__(
        self,
        cluster: str,
        settings: ProcessorSettings,
        *,
        events: Log,
        dead: Log,
        status: Log,
        bus: NatsBus,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self.cluster = cluster
        self.fold = ClusterFold(cluster, settings.policy)
        self._settings = settings
        self._events = events
        self._bus = bus
        self._metrics = metrics
        self._health = health
        self._dead_letters = DeadLetters(events, dead)
        self._status_records = StatusRecords(bus, cluster, status)
        self._vacancy = Vacancy(bus, cluster, settings.name, limit_seconds=settings.take_over_seconds)
        self._inbox: Batches[Record] = Batches(settings.inbox_records)
        self._turn = asyncio.Lock()  # folding and sending are one step: what is sent next follows what was sent before
        self._advanced = asyncio.Event()
        self._catching_up = True
        self._sending = Sending(self.fold, metrics)
        self._role_changed = asyncio.Event()
        self._problems: tuple[str, ...] = ()
        self._end = 0
        """The log's end when it was asked for last."""
        self._log = _log.bind(cluster=cluster, processor=settings.name)
        health.set_ready(self._condition, False, "folding the log")

    def __repr__(self) -> str:
        return f"<processor of {self.cluster} at {self.fold.revision}, {'owner' if self.owns else 'standby'}>"

    @property
    def owns(self) -> bool:
        """Whether it publishes."""
        return self._sending.writer is not None

    @property
    def _condition(self) -> str:
        return f"cluster {self.cluster}"

    async def run(self, stop: asyncio.Event) -> None:
        """Until *stop*: then intake ends, and what was taken in is folded and, by the owner, published and marked."""
        async with asyncio.TaskGroup() as tasks:
            intake = tasks.create_task(self._take_in(), name=f"{self.cluster}: take-in")
            work = tasks.create_task(self._work_off(), name=f"{self.cluster}: work-off")
            owning = tasks.create_task(self._own_whenever_vacant(), name=f"{self.cluster}: owning")
            measuring = tasks.create_task(self._measure_lag(), name=f"{self.cluster}: lag")
            reporting = tasks.create_task(self._report(), name=f"{self.cluster}: status")
            await first_of(intake, stop)
            intake.cancel()
            await finished(work, within_seconds=self._settings.drain_seconds)
            if self._sending.writer is not None:
                settling = tasks.create_task(_settled(self._sending.writer), name=f"{self.cluster}: settling")
                await finished(settling, within_seconds=self._settings.drain_seconds)
                settling.cancel()
            for task in (work, owning, measuring, reporting):
                task.cancel()

    async def _report(self) -> None:
        await report_status(
            self._bus,
            self.cluster,
            lambda: [self.status()],
            self._role_changed,
            replicas=self._settings.replicas,
            seconds=self._settings.status_seconds,
        )

    async def _measure_lag(self) -> None:
        """Ask the log now and then where it ends: what waits there is not in the inbox yet."""
        while True:
            with contextlib.suppress(LogUnavailable):  # the reader says so
                self._end = await self._events.end()
            self._metrics.lag.labels(self.cluster).set(self._lag)
            await asyncio.sleep(self._settings.status_seconds)

    @property
    def _lag(self) -> int:
        return max(0, self._end - 1 - self.fold.revision)

    def status(self) -> ProcessorStatus:
        """What it says of itself."""
        writer = self._sending.writer
        mark = writer.mark if writer is not None else None
        if mark is not None:
            self._metrics.marked.labels(self.cluster).set(mark.revision)
        return ProcessorStatus(
            name=self._settings.name,
            version=VERSION,
            heartbeat=now(),
            owner=self.owns,
            token=writer.token if writer is not None else "",
            revision=self.fold.revision,
            marked=mark.revision if mark is not None else -1,
            lag=self._lag,
            problems=self._problems,
        )

    # --- folding -----------------------------------------------------------------------------------------------------

    async def _take_in(self) -> None:
        try:
            async with aclosing(self._events.read(0, follow=True)) as batches:
                async for records in batches:
                    await self._inbox.put(records)
        finally:
            self._inbox.close()

    async def _work_off(self) -> None:
        async for records in self._inbox:
            for start in range(0, len(records), FOLD_RECORDS):
                async with self._turn:
                    advance = self._fold(records[start : start + FOLD_RECORDS])
                    await self._sending.send(advance.change)
                if self._catching_up:
                    gc.freeze()  # all of it stays: looking through it again with each batch takes a third of the time
                self._advanced.set()
                await asyncio.sleep(0)

    def _fold(self, records: list[Record]) -> Advance:
        metrics, cluster = self._metrics, self.cluster
        began = time.perf_counter()
        advance = self.fold.advance(records)
        metrics.fold_seconds.labels(cluster).observe(time.perf_counter() - began)
        metrics.records.labels(cluster).inc(len(records))
        metrics.poison.labels(cluster).inc(len(advance.poison))
        metrics.revision.labels(cluster).set(advance.revision)
        self._dead_letters.note(advance.poison)
        return advance

    # --- owning ------------------------------------------------------------------------------------------------------

    async def _own_whenever_vacant(self) -> None:
        await self._caught_up()
        self._catching_up = False
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # what the initial fold built stays: looking through it again and again would find nothing
        self._health.set_ready(self._condition, True)
        self._log.info("folded", revision=self.fold.revision)
        soon, later = (
            Backoff(limit_seconds=self._settings.take_over_seconds),
            Backoff(first_seconds=NEEDS_SOMEONE_SECONDS, limit_seconds=NEEDS_SOMEONE_SECONDS),
        )
        while True:
            await self._vacancy.wait()
            began = asyncio.get_running_loop().time()
            self._note_loss(await self._own())
            if asyncio.get_running_loop().time() - began > self._settings.take_over_seconds:
                soon.reset()
            await (later if self._problems else soon).wait()

    def _note_loss(self, reason: StreamError) -> None:
        """A standby is as ready as an owner; only what does not mend itself is a problem."""
        self._metrics.owner.labels(self.cluster).set(0)
        self._role_changed.set()
        if isinstance(reason, Fenced):
            self._log.warning("another processor took over", reason=str(reason))
            return
        self._log.warning("the policy stream is not surely owned any more", reason=str(reason))
        if not (reason.retriable or isinstance(reason, OutcomeUnknown)):
            self._problems = (str(reason),)
            self._health.set_ready(self._condition, False, str(reason))

    async def _own(self) -> StreamError:
        """Take over and publish until that ends; return why it did."""
        writer = PolicyWriter(self._bus, self.cluster, self._settings.name, replicas=self._settings.replicas)
        reasons: list[StreamError] = []
        try:
            published = await writer.take_over()
            self._metrics.take_overs.labels(self.cluster).inc()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(writer.run(), name=f"{self.cluster}: marks")
                await self._begin(writer, published)
                tasks.create_task(
                    publish_inventory(self._bus, self.fold, self._settings), name=f"{self.cluster}: inventory"
                )
                tasks.create_task(self._dead_letters.run(), name=f"{self.cluster}: dead letters")
                tasks.create_task(self._status_records.run(), name=f"{self.cluster}: status records")
        except* StreamError as group:
            reasons.extend(_leaves(group))
        finally:
            self._sending.writer = None
            self._vacancy.token = writer.token
        # Whoever was replaced sees it in several places; the plainest of the reasons says it.
        return next((reason for reason in reasons if isinstance(reason, Fenced)), reasons[0])

    async def _begin(self, writer: PolicyWriter, published: Published) -> None:
        """Publish what differs from *published*, as soon as the fold knows everything that was in the log at the
        take-over: what another owner published before was derived from no more than that.

        An epoch that begins later does not interrupt this owner. Its lists tell object by object what is so now, on
        top of all that was known; what they do not tell goes with the deletions at the end of each list, never by
        the epoch itself. So nothing opens or closes for want of a list, and each state on the way is one that a watch
        could have shown. To wait for the marks of the lists would be worse: one kind that cannot be listed would keep
        new policies from being enforced.
        """
        await self._caught_up()
        async with self._turn:
            change = difference(self.fold.policy(), published.policy)
            self._sending.writer = writer
            await self._sending.send(change)
        self._metrics.owner.labels(self.cluster).set(1)
        self._health.set_ready(self._condition, True)
        self._problems = ()
        self._role_changed.set()
        self._log.info(
            "publishing",
            revision=self.fold.revision,
            sets=len(change.sets),
            programs=len(change.programs),
            gone=len(change.gone),
        )

    async def _caught_up(self) -> None:
        """Wait until every kind was listed in the current epoch, and all that is in the log now is folded."""
        newest = await self._newest()
        while not self.fold.complete or self.fold.revision < newest:
            self._advanced.clear()
            await self._advanced.wait()

    async def _newest(self) -> int:
        """Offset of the newest record. The last offsets of a log may be empty: a cleaner has been there."""
        newest, end = self.fold.revision, await self._events.end()
        if end > newest + 1:
            async with aclosing(self._events.read(newest + 1, end=end)) as batches:
                async for records in batches:
                    newest = records[-1].offset
        return newest


async def _settled(writer: PolicyWriter) -> None:
    try:
        await writer.settled()
    except StreamError as error:  # the next owner publishes the difference, so nothing is lost
        _log.warning("what was sent last may not have arrived", reason=str(error))


def _leaves(group: BaseExceptionGroup[StreamError]) -> list[StreamError]:
    found: list[StreamError] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
