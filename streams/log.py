"""The log: an ordered, durable, keyed record of what happened, behind one protocol.

    writer ── append(batch) ──▶ log ──▶ read(from an offset) ──▶ fold

Two implementations pass the same contract tests: `streams.kafka.kafka_log` and `streams.sqlite.sqlite_log`. What both
promise:

- offsets rise with every record and are never given twice; gaps are normal (compaction, control records);
- the entries of one append are stored in their order, with nothing of another append of the same `Log` in between;
- two entries of one key that stand side by side in an append (a deletion and its tombstone) are stored together or not
  at all, as long as both fit into one batch;
- a reader sees every record that compaction or retention has left, once, in offset order, across restarts of the
  server;
- timestamps are those of the log when it appended (milliseconds since the Unix epoch), not of the writer.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from streams.errors import EntryTooLarge
from streams.topics import Topic

Headers = tuple[tuple[str, bytes], ...]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Something to append."""

    key: str
    value: bytes | None
    """``None`` is a tombstone: compaction may forget the key."""
    headers: Headers = ()


class Record(msgspec.Struct, frozen=True, gc=False):
    """Something that was appended."""

    offset: int
    """The revision, where the log is a cluster's events."""
    timestamp: int
    """When the log appended it: milliseconds since the Unix epoch."""
    key: str
    """Empty for a foreign record without a key; a foreign key that is not UTF-8 has replacement characters."""
    value: bytes | None
    headers: Headers = ()


class ReadableLog(Protocol):
    """One topic, as an auditor has it."""

    @property
    def topic(self) -> Topic: ...

    def read(self, start: int, *, follow: bool = False, end: int | None = None) -> AsyncGenerator[list[Record], None]:
        """Yield the records from offset *start* on in non-empty batches, in order.

        Without *follow* it ends at the end of the log as it is now; with it, never, unless *end* (exclusive) is
        given, which ends both. A start before the log's own begins at the earliest record left. A server that is away
        is waited for.

        Raises `OffsetOutOfRange` for a start past the end, `LogCorrupt` for a record that cannot be read back.
        Close the iterator (`contextlib.aclosing`) where it is not read to its end.
        """
        ...

    async def start(self) -> int:
        """The first offset that may still be there."""
        ...

    async def end(self) -> int:
        """The offset that the next record will have, or a lower bound of it."""
        ...

    async def offset_at(self, timestamp_ms: int) -> int:
        """The offset of the first record appended at or after *timestamp_ms*, else `end`."""
        ...


class Log(ReadableLog, Protocol):
    """One topic."""

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """Store *entries* in order and return their offsets, when they are safe. No entries: no write.

        Appends of several tasks are ordered by when they were called.

        Raises `EntryTooLarge` for the first entry above the limit, before anything is written; `LogUnavailable` when
        nothing was written and trying again may help; `OutcomeUnknown` when it cannot be said what was written.
        """
        ...


class Logs(Protocol):
    """A place that holds logs: a Kafka cluster, or a file. Entered as an async context manager."""

    async def open(self, topic: Topic) -> Log:
        """Open the log of *topic*, creating it where it does not exist, and verify its settings.

        Raises `TopicMismatch` if it exists with other settings, `LogUnavailable` if the place cannot be reached.
        """
        ...

    async def find(self, topic: Topic) -> ReadableLog:
        """The log of *topic*, to be read only: nothing is created, and no right to write is needed.

        Raises `NoSuchTopic` where it does not exist, `LogUnavailable`.
        """
        ...


def entry_size(entry: Entry) -> int:
    """An upper bound in bytes of what *entry* takes in a batch, uncompressed.

    A Kafka record (KIP-98, message format 2) adds at most 36 bytes of attributes, deltas and lengths, and at most 10
    bytes of lengths per header.
    """
    size = 36 + len(entry.key) + (len(entry.value) if entry.value is not None else 0)
    if not entry.key.isascii():
        size += len(entry.key.encode()) - len(entry.key)
    for name, value in entry.headers:
        size += 10 + len(name.encode()) + len(value)
    return size


def entry_sizes(topic: Topic, entries: Sequence[Entry]) -> list[int]:
    """The sizes of *entries*; raises `EntryTooLarge` for the first that *topic* does not take."""
    limit = topic.max_entry_bytes
    sizes = [entry_size(entry) for entry in entries]
    for entry, size in zip(entries, sizes, strict=True):
        if size > limit:
            raise EntryTooLarge(topic.name, entry.key, size, limit)
    return sizes
