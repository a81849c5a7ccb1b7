"""The event: what Kubelink writes and everyone else folds."""

from enum import StrEnum
from typing import Final

import msgspec

from schemas import names

KINDS: Final = ("Namespace", "Node", "NetworkPolicy", "Service", "EndpointSlice", "Pod")
"""The Kubernetes kinds in the log, in the order in which a fold has least to undo."""

EPOCH: Final = "Epoch"
SYNC: Final = "Sync"
CLUSTER: Final = "Cluster"


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The whole current truth about one object.

    Travels on ``eastwest.<cluster>.events.v1``, keyed ``<Kind>/<namespace or ->/<name>``. Every event stands alone: a
    reader that sees only the newest one per key knows all there is. Its revision is its offset, and is not in it.
    """

    type: EventType
    """``DELETED`` carries the last state; a tombstone follows in the same batch."""
    kind: str
    """One of `KINDS`, or a record about the log itself: ``Epoch``, ``Sync``, ``Cluster``."""
    namespace: str = ""
    """Empty for a cluster-scoped object."""
    name: str
    uid: str = ""
    resource_version: str = ""
    """Opaque: compared for equality only."""
    observed_at: str = ""
    """When Kubelink saw it: RFC 3339, UTC, microseconds."""
    epoch: int = -1
    """Offset of the writer's own ``Epoch`` record; -1 in that record itself, which cannot know it."""
    object: msgspec.Raw = msgspec.Raw(b"{}")
    """The projection (`schemas.objects`); decoded by kind, only by those who need it."""

    @property
    def key(self) -> str:
        return names.key(self.kind, self.namespace, self.name)


class EpochStart(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The object of an ``Epoch/-/-`` event: a writer begins."""

    kinds: tuple[str, ...]
    """The kinds it will list; the log is complete once each has its ``Sync`` in this epoch."""
    writer: str
    """Who writes: host name and process, for people."""


class ClusterInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The object of a ``Cluster/-/-`` event: what the API server says of itself."""

    version: str = ""
    """``gitVersion`` of ``/version``."""
    platform: str = ""
    service_ranges: tuple[str, ...] = ()
    """CIDRs of ``ServiceCIDR`` objects (networking.k8s.io/v1), where the cluster has them and lets us read them."""


class Epochs:
    """Which records count: folds the log's control records.

    Feed every event in offset order to `admit`. A record whose epoch is lower than the highest seen before it comes
    from a writer that was replaced, and is ignored by every reader in the same way.
    """

    def __init__(self) -> None:
        self.current = -1
        """The highest epoch seen; -1 before the first."""
        self.kinds: frozenset[str] = frozenset()
        self.synced: set[str] = set()

    def admit(self, offset: int, event: Event) -> bool:
        """Advance by *event* at *offset*; return whether it counts.

        Raises `msgspec.MsgspecError` for an ``Epoch`` record whose object cannot be read; nothing has changed then.
        """
        if event.kind == EPOCH:
            start = decode_epoch_start(event.object)
            if offset <= self.current:
                return False
            self.current = offset
            self.kinds = frozenset(start.kinds)
            self.synced.clear()
            return True
        if event.epoch < self.current:
            return False
        if event.kind == SYNC and event.type is not EventType.DELETED:
            self.synced.add(event.name)
        return True

    @property
    def complete(self) -> bool:
        """Whether every kind that the current epoch named has been listed in it."""
        return self.current >= 0 and self.kinds <= self.synced


encode_event = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Event).decode
decode_epoch_start = msgspec.json.Decoder(EpochStart).decode
decode_cluster_info = msgspec.json.Decoder(ClusterInfo).decode
encode_object = msgspec.json.Encoder().encode
"""Encodes a projection (or `EpochStart`, `ClusterInfo`) for `Event.object`."""
