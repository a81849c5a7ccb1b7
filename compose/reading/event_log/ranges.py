"""From what a person says to offsets: revisions, instants, and how long ago."""

import re
import time
from datetime import UTC, datetime
from typing import Final

import click

from streams.log import ReadableLog

_AGO: Final = re.compile(r"(\d+)\s*([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class When(click.ParamType[int]):
    """An instant as RFC 3339 (``2026-01-02T14:05:00Z``), or how long ago (``90s``, ``2h``, ``7d``).

    Without a zone it is UTC. Its value is milliseconds since the Unix epoch.
    """

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if match := _AGO.fullmatch(text):
            return int((time.time() - int(match[1]) * _UNITS[match[2]]) * 1000)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither an instant (2026-01-02T14:05:00Z) nor how long ago (2h)", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


async def first_offset(log: ReadableLog, revision: int | None, since_ms: int | None) -> int:
    """Where to begin: at *revision*, or with the first record appended at or after *since_ms*, else at the start."""
    if revision is not None:
        return revision
    return await log.start() if since_ms is None else await log.offset_at(since_ms)


async def end_offset(log: ReadableLog, revision: int | None, until_ms: int | None) -> int | None:
    """Where to end, exclusive: after *revision*, or before what was appended after *until_ms*; ``None``: nowhere."""
    if revision is not None:
        return revision + 1
    return None if until_ms is None else await log.offset_at(until_ms + 1)


def instant(milliseconds: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
