"""Recorded watch streams, in the API server's own line format, as observations.

A line is ``{"type": …, "object": …}``; its kind is the object's. A capture that does not say where its initial list
ends (by the bookmark of a streaming list) is taken to list while it only adds.
"""

from collections.abc import Iterable, Iterator

import msgspec

from producers.core.decoding import Bookmark, Failure, decode_line, decode_page
from producers.core.observations import ListBegun, ListComplete, Observation, Observed, Trouble
from schemas.events import EventType
from schemas.unreadable import UNREADABLE


class _Kind(msgspec.Struct):
    kind: str = ""


class _Line(msgspec.Struct):
    object: _Kind = msgspec.field(default_factory=_Kind)


class _Whole(msgspec.Struct):
    kind: str
    items: msgspec.Raw


_LINE = msgspec.json.Decoder(_Line)
_WHOLE = msgspec.json.Decoder(_Whole)


class Capture:
    """Turns what was recorded into observations of *kinds*; begin and end it around all files of one capture."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self._listing = set(kinds)

    def begin(self) -> list[Observation]:
        return [ListBegun(kind) for kind in self._kinds]

    def end(self) -> list[Observation]:
        """Every list that is still open is complete."""
        return list(self._complete(self._kinds))

    def file(self, body: bytes, name: str) -> Iterator[Observation]:
        """One recorded file: a single list (``PodList`` …), or a watch stream."""
        kind = list_kind(body)
        if not kind:
            yield from self.lines(body.split(b"\n"), name, cut=not body.endswith(b"\n"))
        elif kind not in self._kinds:
            yield Trouble(name, f"a list of {kind} is ignored")
        else:
            page = decode_page(kind, body)
            yield from (Observed(EventType.ADDED, item) for item in page.items)
            yield from page.unreadable

    def lines(self, lines: Iterable[bytes], name: str, *, cut: bool = False) -> Iterator[Observation]:
        """The lines of one stream; *cut*: the last one may lack its end."""
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        for index, (number, line) in enumerate(numbered):
            place = f"{name}, line {number}"
            try:
                kind = _LINE.decode(line).object.kind
            except UNREADABLE as error:
                last = cut and index == len(numbered) - 1
                yield Trouble(place, f"{'cut off; dropped' if last else 'no watch line; dropped'}: {error}")
                continue
            if kind == "Status":
                kind = self._kinds[0]  # an ERROR line is read alike for every kind
            if kind not in self._kinds:
                yield Trouble(place, f"{kind or 'an object without kind'} is ignored")
                continue
            yield from self._line(kind, line, place)

    def _line(self, kind: str, line: bytes, place: str) -> Iterator[Observation]:
        item = decode_line(kind, line, place)
        if isinstance(item, Bookmark):
            if item.list_complete:
                yield from self._complete([kind])
        elif isinstance(item, Failure):
            yield Trouble(place, f"the API server said {item.code} {item.reason}: {item.message}")
        else:
            if isinstance(item, Observed) and item.type is not EventType.ADDED:
                yield from self._complete([kind])
            yield item

    def synced(self, kind: str) -> Iterator[Observation]:
        """The recorded list of *kind* is complete here."""
        yield from self._complete([kind])

    def _complete(self, kinds: Iterable[str]) -> Iterator[Observation]:
        for kind in kinds:
            if kind in self._listing:
                self._listing.discard(kind)
                yield ListComplete(kind)


def list_kind(body: bytes) -> str:
    """The kind whose list *body* is; empty where it is no list."""
    try:
        return _WHOLE.decode(body).kind.removesuffix("List")
    except UNREADABLE:
        return ""
