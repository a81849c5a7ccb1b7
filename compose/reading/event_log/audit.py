"""`eastwest events`: the log as an auditor reads it."""

import fnmatch
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import click
import msgspec

from compose.reading import output as printing
from compose.reading.event_log import confirmed
from compose.reading.event_log.ranges import When, end_offset, first_offset, instant
from compose.reading.running import run
from compose.targets import Target, with_target
from schemas.events import CLUSTER, EPOCH, KINDS, SYNC, Event, decode_event
from schemas.unreadable import UNREADABLE
from streams import topics
from streams.log import Record

EXAMPLES: Final = """\b
Examples:
  eastwest events -f                                       follow everything
  eastwest events --since 1h --kind NetworkPolicy -n shop  what changed policy in the last hour
  eastwest events --from 120 --to 180 -o json              a range of revisions, whole, one value per line
  eastwest events --log incident.db --name 'web-*'         of an export
  eastwest events --status --since 1d --name worker-1      what that node's enforcer confirmed, and what went wrong
"""

LEAST_WIDTHS: Final = (8, 24, 10, 13)
CONTROL: Final = (EPOCH, SYNC)
"""Kinds of records about the log itself: told where they are asked for."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records: all conditions hold; names are patterns."""

    kinds: frozenset[str]
    namespace: str = "*"
    name: str = "*"
    control: bool = False
    """Also records about the log itself, and tombstones."""

    def fits(self, record: Record, event: Event | None) -> bool:
        """*event* is ``None`` for a tombstone and for what cannot be read; its key then says whose it is."""
        kind, _, rest = record.key.partition("/")
        namespace, _, name = rest.partition("/")
        if event is not None:
            kind, namespace, name = event.kind, event.namespace, event.name
        if not self.control and (record.value is None or (kind in CONTROL and kind not in self.kinds)):
            return False
        return (
            (not self.kinds or kind in self.kinds)
            and fnmatch.fnmatchcase(namespace, self.namespace)
            and fnmatch.fnmatchcase(name, self.name)
        )


@click.command(epilog=EXAMPLES)
@with_target
@click.option("-f", "--follow", is_flag=True, help="Go on, and print what comes.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*KINDS, *CONTROL, CLUSTER], case_sensitive=False),
    metavar="KIND",
    help="Only this kind; several times for several.",
)
@click.option("-n", "--namespace", default="*", help="Only this namespace (pattern).")
@click.option("--name", default="*", help="Only objects of this name (pattern).")
@click.option("--since", type=When(), help="From this instant, or that long ago (2h).")
@click.option("--until", type=When(), help="Up to this instant.")
@click.option("--from", "from_", type=int, help="From this revision.")
@click.option("--to", type=int, help="Up to this revision.")
@click.option("--control", is_flag=True, help="Also epochs, syncs and tombstones.")
@click.option("--status", is_flag=True, help="Instead: what each node's enforcer confirmed. --name is the node's.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def events(target: Target, *, follow: bool, output: str, status: bool, kinds: tuple[str, ...], **options: Any) -> None:
    """List or follow the event log: what arrived, when, in which order. The revision is the position in the log."""
    if status:
        if kinds or options.pop("namespace") != "*" or options.pop("control"):
            raise click.UsageError("--status is by node: only --name and bounds choose among its records")
        show = confirmed.shown(options.pop("name"), output)
        heading = confirmed.HEADING if output == "table" else ""
        run(_list(target, topics.status, show, heading=heading, follow=follow, bounds=options))
        return
    wanted = Filter(
        kinds=frozenset(kinds),
        **{name: options.pop(name) for name in ("namespace", "name", "control")},
    )
    heading = _aligned(("REVISION", "TIME", "TYPE", "KIND", "OBJECT")) if output == "table" else ""
    run(_list(target, topics.events, _shown(wanted, output), heading=heading, follow=follow, bounds=options))


Show = Callable[[Record], str]
"""A record as one line; empty: it was not asked for."""


async def _list(
    target: Target,
    topic: Callable[[str], topics.Topic],
    show: Show,
    *,
    heading: str,
    follow: bool,
    bounds: dict[str, int | None],
) -> None:
    async with target.events(topic) as (_, log):
        start = await first_offset(log, bounds["from_"], bounds["since"])
        end = await end_offset(log, bounds["to"], bounds["until"])
        if heading:
            click.echo(heading)
        async with aclosing(log.read(start, follow=follow, end=end)) as batches:
            async for batch in batches:
                for record in batch:
                    if text := show(record):
                        click.echo(text)


def _shown(wanted: Filter, output: str) -> Show:
    def show(record: Record) -> str:
        event, problem = _decode(record)
        if not wanted.fits(record, event):
            return ""
        return _line(record, event, problem) if output == "json" else _row(record, event, problem)

    return show


def _decode(record: Record) -> tuple[Event | None, str]:
    if record.value is None:
        return None, ""
    try:
        return decode_event(record.value), ""
    except UNREADABLE as error:
        return None, str(error)


def _row(record: Record, event: Event | None, problem: str) -> str:
    if event is None:
        kind, _, rest = record.key.partition("/")
        return _aligned(
            (
                record.offset,
                instant(record.timestamp),
                "UNREADABLE" if problem else "TOMBSTONE",
                kind,
                f"{rest} {problem}",
            )
        )
    place = f"{event.namespace}/{event.name}" if event.namespace else event.name
    return _aligned((record.offset, instant(record.timestamp), event.type, event.kind, place))


def _aligned(cells: tuple[object, ...]) -> str:
    return printing.aligned([cells], LEAST_WIDTHS)[0]


def _line(record: Record, event: Event | None, problem: str) -> str:
    found: dict[str, Any] = {"revision": record.offset, "time": instant(record.timestamp), "key": record.key}
    if event is not None:
        found |= msgspec.json.decode(record.value or b"")
    elif problem:
        found["unreadable"] = problem
    else:
        found["tombstone"] = True
    return printing.line(found)
