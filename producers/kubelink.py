"""Kubelink: from a source to the cluster's log, one writer at a time.

    turn (Lease) ─▶ source ready? ─▶ Epoch record ─▶ fold own topic ─▶ ┌ taking in ─▶ inbox ─▶ writing ┐
       ▲                                                               └ looking, every second ─┘      │
       └──────── not ready, replaced, turn lost, or outcome unknown: begin again ◀─────────────────────┘

The source is observed from its beginning in every epoch: the fold says what is already written.
"""

import asyncio
import gc
import os
import socket
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec
import structlog

from producers.core.observations import Observation
from producers.core.reflector import problems_since
from producers.errors import AccessInvalid, EpochLost, Replaced, SourceInvalid, SourceUnready
from producers.source import Source
from producers.writing import Clock, EpochWriter
from streams.backoff import Backoff
from streams.batches import Batches
from streams.errors import LogUnavailable, OutcomeUnknown
from streams.lifecycle import finished, first_of, happens, until_stopped
from streams.log import Log

INBOX_OBSERVATIONS: Final = 4000
LOOK_SECONDS: Final = 1.0
"""How often the log is looked at for records of others while there is nothing to write."""


class Phase(StrEnum):
    STANDBY = "standby"
    """Another Kubelink holds the Lease, or the source or the log cannot be reached."""
    FOLDING = "folding"
    LISTING = "listing"
    COMPLETE = "complete"
    """Every kind has been listed in this epoch; changes are followed."""
    STOPPED = "stopped"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What Kubelink says of itself, at one moment."""

    phase: Phase
    epoch: int = -1
    """-1 before the first."""
    synced: tuple[str, ...] = ()
    objects: dict[str, int] = {}
    """Objects held, per kind."""
    written: int = 0
    """Entries appended since the start."""
    lag_seconds: float = 0.0
    """How long the oldest observation has been waiting to be written."""
    ready: bool = False
    """Every kind is listed; or another one's turn it is, and this one could take over."""
    problems: dict[str, str] = {}
    """Subject → reason, for as long as it lasts."""


class Turn(Protocol):
    """Who may try to write.

    It need not be right: epochs keep two writers apart, turns only keep them from quarrelling.
    """

    @property
    def problem(self) -> str:
        """Why turns cannot be told at the moment, or nothing."""
        ...

    async def comes(self) -> None:
        """Return when it is our turn."""
        ...

    async def passes(self) -> None:
        """Keep the turn, and return when it is no longer ours."""
        ...

    async def give_up(self) -> None:
        """Let another one have it now rather than later."""
        ...


class _Look(msgspec.Struct, frozen=True, gc=False):
    """In the inbox: it is time to look for records of others."""


class _Ended(msgspec.Struct, frozen=True, gc=False):
    """In the inbox: the source has told everything."""


Inbox = Batches[Observation | _Look | _Ended]


def writer_name() -> str:
    """Host and process, for people."""
    return f"{socket.gethostname()}/{os.getpid()}"


class Kubelink:
    """Writes what *source* tells into *log*. Run it once; look at `state` at any time."""

    def __init__(
        self,
        log: Log,
        source: Source,
        *,
        cluster: str,
        turn: Turn | None = None,
        writer: str = "",
        drain_seconds: float = 5.0,
        look_seconds: float = LOOK_SECONDS,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._log = log
        self._source = source
        self._cluster = cluster
        self._turn = turn
        self._writer_name = writer or writer_name()
        self._drain_seconds = drain_seconds
        self._look_seconds = look_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._phase = Phase.STANDBY
        self._writer: EpochWriter | None = None
        self._written_before = 0
        self._waiting_since: float | None = None
        self._setback: dict[str, str] = {}
        """Why there is no writer, or why there is a new one: reason by subject."""
        self._hindered = False
        """It could not take over if it were its turn."""
        self._frozen = False
        self._told: dict[str, str] = {}
        self._logger = structlog.get_logger().bind(cluster=cluster, component="kubelink")
        self._settled = asyncio.Event()
        self.source_ended = asyncio.Event()
        """The source will tell nothing more, and what it told is written."""

    def __repr__(self) -> str:
        return f"Kubelink({self._cluster!r}, {self._phase.value}, {self._writer!r})"

    @property
    def state(self) -> State:
        """What a status message says: cheap, and never waits."""
        writer, topic = self._writer, self._log.topic.name
        problems = dict(self._setback)
        if self._turn is not None and self._turn.problem:
            problems["Lease"] = self._turn.problem
        if writer is None:
            able = self._turn is not None and not self._hindered
            return State(phase=self._phase, written=self._written_before, ready=able, problems=problems)
        if writer.unavailable:
            problems[topic] = writer.unavailable
        complete = self._phase is Phase.LISTING and writer.complete
        return State(
            phase=Phase.COMPLETE if complete else self._phase,
            epoch=writer.epoch,
            synced=tuple(sorted(writer.synced)),
            objects={kind: len(writer.ledger.objects[kind]) for kind in self._source.kinds},
            written=self._written_before + writer.written,
            lag_seconds=0.0 if self._waiting_since is None else self._monotonic() - self._waiting_since,
            ready=complete,
            problems={**problems, **writer.reflector.problems},
        )

    async def settled(self) -> None:
        """Return once everything that the source has delivered is written, or found to differ in nothing."""
        await self._settled.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Write until *stop* is set, then drain.

        Soft stop: the source is left, what it had told is still written. ``drain_seconds`` later that is cancelled
        too: the next Kubelink finds the difference. Raises `AccessInvalid` or `SourceInvalid` from the source, and
        `Replaced` where no `Turn` decides between two Kubelinks: coming back would only replace the other in return.
        """
        work = asyncio.create_task(self._write_epochs(stop), name="kubelink")
        telling = asyncio.create_task(self._telling(), name="kubelink: telling problems")
        try:
            if await first_of(work, stop):
                await finished(work, within_seconds=self._drain_seconds)
        finally:
            work.cancel()
            telling.cancel()
            await asyncio.wait((work, telling))
            self._phase = Phase.STOPPED
            self._tell()
        if not work.cancelled():
            work.result()

    async def _write_epochs(self, stop: asyncio.Event) -> None:
        backoff = Backoff()
        while True:
            self._enter(Phase.STANDBY)
            if self._turn is not None:
                await until_stopped(self._turn.comes(), stop, name="kubelink: waiting for its turn")
            if stop.is_set():
                return
            setback = await self._while_our_turn(stop)
            if stop.is_set():
                return
            if isinstance(setback, Replaced) and self._turn is None:
                raise setback
            if self._phase is Phase.LISTING:
                backoff.reset()
            self._hindered = isinstance(setback, (SourceUnready, LogUnavailable))
            if isinstance(setback, SourceUnready):
                self._setback = setback.problems
            else:
                self._setback = {self._log.topic.name: str(setback or "the turn has passed to another Kubelink")}
            await happens(stop, within_seconds=backoff.delay())

    async def _while_our_turn(self, stop: asyncio.Event) -> Exception | None:
        """Write in one epoch; return why it is over, ``None`` if the turn has passed or *stop* is set."""
        if self._turn is None:
            return await self._write_epoch(stop)
        work = asyncio.create_task(self._write_epoch(stop), name="kubelink: one epoch")
        keeping = asyncio.create_task(self._turn.passes(), name="kubelink: keeping its turn")
        try:
            await asyncio.wait((work, keeping), return_when=asyncio.FIRST_COMPLETED)
            return await work if work.done() else None
        finally:
            for task in (work, keeping):
                task.cancel()
            await asyncio.wait((work, keeping))
            if not keeping.cancelled() and (error := keeping.exception()) is not None:
                raise error
            await self._turn.give_up()

    async def _write_epoch(self, stop: asyncio.Event) -> Exception | None:
        """Begin an epoch and write until *stop* is set, and everything taken in is written; or say why not."""
        setback: Exception | None = None
        try:
            if troubles := await self._source.check():
                return SourceUnready({trouble.subject: trouble.reason for trouble in troubles})
            self._enter(Phase.FOLDING)
            self._writer = await EpochWriter.begin(
                self._log,
                cluster=self._cluster,
                kinds=self._source.kinds,
                writer=self._writer_name,
                clock=self._clock,
            )
            self._setback, self._hindered = {}, False
            self._enter(Phase.LISTING)
            await self._reflect(self._writer, stop)
        except* (Replaced, EpochLost, OutcomeUnknown, LogUnavailable) as group:
            setback = _first(group)
        except* (AccessInvalid, SourceInvalid) as group:
            raise _first(group) from None
        return setback

    async def _reflect(self, writer: EpochWriter, stop: asyncio.Event) -> None:
        inbox: Inbox = Batches(limit=INBOX_OBSERVATIONS)
        async with asyncio.TaskGroup() as tasks:
            intake = tasks.create_task(self._taking_in(inbox), name="kubelink: taking in")
            looking = tasks.create_task(self._looking(inbox), name="kubelink: looking")
            tasks.create_task(self._writing(writer, inbox), name="kubelink: writing")
            await stop.wait()
            intake.cancel()
            looking.cancel()
            # The source's own tasks hear of it a moment later, and may still deliver until they do.
            await asyncio.wait((intake, looking))
            inbox.close()

    async def _taking_in(self, inbox: Inbox) -> None:
        async def deliver(observations: Sequence[Observation]) -> None:
            self._settled.clear()
            await inbox.put(observations)

        await self._source.observing(deliver)
        await inbox.put([_Ended()])

    async def _looking(self, inbox: Inbox) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            await inbox.put([_Look()])

    async def _writing(self, writer: EpochWriter, inbox: Inbox) -> None:
        async for batch in inbox:
            self._waiting_since = self._monotonic()
            observations = [item for item in batch if not isinstance(item, (_Look, _Ended))]
            if observations:
                await writer.write(observations)
                if not self._frozen and writer.complete:
                    self._frozen = True
                    gc.collect()
                    gc.freeze()  # what the first lists built stays: looking through it again would find nothing
            if len(observations) < len(batch):
                if any(isinstance(item, _Ended) for item in batch):
                    self.source_ended.set()
                await writer.look()
            self._waiting_since = None
            if not len(inbox):
                self._settled.set()

    def _enter(self, phase: Phase) -> None:
        if phase is Phase.STANDBY and self._writer is not None:
            self._written_before += self._writer.written
            self._writer = None
        if phase is not self._phase:
            self._logger.info(phase.value, epoch=self.state.epoch)
        self._phase = phase

    async def _telling(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(self._look_seconds)

    def _tell(self) -> None:
        """Log every problem once when it appears, and once when it is over."""
        now = self.state.problems
        for subject, reason in problems_since(self._told, now):
            if reason:
                self._logger.warning("problem", subject=subject, reason=reason)
            else:
                self._logger.info("problem is over", subject=subject)
        self._told = now


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first error in *group*: one task fails, the others are cancelled."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
