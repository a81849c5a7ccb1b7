"""`eastwest get`: the five reports, and programs."""

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Final

import click
import msgspec

from compose.command import LazyGroup, Part
from compose.reading import columns, output
from compose.reading.joining import Spoken, joined
from compose.reading.output import with_format
from compose.reading.presence import require_stream
from compose.reading.running import run
from compose.reading.selecting import Test, label_test
from compose.targets import Target, with_target
from schemas import names
from schemas.policy import decode_mark
from schemas.reports import (
    AnyReport,
    ContainerWorkload,
    Profile,
    Summary,
    VirtualService,
    Workload,
    decode_report,
    report_key,
)
from streams.channels.inventory_bucket import stream_name, watch_inventory
from streams.channels.status import read_status
from streams.errors import ReadFailed
from streams.nats.nats_bus import NatsBus

PLACE: Final = "compose.reading.get"

PARTS: Final = {
    "summary": Part(f"{PLACE}:summary", "The cluster, its components, and what is wrong."),
    "workloads": Part(f"{PLACE}:workloads", "Nodes."),
    "container-workloads": Part(f"{PLACE}:container_workloads", "Pods, with the containers inside."),
    "virtual-services": Part(f"{PLACE}:virtual_services", "Services, with their resolved back-ends."),
    "profiles": Part(f"{PLACE}:profiles", "Namespaces: how their Pods are managed."),
    "programs": Part("compose.reading.programs:programs", "What each Pod enforces, and the policy behind each rule."),
}

EXAMPLES: Final = """\b
Examples:
  eastwest get summary
  eastwest get workloads -o wide
  eastwest get container-workloads -n shop -l app=web -w
  eastwest get virtual-services -n shop web -o yaml
  eastwest get programs shop/web-7d4f
"""


@click.command(cls=LazyGroup, parts=PARTS, epilog=EXAMPLES)
def get() -> None:
    """Show the inventory of a cluster, and the rules of its Pods."""


class Wanted(msgspec.Struct, frozen=True):
    """Which reports, and how to print them."""

    type: type[AnyReport]
    output: str
    watch: bool
    namespace: str = ""
    name: str = ""
    labels: Test = label_test(None)

    @property
    def keys(self) -> str:
        """The narrowest filter of bucket keys that holds them all."""
        prefix = report_key(self.type)
        if self.type is Summary:
            return prefix
        scope = "" if self.type in (Workload, Profile) else self.namespace
        if self.name and (scope or self.type in (Workload, Profile)):
            return report_key(self.type, scope, self.name)
        return f"{prefix}.{scope}.>" if scope else f"{prefix}.>"

    def fits(self, report: AnyReport) -> bool:
        own = getattr(report, "namespace" if isinstance(report, Profile) else "name", "")
        return (not self.name or own == self.name) and self.labels(getattr(report, "labels", {}))


with_watch = click.option("-w", "--watch", is_flag=True, help="Go on, and print what changes.")
with_namespace = click.option("-n", "--namespace", default="", help="Only this namespace (default: all).")
with_labels = click.option(
    "-l", "--selector", callback=lambda _c, _p, text: label_test(text), help="By labels: a=b,c!=d."
)
with_name = click.argument("name", default="")


@click.command()
@with_target
@with_format
@with_watch
def summary(target: Target, output: str, watch: bool) -> None:
    """The cluster as a whole: what runs in it, how it is segmented, eastwest's components, errors and warnings."""
    run(_show(target, Wanted(Summary, output, watch)))


@click.command()
@with_name
@with_target
@with_format
@with_watch
@with_labels
def workloads(target: Target, *, name: str, output: str, watch: bool, selector: Test) -> None:
    """Nodes: what they run, whether their enforcer speaks, and which revision it has realized."""
    run(_show(target, Wanted(Workload, output, watch, name=name, labels=selector)))


@click.command()
@with_name
@with_target
@with_format
@with_watch
@with_namespace
@with_labels
def container_workloads(target: Target, *, name: str, output: str, watch: bool, namespace: str, selector: Test) -> None:
    """Pods: where they run, how they are segmented, and by which policies. Containers inside cannot be segmented."""
    run(_show(target, Wanted(ContainerWorkload, output, watch, namespace, name, selector)))


@click.command()
@with_name
@with_target
@with_format
@with_watch
@with_namespace
@with_labels
def virtual_services(target: Target, *, name: str, output: str, watch: bool, namespace: str, selector: Test) -> None:
    """Services: their virtual addresses and ports, and the endpoints behind them by readiness."""
    run(_show(target, Wanted(VirtualService, output, watch, namespace, name, selector)))


@click.command()
@with_name
@with_target
@with_format
@with_watch
@with_labels
def profiles(target: Target, *, name: str, output: str, watch: bool, selector: Test) -> None:
    """Namespaces: how their Pods are managed, and what is in them."""
    run(_show(target, Wanted(Profile, output, watch, name=name, labels=selector)))


async def _show(target: Target, wanted: Wanted) -> None:
    async with target.bus() as bus:
        cluster = target.cluster or "default"
        if not wanted.watch:
            await require_stream(bus, stream_name(cluster), f"inventory of cluster {cluster}")
        printer = Printer(wanted)
        async with aclosing(_reports(bus, cluster, wanted.keys)) as changes:
            async for values in changes:
                spoken = await spoken_now(bus, cluster)
                reports = {key: decode_report(key, value) if value else None for key, value in values.items()}
                for text in printer.texts(reports, spoken):
                    click.echo(text)
                if not wanted.watch:
                    break
        if wanted.name and not wanted.watch and not printer.printed:
            raise click.ClickException(f"{wanted.name} is not in the inventory of {cluster}")


async def _reports(bus: NatsBus, cluster: str, keys: str) -> AsyncGenerator[dict[str, bytes | None], None]:
    async with aclosing(watch_inventory(bus, cluster, keys)) as changes:
        async for change in changes:
            yield change.values


async def spoken_now(bus: NatsBus, cluster: str) -> Spoken:
    """What the components say now; nothing where there is no status yet."""
    try:
        heard = await read_status(bus, cluster)
    except ReadFailed:
        heard = {}
    try:
        mark = await bus.last_message(names.policy_stream(cluster), names.mark_subject(cluster))
    except ReadFailed:
        mark = None
    return Spoken(heard, time.time(), decode_mark(mark.data).revision if mark else -1)


class Printer:
    """Prints reports, and remembers how wide the columns were, so that what follows stays in line."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._widths: list[int] = []
        self.printed = 0

    def texts(self, reports: dict[str, AnyReport | None], spoken: Spoken) -> Iterable[str]:
        """What to print for *reports*; ``None``: gone."""
        wanted = self._wanted
        present = [found for _, found in sorted(reports.items()) if found is not None and wanted.fits(found)]
        gone = sorted(key for key, found in reports.items() if found is None)
        first, self.printed = not self.printed, self.printed + len(present)
        if wanted.output in ("json", "yaml"):
            return self._documents([joined(report, spoken) for report in present], gone)
        if wanted.type is Summary:
            return [
                text for report in present if isinstance(report, Summary) for text in columns.summary(report, spoken)
            ]
        return self._rows(present, gone, spoken, first)

    def _documents(self, found: list[dict[str, Any]], gone: list[str]) -> list[str]:
        wanted = self._wanted
        if wanted.watch:  # one value per line (or YAML document), so that a reader needs no end
            values: list[dict[str, Any]] = [*found, *({"key": key, "gone": True} for key in gone)]
            if wanted.output == "json":
                return [output.line(value) for value in values]
            return [f"---\n{output.document(value, 'yaml')}" for value in values]
        single = wanted.type is Summary or wanted.name
        if single:
            return [output.document(value, wanted.output) for value in found]
        return [output.document(found, wanted.output)]

    def _rows(self, present: list[AnyReport], gone: list[str], spoken: Spoken, first: bool) -> list[str]:
        wide = self._wanted.output == "wide"
        rows = [columns.row(report, spoken, wide) for report in present]
        if not rows and first:
            return [] if self._wanted.name else ["Nothing found."]
        heading = [columns.heading(self._wanted.type, wide)] if first else []
        cells = [*heading, *rows]
        self._widths = output.widths(cells, self._widths)
        return [*output.aligned(cells, self._widths), *(f"{key.partition('.')[2]} is gone" for key in gone)]
