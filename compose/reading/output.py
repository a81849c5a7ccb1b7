"""How values are printed: aligned columns, JSON, YAML."""

import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Final

import click
import msgspec

WIDTH: Final = 120
"""Of a terminal that people are expected to have."""
GAP: Final = "  "
"""Between columns."""
FORMATS: Final = ("table", "wide", "json", "yaml")

with_format = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
)


def aligned(rows: Iterable[Sequence[object]], least: Sequence[int] = ()) -> list[str]:
    """*rows* as lines, each column as wide as its widest cell and at least as *least* says; an empty cell is ``-``."""
    found = list(rows)
    wide = widths(found, least)
    return [
        GAP.join(_cell(value).ljust(width) for value, width in zip(row, wide, strict=False)).rstrip() for row in found
    ]


def widths(rows: Sequence[Sequence[object]], least: Sequence[int] = ()) -> list[int]:
    """The width of each column of *rows*."""
    columns = zip_longest(least, *([len(_cell(value)) for value in row] for row in rows), fillvalue=0)
    return [max(column) for column in columns]


def _cell(value: object) -> str:
    return "-" if value in ("", None) else str(value)


def document(value: Any, output: str) -> str:
    """*value* as JSON (indented) or YAML, names sorted: equal values are equal text, whatever made them."""
    encoded = msgspec.json.encode(value, order="sorted")
    if output == "yaml":
        import yaml

        text: str = yaml.safe_dump(msgspec.json.decode(encoded), sort_keys=True, default_flow_style=False)
        return text.rstrip()
    return msgspec.json.format(encoded, indent=2).decode()


def line(value: Any) -> str:
    """*value* as JSON on one line, names sorted."""
    return msgspec.json.encode(value, order="sorted").decode()


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 Pod``, ``2 Pods``; *plural* where it is not *singular* with an s."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """*text* in lines of at most `WIDTH`, broken at spaces only; all but the first begin with *indent*."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def age(then: str, now: float) -> str:
    """How long ago *then* (RFC 3339) was, as a person says it: ``42s``, ``7m``, ``3h``, ``12d``; empty if unknown."""
    try:
        moment = datetime.fromisoformat(then)
    except ValueError:
        return ""
    return duration(now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def duration(seconds: float) -> str:
    """``42s``, ``7m``, ``3h``, ``12d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
