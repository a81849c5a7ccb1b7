"""The file of the embedded log: its format, and every statement that touches it. Synchronous; knows no event loop.

One SQLite database in WAL mode. Each topic has a table of records whose rowid is the offset, so that an append goes to
the end of the tree. A topic's next offset is stored beside it: offsets are never given twice, whatever was removed.

The write-ahead log is not synced at every commit (``synchronous=NORMAL``): a killed process loses nothing, a power cut
may lose the newest commits but never tears one. That is what a single Kafka broker promises as well.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import LogCorrupt, LogUnavailable, NoSuchTopic, NotALog, TopicMismatch
from streams.log import Entry, Headers, Record
from streams.topics import Topic

APPLICATION_ID: Final = 0x65776C67
"""``ewlg``: in the file's header, so that it is recognized by its content."""
FORMAT: Final = 1
BUSY_SECONDS: Final = 10.0
"""How long a commit of another process is waited for."""
PAGE_BYTES: Final = 8192
"""An eighth quicker than SQLite's default for batches of 1 kB records, as much slower for single ones."""
BATCH_RECORDS: Final = 1000
BATCH_BYTES: Final = 4 * 1024 * 1024

_CREATE: Final = """
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, settings BLOB NOT NULL,
        first_offset INTEGER NOT NULL DEFAULT 0, next_offset INTEGER NOT NULL DEFAULT 0,
        last_timestamp INTEGER NOT NULL DEFAULT 0
    ) STRICT
"""
_RECORDS: Final = """
    CREATE TABLE records_{id} (
        offset INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, headers BLOB
    ) STRICT
"""

_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(Headers).decode
_encode_topic = msgspec.json.Encoder().encode
_decode_topic = msgspec.json.Decoder(Topic).decode

_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
    }
)


class LogFile:
    """One connection to the file. Use it from one thread at a time."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file, creating it where there is none; with *read_only* it and its folder stay as they are.

        Raises `NotALog` for a file that is something else, `LogUnavailable` where it cannot be opened.
        """
        self._path = path
        self._read_only = read_only
        with self._translating():
            self._connection = sqlite3.connect(
                _to_be_read(path) if read_only else path,
                uri=read_only,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        try:
            with self._translating():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close; the last connection to the file also empties its write-ahead log."""
        self._connection.close()

    def open_topic(self, topic: Topic) -> int:
        """The id of *topic*, which is created where it does not exist; raises `TopicMismatch`."""
        with self._transaction() as connection:
            row = connection.execute("SELECT id, settings FROM topics WHERE name = ?", (topic.name,)).fetchone()
            if row is None:
                settings = _encode_topic(topic)
                cursor = connection.execute("INSERT INTO topics (name, settings) VALUES (?, ?)", (topic.name, settings))
                identity = int(cursor.lastrowid or 0)
                connection.execute(_RECORDS.format(id=identity))
                return identity
        wanted, found = msgspec.structs.asdict(topic), msgspec.structs.asdict(_decode_topic(row[1]))
        differences = {name: (str(wanted[name]), str(found[name])) for name in wanted if wanted[name] != found[name]}
        if differences:
            raise TopicMismatch(topic.name, differences)
        return int(row[0])

    def find_topic(self, name: str) -> int:
        """The id of the topic *name*; raises `NoSuchTopic`."""
        with self._translating():
            row = self._connection.execute("SELECT id FROM topics WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NoSuchTopic(str(self._path), name)
        return int(row[0])

    def topics(self) -> list[Topic]:
        """The topics in the file, by name."""
        with self._translating():
            return [
                _decode_topic(row[0]) for row in self._connection.execute("SELECT settings FROM topics ORDER BY name")
            ]

    def append(self, batches: Sequence[tuple[int, Sequence[Entry]]], now_ms: int) -> list[int]:
        """Write *batches* (topic id, entries) in one transaction; return the first offset of each."""
        firsts: list[int] = []
        with self._transaction() as connection:
            for identity, entries in batches:
                first, last_timestamp = connection.execute(
                    "SELECT next_offset, last_timestamp FROM topics WHERE id = ?", (identity,)
                ).fetchone()
                # The clock may step back; timestamps that only rise keep `offset_at` a search.
                timestamp = max(now_ms, last_timestamp)
                connection.executemany(
                    f"INSERT INTO records_{identity} VALUES (?, ?, ?, ?, ?)",
                    [
                        (offset, timestamp, entry.key, entry.value, _packed(entry.headers))
                        for offset, entry in enumerate(entries, first)
                    ],
                )
                connection.execute(
                    "UPDATE topics SET next_offset = ?, last_timestamp = ? WHERE id = ?",
                    (first + len(entries), timestamp, identity),
                )
                firsts.append(first)
        return firsts

    def load(self, identity: int, records: Sequence[Record], next_offset: int) -> None:
        """Write *records* with their own offsets and timestamps, behind what is there (for an export).

        Raises `ValueError` where they do not rise from the topic's next offset, or reach *next_offset*.
        """
        with self._transaction() as connection:
            expected, last_timestamp = connection.execute(
                "SELECT next_offset, last_timestamp FROM topics WHERE id = ?", (identity,)
            ).fetchone()
            for record in records:
                if record.offset < expected:
                    raise ValueError(f"offset {record.offset} stands where {expected} or a later one belongs")
                expected = record.offset + 1
                last_timestamp = max(last_timestamp, record.timestamp)
            if next_offset < expected:
                raise ValueError(f"the next offset cannot be {next_offset} after {expected - 1}")
            connection.executemany(
                f"INSERT INTO records_{identity} VALUES (?, ?, ?, ?, ?)",
                [(r.offset, r.timestamp, r.key, r.value, _packed(r.headers)) for r in records],
            )
            connection.execute(
                "UPDATE topics SET next_offset = ?, last_timestamp = ? WHERE id = ?",
                (next_offset, last_timestamp, identity),
            )

    def bounds(self, identity: int) -> tuple[int, int]:
        """The first offset that may be there, and the next one to be given."""
        with self._translating():
            row = self._connection.execute(
                "SELECT first_offset, next_offset FROM topics WHERE id = ?", (identity,)
            ).fetchone()
        return int(row[0]), int(row[1])

    def read(self, identity: int, name: str, start: int, end: int | None) -> list[Record]:
        """A batch of records in [*start*, *end*), bounded in count and bytes; empty: there are none."""
        query = f"SELECT offset, timestamp, key, value, headers FROM records_{identity} WHERE offset >= ?"
        bounds = (start,) if end is None else (start, end)
        records: list[Record] = []
        size = 0
        with self._translating(name, start):
            for offset, timestamp, key, value, headers in self._connection.execute(
                f"{query}{'' if end is None else ' AND offset < ?'} ORDER BY offset LIMIT {BATCH_RECORDS}", bounds
            ):
                records.append(Record(offset, timestamp, key, value, _decode_headers(headers) if headers else ()))
                size += len(value) if value is not None else 0
                if size >= BATCH_BYTES:
                    break
        return records

    def offset_at(self, identity: int, timestamp_ms: int) -> int:
        """The first offset with a timestamp at or after *timestamp_ms*, else the next one to be given.

        Timestamps rise with offsets, so a binary search over offsets (with gaps) needs no index.
        """
        low, end = self.bounds(identity)
        high = end
        while low < high:
            middle = (low + high) // 2
            with self._translating():
                row = self._connection.execute(
                    f"SELECT offset, timestamp FROM records_{identity} WHERE offset >= ? ORDER BY offset LIMIT 1",
                    (middle,),
                ).fetchone()
            if row is None or row[0] >= high or row[1] >= timestamp_ms:
                high = middle
            else:
                low = row[0] + 1
        with self._translating():
            row = self._connection.execute(
                f"SELECT min(offset) FROM records_{identity} WHERE offset >= ?", (low,)
            ).fetchone()
        return end if row[0] is None else int(row[0])

    def expired(self, identity: int, topic: Topic, now_ms: int) -> list[int]:
        """The offsets that *topic*'s settings let go at *now_ms*. Offsets never change.

        Compacted: of the records older than the lag, all but the newest per key, and that too if it is a tombstone.
        The newest *among the old ones* stays even where a younger one supersedes it: whoever goes back as far as the
        lag finds a complete state there. Kafka's cleaner keeps the same.
        """
        compacts = topic.cleanup == "compact"
        if not compacts and topic.retention_ms < 0:
            return []
        young = self.offset_at(identity, now_ms - (topic.min_compaction_lag_ms if compacts else topic.retention_ms))
        old = f"FROM records_{identity} WHERE offset < :young"
        if compacts:
            newest = f"SELECT max(offset) {old} GROUP BY key"
            old += f" AND (value IS NULL OR offset NOT IN ({newest}))"
        with self._translating():
            return [row[0] for row in self._connection.execute(f"SELECT offset {old}", {"young": young})]

    def remove(self, identity: int, topic: Topic, offsets: Sequence[int]) -> None:
        """Let the records at *offsets* go."""
        records = f"records_{identity}"
        with self._transaction() as connection:
            connection.executemany(f"DELETE FROM {records} WHERE offset = ?", [(offset,) for offset in offsets])
            if topic.cleanup == "delete":
                oldest = f"SELECT min(offset) FROM {records}"
                connection.execute(
                    f"UPDATE topics SET first_offset = coalesce(({oldest}), next_offset) WHERE id = ?", (identity,)
                )

    def _prepare(self) -> None:
        """Recognize the file before changing anything in it; make a new one a log."""
        execute = self._connection.execute
        new = self._is_new()
        if self._read_only:
            return
        execute(f"PRAGMA page_size = {PAGE_BYTES}")  # heeded by a new file only
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        if not new:
            return
        with self._transaction():
            if self._is_new():  # another process may have been quicker
                execute(f"PRAGMA application_id = {APPLICATION_ID}")
                execute(f"PRAGMA user_version = {FORMAT}")
                execute(_CREATE)

    def _is_new(self) -> bool:
        execute = self._connection.execute
        application = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        if application == APPLICATION_ID:
            if version != FORMAT:
                raise NotALog(str(self._path), f"its format is {version}, this program reads {FORMAT}")
            return False
        if application or version or execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise NotALog(str(self._path), "it is another program's SQLite database")
        return True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translating():
            # Immediate: a transaction that reads first and writes then would fail where another one wrote in between.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _translating(self, topic: str = "", offset: int = -1) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
            if code == sqlite3.SQLITE_NOTADB:
                raise NotALog(str(self._path), "it is not a SQLite database") from error
            if code == sqlite3.SQLITE_CORRUPT:
                raise LogCorrupt(topic or str(self._path), offset, str(error)) from error
            if code in _UNAVAILABLE:
                raise LogUnavailable(str(self._path), str(error)) from error
            raise


def _to_be_read(path: Path) -> str:
    """The URI by which SQLite only reads *path*. Without a write-ahead log nobody writes, and none can be made for a
    reader that may not write: so it is declared immutable."""
    alone = not path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"


def _packed(headers: Headers) -> bytes | None:
    return _encode_headers(headers) if headers else None
