"""Events as log entries: JSON values with CloudEvents headers (Kafka protocol binding 1.0, binary mode)."""

from typing import Final

import msgspec

from producers.core.ledger import Held
from schemas import names
from schemas.events import EPOCH, EpochStart, Event, EventType, encode_event, encode_object
from schemas.objects import Meta, Projected
from streams.log import Entry, Headers

_TYPE: Final = {type_: f"io.eastwest.object.{type_.value.lower()}".encode() for type_ in EventType}


Reference = tuple[str, str, str]
"""Kind, namespace (empty for none) and name."""


class Minimal(Projected, frozen=True):
    """All that is known of an object whose last state is lost: its name."""

    metadata: Meta


class Scribe:
    """Writes entries of one epoch of one cluster's log."""

    def __init__(self, cluster: str, epoch: int) -> None:
        self.epoch = epoch
        self._source = f"eastwest/{cluster}".encode()
        self._written = 0

    def state(self, type_: EventType, reference: Reference, held: Held, observed_at: str) -> Entry:
        """An event that says what *held* says of *reference*."""
        kind, namespace, name = reference
        event = Event(
            type=type_,
            kind=kind,
            namespace=namespace,
            name=name,
            uid=held.uid,
            resource_version=held.resource_version,
            observed_at=observed_at,
            epoch=self.epoch,
            object=msgspec.Raw(held.object),
        )
        self._written += 1
        identity = f"{self.epoch}.{self._written}".encode()
        return Entry(event.key, encode_event(event), _headers(self._source, type_, identity, observed_at))

    def deletion(self, reference: Reference, last: Held, observed_at: str) -> tuple[Entry, Entry]:
        """A deletion and its tombstone, which must stand side by side."""
        entry = self.state(EventType.DELETED, reference, last, observed_at)
        return entry, Entry(entry.key, None)


def epoch_entry(cluster: str, start: EpochStart, observed_at: str) -> Entry:
    """The record with which a writer begins; its offset becomes the epoch."""
    event = Event(
        type=EventType.ADDED, kind=EPOCH, name=names.NO_NAMESPACE, observed_at=observed_at, object=_raw(start)
    )
    identity = f"{start.writer}.{observed_at}".encode()
    headers = _headers(f"eastwest/{cluster}".encode(), EventType.ADDED, identity, observed_at)
    return Entry(event.key, encode_event(event), headers)


def minimal(namespace: str, name: str) -> Held:
    """What to say last of an object of which nothing readable is left."""
    return Held("", "", encode_object(Minimal(metadata=Meta(name=name, namespace=namespace))))


def split_key(key: str) -> Reference:
    """What a log key refers to; raises `ValueError` for what is none."""
    kind, namespace, name = key.split("/", 2)
    return kind, "" if namespace == names.NO_NAMESPACE else namespace, name


def _raw(value: msgspec.Struct) -> msgspec.Raw:
    return msgspec.Raw(encode_object(value))


def _headers(source: bytes, type_: EventType, identity: bytes, observed_at: str) -> Headers:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", _TYPE[type_]),
        ("ce_source", source),
        ("ce_id", identity),
        ("ce_time", observed_at.encode()),
        ("content-type", b"application/json"),
    )
