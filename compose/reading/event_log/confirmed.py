"""`eastwest events --status`: what enforcers confirmed, as an auditor reads it."""

import fnmatch
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from compose.reading import output as printing
from compose.reading.event_log.ranges import instant
from schemas.status import Cut, Enforcement, Tampering, decode_enforcement
from schemas.unreadable import UNREADABLE
from streams.log import Record

INDENT: Final = " " * 10
"""Below the times."""
LEAST_WIDTHS: Final = (8, 24, 16, 8, 6)


def _aligned(cells: tuple[object, ...]) -> str:
    return printing.aligned([cells], LEAST_WIDTHS)[0]


HEADING: Final = _aligned(("OFFSET", "TIME", "NODE", "REALIZED", "HEALED", "SAYS"))


def shown(node: str, output: str) -> Callable[[Record], str]:
    """How to print a record of a node whose name fits the pattern *node*; empty for others.

    A line that says where it stands, and below it, indented, what a node says for the first time and what it says no
    more. Tampering is told when it is found, and again when it was put back; a cut connection once, though records
    repeat it as long as it is among the newest. Documents are lines, and whole.
    """
    before: dict[str, Told] = {}

    def show(record: Record) -> str:
        if not fnmatch.fnmatchcase(record.key, node):
            return ""
        if output == "json":
            return printing.line(_document(record))
        said, problem = _decode(record)
        place = (record.offset, instant(record.timestamp), record.key)
        if said is None:
            return _aligned((*place, "", "", f"UNREADABLE {problem}"))
        known = before.setdefault(record.key, Told())
        return "\n".join([_aligned((*place, said.realized, said.healed, _mode(said))), *known.news(said)])

    return show


class Told:
    """What was printed of one node."""

    def __init__(self) -> None:
        self._standing: dict[str, None] = {}
        self._happened: set[Tampering | Cut] = set()

    def news(self, said: Enforcement) -> Iterator[str]:
        """The lines below a record that says *said*."""
        orders = tuple(map(str, said.orders))
        exceptions = (each for each in said.exceptions if each.reason not in orders)
        unable = (f"not {each.namespace}/{each.name}: {each.reason}" for each in exceptions)
        standing = dict.fromkeys((*orders, *unable, *said.problems))
        happened: tuple[Tampering | Cut, ...] = (*said.tampering, *said.cuts)
        yield from (f"{INDENT}{each}" for each in standing if each not in self._standing)
        yield from (f"{INDENT}{each.time}  {each}" for each in happened if each not in self._happened)
        yield from (f"{INDENT}no more: {each}" for each in self._standing if each not in standing)
        self._standing = standing
        self._happened.update(happened)


def _mode(said: Enforcement) -> str:
    modes = {"observing": said.observing, "paused": said.paused, "from disk": said.from_disk}
    counts = ((len(said.exceptions), "exception"), (len(said.problems), "problem"))
    return ", ".join(
        [
            *(word for word, holds in modes.items() if holds),
            *(printing.counted(number, what) for number, what in counts if number),
        ]
    )


def _document(record: Record) -> dict[str, Any]:
    said, problem = _decode(record)
    told = {"unreadable": problem} if said is None else msgspec.to_builtins(said)
    return {"offset": record.offset, "time": instant(record.timestamp), **told}


def _decode(record: Record) -> tuple[Enforcement | None, str]:
    try:
        return decode_enforcement(record.value or b""), ""
    except UNREADABLE as error:
        return None, str(error)
