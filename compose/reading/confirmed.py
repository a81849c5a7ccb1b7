"""`eastwest events --status`: what enforcers confirmed, as an auditor reads it."""

import fnmatch
from collections.abc import Callable
from typing import Any, Final

import msgspec

from compose.reading import output as printing
from compose.reading.ranges import instant
from schemas.status import Cut, Enforcement, Tampering, decode_enforcement
from schemas.unreadable import UNREADABLE
from streams.log import Record

LEAST_WIDTHS: Final = (8, 24, 16, 8, 6)


def _aligned(cells: tuple[object, ...]) -> str:
    return printing.aligned([cells], LEAST_WIDTHS)[0]


HEADING: Final = _aligned(("OFFSET", "TIME", "NODE", "REALIZED", "HEALED", "SAYS"))


def shown(node: str, output: str) -> Callable[[Record], str]:
    """How to print a record of a node whose name fits the pattern *node*, as a line; empty for others.

    Tampering is told in the first line that knows of it, and again when it was put back; a cut connection once, though
    records repeat it as long as it is among the newest. Documents are whole.
    """
    told: set[Tampering | Cut] = set()

    def show(record: Record) -> str:
        if not fnmatch.fnmatchcase(record.key, node):
            return ""
        return printing.line(_document(record)) if output == "json" else _row(record, told)

    return show


def _row(record: Record, told: set[Tampering | Cut]) -> str:
    said, problem = _decode(record)
    place = (record.offset, instant(record.timestamp), record.key)
    if said is None:
        return _aligned((*place, "", "", f"UNREADABLE {problem}"))
    modes = {"observing": said.observing, "paused": said.paused, "from disk": said.from_disk}
    words = [
        *(word for word, holds in modes.items() if holds),
        *map(str, said.orders),
        *(f"not {each.namespace}/{each.name}: {each.reason}" for each in said.exceptions),
        *said.problems,
        *(str(each) for each in (*said.tampering, *said.cuts) if each not in told),
    ]
    told.update(said.tampering, said.cuts)
    return _aligned((*place, said.realized, said.healed, "; ".join(words)))


def _document(record: Record) -> dict[str, Any]:
    said, problem = _decode(record)
    told = {"unreadable": problem} if said is None else msgspec.to_builtins(said)
    return {"offset": record.offset, "time": instant(record.timestamp), **told}


def _decode(record: Record) -> tuple[Enforcement | None, str]:
    try:
        return decode_enforcement(record.value or b""), ""
    except UNREADABLE as error:
        return None, str(error)
