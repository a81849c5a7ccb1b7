"""What the cluster's log holds: a fold of Kubelink's own topic, which is all the memory it has."""

from typing import Final

import msgspec

from schemas.events import CLUSTER, EPOCH, KINDS, SYNC, Epochs, Event, EventType
from schemas.records import read_object, read_record
from schemas.unreadable import UNREADABLE
from streams.log import Record

_KINDS: Final = frozenset((*KINDS, EPOCH, SYNC, CLUSTER))


class Held(msgspec.Struct, frozen=True, gc=False):
    """An object as its newest record that counts shows it."""

    uid: str
    resource_version: str
    object: bytes
    """The projection, encoded: compared as a whole, written again as it is."""


class Fault(msgspec.Struct, frozen=True, gc=False):
    """A record in the topic that cannot be read."""

    offset: int
    key: str
    reason: str


class Ledger:
    """Per key what counts, and whether the physically newest record is one that counts.

    A key is *unsound* if its newest record is one that readers ignore (unreadable, or of a writer that was replaced),
    a deletion without its tombstone, or a tombstone without its deletion. Compaction would keep just that record, so
    an unsound key is written again by whoever holds the epoch.
    """

    def __init__(self) -> None:
        self.epochs = Epochs()
        self.objects: dict[str, dict[str, Held]] = {kind: {} for kind in _KINDS}
        """Kind → key → what is held."""
        self.unsound: dict[str, set[str]] = {kind: set() for kind in _KINDS}
        """Kind → keys."""

    def __repr__(self) -> str:
        held = {kind: len(objects) for kind, objects in self.objects.items() if objects}
        return f"Ledger(epoch={self.epochs.current}, held={held}, unsound={sum(map(len, self.unsound.values()))})"

    def fold(self, record: Record) -> Fault | None:
        """Advance by one record, in offset order. Returns what is wrong with it, if it cannot be read."""
        kind = record.key.partition("/")[0]
        if kind not in _KINDS or record.key.count("/") != 2:
            return Fault(record.offset, record.key, "its key names no kind that is written here")
        if record.value is None:
            self._tombstone(kind, record.key)
            return None
        try:
            event = read_record(record.key, record.value)
            if counts := self.epochs.admit(record.offset, event):
                read_object(event)  # readers could not read it either: it must not stay the newest of its key
        except UNREADABLE as error:
            self.unsound[kind].add(record.key)
            return Fault(record.offset, record.key, str(error))
        if counts:
            self._count(event, record.key)
        else:
            self.unsound[kind].add(record.key)
        return None

    def keep(self, kind: str, key: str, held: Held) -> None:
        """*held* has been, or is about to be, written as the newest record of *key*."""
        self.objects[kind][key] = held
        self.unsound[kind].discard(key)

    def drop(self, kind: str, key: str) -> None:
        """A deletion of *key* and its tombstone have been, or are about to be, written."""
        self.objects[kind].pop(key, None)
        self.unsound[kind].discard(key)

    def _count(self, event: Event, key: str) -> None:
        if event.type is EventType.DELETED:
            self.objects[event.kind].pop(key, None)
            self.unsound[event.kind].add(key)  # until its tombstone comes
        else:
            self.keep(event.kind, key, Held(event.uid, event.resource_version, bytes(event.object)))

    def _tombstone(self, kind: str, key: str) -> None:
        if key in self.objects[kind]:
            self.unsound[kind].add(key)
        else:
            self.unsound[kind].discard(key)
