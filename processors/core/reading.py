"""Reading the log: records become facts, once, for every fold.

    records ──▶ Reader ──▶ Batch(facts, poison, revision, time) ──▶ folds

What counts is decided here and nowhere else: epochs, tombstones, deletions, an object that was replaced by another of
the same name. A fold sees only *this object is now so* and *this object is gone*.
"""

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from schemas import names
from schemas.events import CLUSTER, EPOCH, KINDS, SYNC, ClusterInfo, Epochs, Event
from schemas.objects import KubernetesObject
from schemas.records import read_object, read_record
from schemas.unreadable import UNREADABLE

_KNOWN: Final = frozenset((*KINDS, CLUSTER))


class Record(Protocol):
    """What a log yields; `streams.log.Record` is one."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> bytes | None: ...


class Fact(msgspec.Struct, frozen=True):
    """The whole truth about one object as of *offset*."""

    kind: str
    """One of `schemas.events.KINDS`, or ``Cluster``."""
    namespace: str
    name: str
    uid: str
    object: KubernetesObject | ClusterInfo | None
    """``None``: the object is gone."""
    offset: int
    """The revision."""

    @property
    def key(self) -> str:
        """The log key: ``<Kind>/<namespace or ->/<name>``."""
        return names.key(self.kind, self.namespace, self.name)


class Poison(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be read. What was known about its key before stands."""

    offset: int
    key: str
    reason: str


class Batch(msgspec.Struct, frozen=True):
    """What some records of the log say, in their order."""

    facts: tuple[Fact, ...] = ()
    poison: tuple[Poison, ...] = ()
    revision: int = -1
    """Offset of the newest record read so far, whether it counted or not; -1 before the first."""
    time: str = ""
    """``observed_at`` of the newest event that counted so far."""


class Reader:
    """Reads one cluster's events in offset order, from the log's beginning.

    A tombstone carries no epoch. It deletes its key, unless the record of that key right before it did not count (it
    was unreadable, or its writer had been replaced): then the tombstone belongs to that record and does not count
    either. Kubelink, which folds its own topic by the same rule, writes such a key again.
    """

    def __init__(self) -> None:
        self._epochs = Epochs()
        self._uids: dict[str, str] = {}  # of what exists
        self._discounted: set[str] = set()  # keys whose newest record does not count
        self._revision = -1
        self._time = ""

    @property
    def complete(self) -> bool:
        """Whether every kind that the current epoch named has been listed in it."""
        return self._epochs.complete

    @property
    def waiting_for(self) -> frozenset[str] | None:
        """The kinds that the current epoch named and has not listed yet; ``None`` before the first epoch."""
        return self._epochs.kinds - self._epochs.synced if self._epochs.current >= 0 else None

    @property
    def epoch(self) -> int:
        """The current epoch; -1 before the first."""
        return self._epochs.current

    def read(self, records: Iterable[Record]) -> Batch:
        """Advance by *records*; what cannot be read is named in the batch and stops nothing else."""
        facts: list[Fact] = []
        poison: list[Poison] = []
        for record in records:
            self._revision = record.offset
            if record.value is None:
                self._bury(record, facts)
                continue
            try:
                self._take(record.offset, read_record(record.key, record.value), facts)
            except UNREADABLE as error:
                poison.append(Poison(record.offset, record.key, str(error)))
                self._discounted.add(record.key)
        return Batch(tuple(facts), tuple(poison), self._revision, self._time)

    def _take(self, offset: int, event: Event, facts: list[Fact]) -> None:
        key = event.key
        if not self._epochs.admit(offset, event):
            self._discounted.add(key)
            return
        if event.kind in (EPOCH, SYNC):
            self._time = event.observed_at or self._time
            return
        if event.kind not in _KNOWN:  # a kind of a later version: its readers are newer than this one
            return
        found = read_object(event)
        self._time = event.observed_at or self._time
        self._discounted.discard(key)
        if found is None:
            if (known := self._uids.pop(key, None)) is not None:
                facts.append(Fact(event.kind, event.namespace, event.name, known, None, offset))
            return
        before = self._uids.get(key)
        if before is not None and before != event.uid:
            facts.append(Fact(event.kind, event.namespace, event.name, before, None, offset))
        self._uids[key] = event.uid
        facts.append(Fact(event.kind, event.namespace, event.name, event.uid, found, offset))

    def _bury(self, record: Record, facts: list[Fact]) -> None:
        """Apply a tombstone: nothing, where its key is not known to exist."""
        if record.key in self._discounted:
            return
        uid = self._uids.pop(record.key, None)
        if uid is None:
            return
        kind, namespace, name = record.key.split("/", 2)
        facts.append(Fact(kind, "" if namespace == names.NO_NAMESPACE else namespace, name, uid, None, record.offset))
