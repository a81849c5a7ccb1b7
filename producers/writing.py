"""Writing in an epoch: begin, fold what is there, then append what differs, watching for foreign records."""

import datetime
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from typing import Self

from producers.core.entries import Scribe, epoch_entry
from producers.core.ledger import Ledger
from producers.core.observations import Observation
from producers.core.reflector import Reflector
from producers.errors import EpochLost, Replaced
from producers.source import Source
from schemas.events import EPOCH, EpochStart
from streams.backoff import Backoff
from streams.errors import LogUnavailable
from streams.log import Entry, Log, Record

Clock = Callable[[], float]
"""Seconds since the Unix epoch."""


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, microseconds."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class EpochWriter:
    """The right to write to a cluster's log, for as long as no newer epoch begins. Used by one task at a time.

    Raises `Replaced` once a newer epoch is seen, `EpochLost` if the own one cannot be read back, `OutcomeUnknown`
    from the log: whatever of these is raised, this writer is over, and the next one begins a new epoch.
    """

    def __init__(self, log: Log, reflector: Reflector, epoch: int, *, clock: Clock) -> None:
        self.log = log
        self.reflector = reflector
        self.epoch = epoch
        self._clock = clock
        self._position = epoch + 1
        """Everything below has been folded or was written by this writer."""
        self._backoff = Backoff()
        self.unavailable = ""
        """Why the log does not take anything at the moment."""
        self.written = 0
        self.synced: frozenset[str] = frozenset()
        """Kinds whose ``Sync`` of this epoch is safe in the log."""

    def __repr__(self) -> str:
        return f"EpochWriter(epoch={self.epoch}, written={self.written}, {self.ledger!r})"

    @property
    def complete(self) -> bool:
        """Whether every kind that this epoch named is listed, and all of it safe in the log."""
        return self.ledger.epochs.kinds <= self.synced

    @property
    def ledger(self) -> Ledger:
        return self.reflector.ledger

    @classmethod
    async def begin(
        cls, log: Log, *, cluster: str, kinds: Sequence[str], writer: str, clock: Clock = time.time
    ) -> Self:
        """Append an ``Epoch`` record, fold the log up to it, and return the writer of that epoch.

        Raises `LogUnavailable` or `OutcomeUnknown` from the log, `EpochLost`.
        """
        start = EpochStart(kinds=tuple(kinds), writer=writer)
        epoch = (await log.append([epoch_entry(cluster, start, timestamp(clock()))]))[0]
        ledger = Ledger()
        reflector = Reflector(ledger, Scribe(cluster, epoch), max_entry_bytes=log.topic.max_entry_bytes)
        made = cls(log, reflector, epoch, clock=clock)
        async with aclosing(log.read(0, end=epoch + 1)) as batches:
            async for records in batches:
                made._fold(records)
        if ledger.epochs.current != epoch:
            raise EpochLost(log.topic.name, epoch)
        return made

    async def write(self, observations: Sequence[Observation]) -> None:
        """Append what *observations* say and the log does not."""
        await self._append(self.reflector.reflect(observations, self._now()))
        self.synced = frozenset(self.ledger.epochs.synced)

    async def look(self) -> None:
        """Fold what others have written meanwhile, and write again what it has made unsound."""
        try:
            end = await self.log.end()
        except LogUnavailable as error:
            self.unavailable = error.reason
            return
        if end > self._position:
            await self._catch_up(end, frozenset())
            await self._append(self.reflector.mend(self._now()))

    async def _append(self, entries: list[Entry]) -> None:
        while entries:
            offsets = await self._safely(entries)
            self.written += len(entries)
            first, last = offsets[0], offsets[-1]
            if first == self._position and last - first == len(offsets) - 1:
                self._position = last + 1
                return
            await self._catch_up(last + 1, frozenset(offsets))
            entries = self.reflector.mend(self._now())

    async def _safely(self, entries: list[Entry]) -> list[int]:
        """Append; while the log is away and nothing was written, wait and try again."""
        while True:
            try:
                offsets = await self.log.append(entries)
            except LogUnavailable as error:
                self.unavailable = error.reason
                await self._backoff.wait()
            else:
                self.unavailable = ""
                self._backoff.reset()
                return offsets

    async def _catch_up(self, end: int, own: Collection[int]) -> None:
        """Fold the records below *end* that are not our *own*. Those were counted when they were made."""
        async with aclosing(self.log.read(self._position, end=end)) as batches:
            async for records in batches:
                self._fold([record for record in records if record.offset not in own])
        self._position = end
        epochs = self.ledger.epochs
        if epochs.current != self.epoch:
            raise Replaced(self.log.topic.name, self.epoch, epochs.current)
        if self.ledger.unsound[EPOCH]:
            raise EpochLost(self.log.topic.name, self.epoch)

    def _fold(self, records: Sequence[Record]) -> None:
        for record in records:
            if (fault := self.ledger.fold(record)) is not None:
                where = f"{self.log.topic.name} offset {fault.offset}"
                self.reflector.note(where, f"record {fault.key!r} cannot be read: {fault.reason}")

    def _now(self) -> str:
        return timestamp(self._clock())


async def feed(log: Log, source: Source, *, cluster: str, clock: Clock = time.time) -> EpochWriter:
    """Write everything that *source*, which ends by itself, tells into *log*, in a new epoch.

    For replays, policy checks and measurements: no service, no waiting. Raises what `EpochWriter` and the source do.
    """
    writer = await EpochWriter.begin(log, cluster=cluster, kinds=source.kinds, writer="feed", clock=clock)
    await source.observing(writer.write)
    return writer
