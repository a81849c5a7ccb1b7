"""What could not be read, set aside: the record as it was, with the reason, for whoever wants to know."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import structlog

from processors.core.reading import Poison
from streams.backoff import Backoff
from streams.errors import EntryTooLarge, LogUnavailable, OutcomeUnknown
from streams.log import Entry, Log, Record

_log = structlog.get_logger("processors.dead_letters")


class DeadLetters:
    """Copies unreadable records of *events* to *dead*, each once; only the owner runs it.

    Every processor notes them, since whoever takes over has to know of those that its predecessor did not get to.
    """

    def __init__(self, events: Log, dead: Log) -> None:
        self._events = events
        self._dead = dead
        self._noted: dict[int, str] = {}
        self._more = asyncio.Event()

    def note(self, poison: Iterable[Poison]) -> None:
        """Remember what could not be read."""
        for record in poison:
            self._noted[record.offset] = record.reason
            self._more.set()

    async def run(self) -> None:
        """Write what was noted and is not there yet, and go on. What cannot be reached is waited for."""
        backoff = Backoff()
        present: set[str] | None = None
        while True:
            try:
                if present is None:
                    present = {record.key async for record in _all(self._dead, 0)}
                await self._settle(present)
            except (LogUnavailable, OutcomeUnknown) as error:
                _log.warning("dead letters cannot be written now", reason=str(error))
                present = None
                await backoff.wait()
                continue
            backoff.reset()
            self._more.clear()
            if not self._noted:
                await self._more.wait()

    async def _settle(self, present: set[str]) -> None:
        while self._noted:
            offset, reason = next(iter(self._noted.items()))
            key = f"{self._events.topic.name}/{offset}"
            if key not in present:
                async for record in _all(self._events, offset, offset + 1):
                    await self._set_aside(key, record, reason)
                present.add(key)
            del self._noted[offset]

    async def _set_aside(self, key: str, record: Record, reason: str) -> None:
        headers = (("reason", reason.encode()), ("key", record.key.encode()), *record.headers)
        try:
            await self._dead.append([Entry(key, record.value, headers)])
        except EntryTooLarge:  # as large as the topic takes: the reason needs room too, and the record is in the log
            await self._dead.append([Entry(key, b"", headers[:2])])
        _log.error("a record cannot be read", topic=self._events.topic.name, offset=record.offset, key=record.key,
                   reason=reason)  # fmt: skip


async def _all(log: Log, start: int, end: int | None = None) -> AsyncGenerator[Record, None]:
    async with aclosing(log.read(start, end=end)) as batches:
        async for batch in batches:
            for record in batch:
                yield record
