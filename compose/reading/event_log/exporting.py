"""`eastwest export`: a slice of the log as a file that replays."""

from contextlib import aclosing
from pathlib import Path
from typing import Final

import click

from compose.reading.event_log.ranges import When, end_offset, first_offset
from compose.reading.running import run
from compose.targets import EventLog, Target, with_target
from processors.core.slicing import StateAt
from streams import topics
from streams.log import Record
from streams.sqlite.sqlite_log import SqliteLogs

EXAMPLES: Final = """\b
Examples:
  eastwest export incident.db --since 2h
  eastwest export incident.db --from 120 --to 180
  eastwest replay incident.db --at 150
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@with_target
@click.option("--since", type=When(), help="From this instant, or that long ago (2h).")
@click.option("--until", type=When(), help="Up to this instant.")
@click.option("--from", "from_", type=int, help="From this revision.")
@click.option("--to", type=int, help="Up to this revision.")
def export(target: Target, *, file: Path, **bounds: int | None) -> None:
    """Write a slice of the event log to FILE, with the state at its beginning, so that it stands alone.

    The file is an embedded log: `eastwest events --log FILE` and `eastwest replay FILE` read it.
    """
    if file.exists():
        raise click.UsageError(f"{file} exists; an export does not overwrite")
    run(_export(target, file, bounds))


async def _export(target: Target, file: Path, bounds: dict[str, int | None]) -> None:
    async with target.events() as source:
        log = source.log
        log_end = await log.end()
        start = min(await first_offset(log, bounds["from_"], bounds["since"]), log_end)
        end = await end_offset(log, bounds["to"], bounds["until"])
        end = log_end if end is None else min(end, log_end)
        if end < start:
            raise click.UsageError(
                f"the slice is empty: it would end at revision {end - 1}, before it begins at {start}"
            )
        fresh = file.with_name(f"{file.name}.part")
        fresh.unlink(missing_ok=True)
        try:
            state, slice_ = await _copy(source, fresh, start, end)
            fresh.rename(file)
        finally:
            for leftover in file.parent.glob(f"{file.name}.part*"):
                leftover.unlink()
    click.echo(
        f"{file}: revisions {start} to {end - 1} of {source.cluster}, {slice_} records, "
        f"and {state} that say the state before"
    )


async def _copy(source: EventLog, file: Path, start: int, end: int) -> tuple[int, int]:
    """Write the state before *start* and the records from there to *end*; return how many of each."""
    state: StateAt[Record] = StateAt()
    async with aclosing(source.log.read(0, end=start)) as batches:
        async for batch in batches:
            state.advance([record for record in batch if record.offset < start])
    before, copied = state.records(), 0
    async with SqliteLogs(file) as logs:
        copy = await logs.open(topics.events(source.cluster))
        await copy.load(before, start)
        async with aclosing(source.log.read(start, end=end)) as batches:
            async for batch in batches:
                records = [record for record in batch if record.offset < end]
                await copy.load(records, batch[-1].offset + 1)
                copied += len(records)
    return len(before), copied
