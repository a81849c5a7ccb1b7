"""What a source tells: objects, where a list begins and ends, and what could not be read."""

from typing import Generic, TypeVar

import msgspec

from schemas.events import ClusterInfo, EventType
from schemas.objects import KubernetesObject

T = TypeVar("T", bound=KubernetesObject)


class Observed(msgspec.Struct, Generic[T], gc=False):
    """An object as it is now, or was when it went. Also the shape of a watch line."""

    type: EventType
    object: T


class ListBegun(msgspec.Struct, frozen=True, gc=False):
    """A complete list of *kind* follows. A list that had begun before counts no more."""

    kind: str


class ListComplete(msgspec.Struct, frozen=True, gc=False):
    """Everything of *kind* has been told since `ListBegun`: what was not told does not exist."""

    kind: str


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An object exists, and cannot be read. What the log holds of it stands."""

    kind: str
    namespace: str = ""
    name: str = ""
    """Empty where not even its name can be read; then no list that contains it proves that anything is gone."""
    place: str = ""
    """Where it was read: for an object without a name the only way to find it."""
    reason: str
    resource_version: str = ""


class Trouble(msgspec.Struct, frozen=True, gc=False):
    """Something that a person should know, until it is told again without a reason."""

    subject: str
    """A log key, a kind, a file, or a place in a stream."""
    reason: str = ""
    """Empty: it is over."""


class ClusterSeen(msgspec.Struct, frozen=True, gc=False):
    """What the API server says of itself."""

    info: ClusterInfo


Observation = Observed[KubernetesObject] | ListBegun | ListComplete | Unreadable | Trouble | ClusterSeen
