"""From the API server's JSON straight into projected structs.

One decoder per kind reads a whole watch line; fields that no struct names are skipped without being built. Only a
line that this decoder refuses (bookmarks, errors, bad objects) is looked at more closely.
"""

from typing import Final, Generic, TypeVar

import msgspec

from producers.core.observations import Observed, Unreadable
from schemas.events import EventType
from schemas.objects import TYPES, KubernetesObject, Meta
from schemas.unreadable import UNREADABLE

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends a streaming list (KEP-3157)."""

T = TypeVar("T")


class Bookmark(msgspec.Struct, frozen=True, gc=False):
    """Nothing changed up to this version."""

    resource_version: str
    list_complete: bool = False


class Failure(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A ``Status`` of the API server (meta/v1): the body of an error answer, or the object of an ``ERROR`` line."""

    code: int = 0
    reason: str = ""
    message: str = ""
    retry_after_seconds: float = 0.0


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A list, or a part of one."""

    items: list[KubernetesObject]
    unreadable: list[Unreadable]
    resource_version: str
    next_token: str
    """Where the next page begins; empty on the last one."""


class _PageMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Answer(msgspec.Struct, Generic[T]):
    metadata: _PageMeta
    items: list[T] | None = None


class _Identity(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Named(msgspec.Struct):
    metadata: _Identity


class _Envelope(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 0.0


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


# The types are made of values, one per kind: a checker cannot follow, and the table in `schemas.objects` is checked.
_DECODERS: Final = {kind: msgspec.json.Decoder(Observed[type_]) for kind, type_ in TYPES.items()}  # type: ignore[valid-type]
_PAGES: Final = {kind: msgspec.json.Decoder(_Answer[type_]) for kind, type_ in TYPES.items()}  # type: ignore[valid-type]
_OBJECTS: Final = {kind: msgspec.json.Decoder(type_) for kind, type_ in TYPES.items()}
_RAW_PAGE: Final = msgspec.json.Decoder(_Answer[msgspec.Raw])
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_NAMED: Final = msgspec.json.Decoder(_Named)
_STATUS: Final = msgspec.json.Decoder(_Status)

Line = Observed[KubernetesObject] | Bookmark | Failure | Unreadable


def decode_line(kind: str, line: bytes, place: str = "") -> Line:
    """One line of a watch on *kind*; never raises. *place* is named where the line has no readable name of its own."""
    try:
        return _DECODERS[kind].decode(line)
    except UNREADABLE as error:
        return _look_closer(kind, line, place, str(error))


def decode_object(kind: str, data: bytes | msgspec.Raw, place: str = "") -> KubernetesObject | Unreadable:
    """One object of *kind*; never raises."""
    try:
        decoded: KubernetesObject = _OBJECTS[kind].decode(data)
    except UNREADABLE as error:
        return unreadable(kind, data, place, str(error))
    return decoded


def decode_page(kind: str, body: bytes) -> Page:
    """A list answer. Raises `UNREADABLE` for a body that is no list at all."""
    items: list[KubernetesObject] = []
    bad: list[Unreadable] = []
    try:
        answer = _PAGES[kind].decode(body)
        items = answer.items or []
    except UNREADABLE:
        answer = _RAW_PAGE.decode(body)
        for number, data in enumerate(answer.items or [], 1):
            item = decode_object(kind, data, f"item {number} of the list")
            if isinstance(item, Unreadable):
                bad.append(item)
            else:
                items.append(item)
    meta = answer.metadata
    return Page(items=items, unreadable=bad, resource_version=meta.resource_version, next_token=meta.continue_)


def decode_failure(body: bytes, code: int = 0) -> Failure:
    """An error answer with HTTP status *code*; what is not a ``Status`` is quoted, shortened."""
    try:
        status = _STATUS.decode(body)
    except UNREADABLE:
        return Failure(code=code, message=body[:200].decode(errors="replace").strip())
    after = status.details.retry_after_seconds if status.details else 0.0
    return Failure(code=code or status.code, reason=status.reason, message=status.message, retry_after_seconds=after)


def unreadable(kind: str, data: bytes | msgspec.Raw, place: str, reason: str) -> Unreadable:
    """Name the object *data* by its metadata, or else by its *place*."""
    try:
        meta = _NAMED.decode(data).metadata
    except UNREADABLE:
        meta = _Identity()
    return Unreadable(
        kind=kind,
        namespace=meta.namespace,
        name=meta.name,
        place="" if meta.name else place,
        reason=reason,
        resource_version=meta.resource_version,
    )


def _look_closer(kind: str, line: bytes, place: str, reason: str) -> Line:
    try:
        envelope = _ENVELOPE.decode(line)
        if envelope.type == "BOOKMARK":
            meta = _NAMED.decode(envelope.object).metadata
            complete = (meta.annotations or {}).get(INITIAL_EVENTS_END) == "true"
            return Bookmark(meta.resource_version, complete)
    except UNREADABLE as error:
        return Unreadable(kind=kind, place=place, reason=str(error))
    if envelope.type == "ERROR":
        return decode_failure(bytes(envelope.object))
    bad = unreadable(kind, envelope.object, place, reason)
    if envelope.type == EventType.DELETED and bad.name:
        # Its name is all that a deletion needs: what it was last is in the log.
        last = Meta(name=bad.name, namespace=bad.namespace, resource_version=bad.resource_version)
        return Observed(EventType.DELETED, TYPES[kind](metadata=last))
    return bad
