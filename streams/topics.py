"""Which topics there are, and the settings that each must have (`wire.md`, Kafka)."""

from typing import Final, Literal

import msgspec

from schemas import names

DAY_MS: Final = 24 * 60 * 60 * 1000
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024


class Topic(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One log and how it is kept. It has one partition, so that its offsets are one total order."""

    name: str
    cleanup: Literal["compact", "delete"]
    """``compact``: the newest record per key stays for ever. ``delete``: everything goes when it is old."""
    min_compaction_lag_ms: int = 0
    """Compacted topics: milliseconds for which every record stays, superseded or not."""
    retention_ms: int = -1
    """Deleted topics: milliseconds after which a record may go; -1 keeps for ever."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest batch that the log takes, in bytes, as stored."""

    @property
    def max_entry_bytes(self) -> int:
        """The largest single entry (`streams.log.entry_size`).

        A batch has a header, and a large deletion must leave room for its tombstone in the same batch.
        """
        return self.max_message_bytes - 4096


def events(cluster: str) -> Topic:
    """Every change of the last week, and before that the newest value of every key."""
    return Topic(name=names.events_topic(cluster), cleanup="compact", min_compaction_lag_ms=7 * DAY_MS)


def status(cluster: str) -> Topic:
    """What enforcers confirmed (`schemas.status.Enforcement`), for audit: realized revisions, exceptions, tampering."""
    return Topic(name=names.status_topic(cluster), cleanup="delete", retention_ms=30 * DAY_MS)


def dead(cluster: str) -> Topic:
    """What could not be read, keyed by where it stood."""
    return Topic(name=names.dead_topic(cluster), cleanup="compact")
