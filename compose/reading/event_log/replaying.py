"""`eastwest replay`: the same folds as the PCE's, on a laptop, over a file."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

import click
import msgspec

from compose.options import with_settings
from compose.reading import columns, policy_text
from compose.reading import output as printing
from compose.reading.event_log.ranges import When, end_offset
from compose.reading.joining import NOTHING
from compose.reading.running import run
from compose.targets import Target
from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from schemas.reports import AnyReport, ContainerWorkload, Profile, Summary, VirtualService, Workload
from streams.log import ReadableLog

EXAMPLES: Final = """\b
Examples:
  eastwest replay incident.db
  eastwest replay incident.db --at 150 -o json > then.json
  eastwest replay incident.db --until 2026-01-02T14:05:00Z
"""

FOLD_RECORDS: Final = 2000


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@with_settings(ProcessorSettings)
@click.option("--at", type=int, help="The state at this revision (default: the last).")
@click.option("--until", type=When(), help="The state at this instant.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def replay(settings: ProcessorSettings, *, file: str, at: int | None, until: int | None, output: str) -> None:
    """Fold FILE (an export, or an embedded log) and print the reports and programs that follow from it.

    The same file and settings give the same output, byte for byte, wherever and however often.
    """
    source = click.get_current_context().get_parameter_source("cluster")
    named = settings.cluster if source is not None and source.name == "COMMANDLINE" else ""
    run(_replay(Target(cluster=named, log=file), settings, output, at, until))


async def _replay(target: Target, settings: ProcessorSettings, output: str, at: int | None, until: int | None) -> None:
    async with target.events() as (cluster, log):
        fold = ClusterFold(cluster, settings.policy)
        await fold_up_to(fold, log, await end_offset(log, at, until))
    reports = fold.inventory.take_changes()
    if output == "json":
        click.echo(printing.document(document(fold, reports), "json"))
    else:
        click.echo("\n".join(_tables(fold, reports)))


async def fold_up_to(fold: ClusterFold, log: ReadableLog, end: int | None) -> None:
    """Fold *log* from its beginning to offset *end* (exclusive), or to its end."""
    async with aclosing(log.read(0, end=end)) as batches:
        async for batch in batches:
            records = [record for record in batch if end is None or record.offset < end]
            for start in range(0, len(records), FOLD_RECORDS):
                fold.advance(records[start : start + FOLD_RECORDS])


def document(fold: ClusterFold, reports: Mapping[str, AnyReport | None]) -> dict[str, Any]:
    """Everything that follows from the log, as one value."""
    return {
        "cluster": fold.inventory.cluster,
        "revision": fold.revision,
        "time": fold.time,
        "reports": {key: msgspec.to_builtins(report) for key, report in reports.items()},
        **policy_text.document(fold.policy()),
    }


def _tables(fold: ClusterFold, reports: Mapping[str, AnyReport | None]) -> list[str]:
    lines = [f"Revision {fold.revision}, newest event {fold.time}"]
    for type_ in (Summary, Workload, ContainerWorkload, VirtualService, Profile):
        found = [report for report in reports.values() if isinstance(report, type_)]
        lines += ["", type_.title]
        for report in found:
            if isinstance(report, Summary):
                lines += columns.summary(report, NOTHING)
        if type_ is not Summary:
            rows = [columns.row(report, NOTHING, False) for report in found]
            lines += printing.aligned([columns.heading(type_, False), *rows])
    policy = fold.policy()
    lines += ["", "Programs"]
    for program in sorted(policy.programs.values(), key=lambda one: (one.namespace, one.name)):
        lines += ["", *policy_text.text(program, policy.sets)]
    return lines
