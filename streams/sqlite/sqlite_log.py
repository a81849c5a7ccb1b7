"""The embedded log: `streams.log.Log` over one SQLite file.

    append ─┐                       ┌─▶ reader thread ──▶ read (woken by this process's commits,
    append ─┼─▶ writer thread ──▶ file                          polling for those of others)
    append ─┘   (one commit for all that
                 came during the last one)

Commits happen off the event loop: most take some tens of microseconds, and one at a checkpoint tens of milliseconds.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog

from streams.errors import LogUnavailable, OffsetOutOfRange
from streams.log import Entry, Record, entry_sizes
from streams.sqlite.sqlite_file import LogFile
from streams.topics import Topic

CLEAN_SECONDS: Final = 3600.0
CLEAN_RECORDS: Final = 2000
"""Removed at once; appends wait for so many (about 10 ms)."""
POLL_SECONDS: Final = 0.05
"""How late a follower may see what another process has written."""
_T = TypeVar("_T")

_log = structlog.get_logger("streams.sqlite.sqlite_log")


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class SqliteLogs:
    """The logs in one file. Several processes may have it open; each commit is seen whole or not at all."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        clean_every_seconds: float | None = None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """*clean_every_seconds* is for those at whose place the log is kept; a reader of a file leaves it as it is.

        With *read_only* the file has to exist, and neither it nor its folder is changed: for who may not.
        """
        self._path = path
        self._opening = partial(LogFile, path, read_only=read_only)
        self._clean_every = clean_every_seconds
        self._cleaning: asyncio.Task[None] | None = None
        self._clock_ms = clock_ms
        self._writer: ThreadPoolExecutor
        self._reader: ThreadPoolExecutor
        self._writing: LogFile
        self._reading: LogFile
        self._lock = threading.Lock()
        self._group: _Group | None = None
        self._changed: dict[int, asyncio.Event] = {}

    def __repr__(self) -> str:
        return f"SqliteLogs({str(self._path)!r})"

    async def __aenter__(self) -> Self:
        """Open the file; raises `NotALog`, `LogUnavailable`."""
        loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="log-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        try:
            self._writing = await loop.run_in_executor(self._writer, self._opening)
            try:
                self._reading = await loop.run_in_executor(self._reader, self._opening)
            except BaseException:
                self._writing.close()
                raise
        except BaseException:
            self._writer.shutdown()
            self._reader.shutdown()
            raise
        if self._clean_every is not None:
            self._cleaning = asyncio.create_task(self._keep_clean(self._clean_every), name="cleaning the log")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what was appended, then close."""
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.wait((self._cleaning,))
        await asyncio.to_thread(self._close)
        if self._cleaning is not None and not self._cleaning.cancelled():
            self._cleaning.result()  # it never ends by itself but for a mistake in it

    async def open(self, topic: Topic) -> "SqliteLog":
        """The log of *topic*, created where it does not exist; raises `TopicMismatch`."""
        return SqliteLog(self, topic, await self.write(lambda file: file.open_topic(topic)))

    async def find(self, topic: Topic) -> "SqliteLog":
        """See `streams.log.Logs.find`."""
        return SqliteLog(self, topic, await self.consult(lambda file: file.find_topic(topic.name)))

    async def topics(self) -> list[Topic]:
        """The topics in the file, by name."""
        return await self.consult(LogFile.topics)

    async def append(self, identity: int, entries: Sequence[Entry]) -> int:
        """Write *entries* in one commit, with everything else that waits for one; return the first offset."""
        with self._lock:
            group = self._group
            if group is None:
                group = self._group = _Group()
            index = len(group.batches)
            group.batches.append((identity, entries))
        if index == 0:
            group.firsts = asyncio.get_running_loop().run_in_executor(self._writer, self._commit, group)
            group.firsts.add_done_callback(lambda _: self._wake(group))
        # Shielded: whoever gives up must not take the commit away from the others of the group.
        return (await asyncio.shield(group.firsts))[index]

    async def write(self, action: Callable[[LogFile], _T]) -> _T:
        """Run *action* in the writer's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, action, self._writing)

    async def consult(self, question: Callable[[LogFile], _T]) -> _T:
        """Run *question* in the reader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, question, self._reading)

    async def aside(self, question: Callable[[LogFile], _T]) -> _T:
        """Run *question* in a thread and over a connection of its own: it may take long."""

        def ask() -> _T:
            with closing(LogFile(self._path)) as file:
                return question(file)

        return await asyncio.to_thread(ask)

    async def _keep_clean(self, seconds: float) -> None:
        while True:
            try:
                for topic in await self.topics():
                    if removed := await (await self.open(topic)).clean(self._clock_ms()):
                        _log.info("cleaned", topic=topic.name, removed=removed)
            except LogUnavailable as error:  # another process holds the file, or the disk is full: next time
                _log.warning("the log could not be cleaned", reason=str(error))
            await asyncio.sleep(seconds)

    def changed(self, identity: int) -> asyncio.Event:
        """Set by the next commit of this process to the topic. Ask before reading, wait after."""
        return self._changed.setdefault(identity, asyncio.Event())

    def _commit(self, group: "_Group") -> list[int]:
        with self._lock:
            self._group = None  # what comes from now on is the next commit's
        return self._writing.append(group.batches, self._clock_ms())

    def _wake(self, group: "_Group") -> None:
        for identity, _ in group.batches:
            if (event := self._changed.pop(identity, None)) is not None:
                event.set()

    def _close(self) -> None:
        self._writer.shutdown()
        self._reader.shutdown()
        self._reading.close()
        self._writing.close()


class _Group:
    """Appends that share a commit."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, Sequence[Entry]]] = []
        self.firsts: asyncio.Future[list[int]]


class SqliteLog:
    """One topic in the file."""

    def __init__(self, home: SqliteLogs, topic: Topic, identity: int) -> None:
        self._home = home
        self._topic = topic
        self._identity = identity

    def __repr__(self) -> str:
        return f"SqliteLog({self._topic.name!r}, {self._home!r})"

    @property
    def topic(self) -> Topic:
        return self._topic

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `streams.log.Log.append`. The outcome is always known here, unless the caller is cancelled."""
        if not entries:
            return []
        entry_sizes(self._topic, entries)
        first = await self._home.append(self._identity, entries)
        return list(range(first, first + len(entries)))

    async def read(
        self, start: int, *, follow: bool = False, end: int | None = None
    ) -> AsyncGenerator[list[Record], None]:
        """See `streams.log.Log.read`."""
        first, after_last = await self._bounds()
        if start > after_last:
            raise OffsetOutOfRange(self._topic.name, start, first, after_last)
        stop = end if follow else min(after_last, after_last if end is None else end)
        position = start
        while stop is None or position < stop:
            changed = self._home.changed(self._identity)
            written, records = await self._batch(position, stop)
            if records:
                position = records[-1].offset + 1
                yield records
            elif stop is not None and written >= stop:
                return  # what was left of the range has been compacted away
            else:
                await _set_within(changed, POLL_SECONDS)

    async def start(self) -> int:
        return (await self._bounds())[0]

    async def end(self) -> int:
        return (await self._bounds())[1]

    async def offset_at(self, timestamp_ms: int) -> int:
        return await self._home.consult(lambda file: file.offset_at(self._identity, timestamp_ms))

    async def clean(self, now_ms: int) -> int:
        """Remove what the topic's settings let go at *now_ms*; return how many records went.

        Looking for them takes long in a large file, and holds up nobody; removing them takes turns with appends.
        """
        expired = await self._home.aside(lambda file: file.expired(self._identity, self._topic, now_ms))
        for first in range(0, len(expired), CLEAN_RECORDS):
            some = expired[first : first + CLEAN_RECORDS]
            await self._home.write(partial(LogFile.remove, identity=self._identity, topic=self._topic, offsets=some))
        return len(expired)

    async def load(self, records: Sequence[Record], next_offset: int) -> None:
        """Write *records* with their own offsets and timestamps, behind what is there: how an export is written.

        Raises `ValueError` where they do not rise from the topic's next offset, or reach *next_offset*.
        """
        await self._home.write(lambda file: file.load(self._identity, records, next_offset))

    async def _bounds(self) -> tuple[int, int]:
        return await self._home.consult(lambda file: file.bounds(self._identity))

    async def _batch(self, start: int, stop: int | None) -> tuple[int, list[Record]]:
        """The next offset to be given, as it was before the records were read: below it nothing can still come."""

        def ask(file: LogFile) -> tuple[int, list[Record]]:
            _, written = file.bounds(self._identity)
            return written, file.read(self._identity, self._topic.name, start, stop)

        return await self._home.consult(ask)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
