"""What a record of an events topic says: the one rule by which every fold of it reads."""

import msgspec

from schemas.events import CLUSTER, KINDS, ClusterInfo, Event, EventType, decode_cluster_info, decode_event
from schemas.objects import KubernetesObject, decode_object


def read_record(key: str, value: bytes) -> Event:
    """The event in a record. Raises `schemas.unreadable.UNREADABLE`, also for one that stands under another's key.

    Compaction goes by the record's key: what an event under a foreign key says could outlive, or undo, what its own
    key says.
    """
    event = decode_event(value)
    if event.key != key:
        raise msgspec.ValidationError(f"it says of itself that it is {event.key}")
    return event


def read_object(event: Event) -> KubernetesObject | ClusterInfo | None:
    """What exists, as *event* shows it. Raises `schemas.unreadable.UNREADABLE`.

    ``None`` for a deletion, for what is about the log itself, and for a kind of a later version.
    """
    if event.type is not EventType.DELETED:
        if event.kind in KINDS:
            return decode_object(event.kind, event.object)
        if event.kind == CLUSTER:
            return decode_cluster_info(event.object)
    return None
