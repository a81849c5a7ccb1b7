"""`eastwest wait`: until a revision, or the newest change of an object, is realized where it has to be."""

import asyncio
import sys
import time
from typing import Final

import click
import msgspec

from compose.reading import output as printing
from compose.reading.presence import require_stream
from compose.reading.running import INTERRUPTED, run
from compose.targets import Target, with_target
from compose.waiting.changes import Changed, NoSuchVersion, ObjectKey, change_of_version, newest_change
from compose.waiting.following import LOOK_SECONDS, Waiting
from compose.waiting.judging import Finding
from schemas import names
from streams.nats.nats_bus import NatsBus

EXAMPLES: Final = """\b
Examples:
  eastwest wait --object NetworkPolicy/shop/web                  what the log has of it is enforced wherever it matters
  eastwest wait --object NetworkPolicy/shop/web --resource-version \\
      $(kubectl -n shop get netpol web -o jsonpath={.metadata.resourceVersion})    what was applied just now
  eastwest wait --object Pod/shop/cart-7d4f --timeout 10
  eastwest wait --revision 4711 && run-the-tests                 everything up to this revision, on every node
  eastwest wait --revision 4711 --timeout 0 -o json              how far is it now?

Ends with 0 when it is realized, 1 when the time is up, 2 for a mistake.
"""


@click.command(epilog=EXAMPLES)
@with_target
@click.option("--revision", type=click.IntRange(min=0), help="This one or a later one, on every node.")
@click.option(
    "--object",
    "key",
    type=ObjectKey(),
    metavar="KIND/NAMESPACE/NAME",
    help="This object's newest event in the log.",
)
@click.option(
    "--resource-version",
    metavar="RV",
    help="With --object: instead its event of this resource version, which is waited for as well.",
)
@click.option(
    "--timeout", default=60.0, show_default=True, type=click.FloatRange(min=0), help="Seconds until it gives up."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def wait(
    target: Target,
    *,
    revision: int | None,
    key: str | None,
    resource_version: str | None,
    timeout: float,
    output: str,
) -> None:
    """Wait until every online node that has to has realized a revision, and list who has not and why.

    Realized is what is written in both address families, its connections judged; a Pod that could not be programmed
    counts as not realized. For a Pod it has to be on its own node and those with rules about its addresses; for a
    NetworkPolicy on those with rules by it; on every node for all else, and where an object was changed or deleted.
    """
    if (revision is None) == (key is None):
        raise click.UsageError("what to wait for? name either --revision or --object")
    if resource_version is not None and (key is None or not resource_version):
        raise click.UsageError("a resource version is one of an object: name that by --object, and give the version")
    finding = run(_wait(target, revision, key, resource_version, timeout))
    if finding is None:
        sys.exit(INTERRUPTED)
    click.echo(printing.document(_document(finding, key), "json") if output == "json" else _table(finding))
    if not finding.realized:
        click.echo(f"not realized within {timeout:g} s", err=True)
        sys.exit(1)


async def _wait(target: Target, revision: int | None, key: str | None, version: str | None, seconds: float) -> Finding:
    changed, cluster = None, target.cluster or "default"
    limit = time.monotonic() + seconds
    if key is not None:
        cluster, changed = await (_newest(target, key) if version is None else _of(target, key, version, seconds))
        revision = changed.revision
        click.echo(f"{key} is revision {revision}{'' if changed.object else ': deleted'}", err=True)
    assert revision is not None, "one of both was given"
    async with target.bus() as bus:
        # Whose log has the object is no mistyped cluster, but one that begins.
        await _policy_of(bus, cluster, until=limit if changed else 0.0)
        return await Waiting(bus, cluster, revision, changed, Progress()).realized(max(0.0, limit - time.monotonic()))


async def _policy_of(bus: NatsBus, cluster: str, *, until: float) -> None:
    """Wait for the first policy of *cluster*, at most *until* then by the monotonic clock."""
    while True:
        try:
            return await require_stream(bus, names.policy_stream(cluster), f"policy of cluster {cluster}")
        except click.ClickException:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(LOOK_SECONDS)


async def _newest(target: Target, key: str) -> tuple[str, Changed]:
    async with target.events() as (cluster, log):
        changed = await newest_change(log, key)
    if changed is None:
        kind, namespace, name = key.split("/", 2)
        where = "" if namespace == names.NO_NAMESPACE else f" -n {namespace}"
        raise click.UsageError(
            f"{key} is not in the log of cluster {cluster}: mistyped, not there yet, or deleted long ago. "
            f"See eastwest events --kind {kind}{where} --name '{name}*'"
        )
    return cluster, changed


async def _of(target: Target, key: str, version: str, seconds: float) -> tuple[str, Changed]:
    async with target.events() as (cluster, log):
        click.echo(f"looking for the event of {key} with resource version {version}", err=True)
        try:
            return cluster, await change_of_version(log, key, version, seconds)
        except NoSuchVersion as error:
            newest = "the newest has {1}, at revision {0}".format(*error.newest) if error.newest else "nor any other"
            raise click.ClickException(
                f"after {seconds:g} s there is no event of {key} with resource version {version} in the log of cluster "
                f"{cluster}; {newest}. Kubelink has not written it yet, has only seen a later one, or had nothing to "
                "write: what changed is nothing that eastwest reads"
            ) from None


class Progress:
    """Says on standard error how far it is, as often as that changes."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, finding: Finding) -> None:
        text = _progress(finding)
        if text != self._told:
            self._told = text
            click.echo(text, err=True)


def _progress(finding: Finding) -> str:
    if finding.published < finding.revision:
        return f"revision {finding.revision} is not published yet: {_newest_published(finding)}"
    waited_for = [each for each in finding.nodes if each.waited_for]
    if not waited_for:
        return "published; no node is waited for"
    lacking = [each.node for each in waited_for if not each.holds]
    text = f"published; {len(waited_for) - len(lacking)} of {len(waited_for)} nodes have realized it"
    return f"{text}, not {', '.join(lacking)}" if lacking else text


def _newest_published(finding: Finding) -> str:
    return f"the newest is {finding.published}" if finding.published >= 0 else "nothing is, or NATS is away"


def _table(finding: Finding) -> str:
    rows = [
        (each.node, each.realized if each.realized >= 0 else "", each.connectivity, "yes" if each.holds else "no",
         "; ".join(each.why))
        for each in finding.nodes
    ]  # fmt: skip
    head = f"Revision {finding.revision} on {finding.span}"
    if finding.published < finding.revision:
        head += f"; it is not published yet: {_newest_published(finding)}"
    if not rows:
        nobody = "no node is concerned" if finding.realized else "no enforcer was heard"
        return f"{head}\n{nobody}"
    return "\n".join([head, *printing.aligned([("NODE", "REALIZED", "STATE", "HOLDS", "WHY NOT"), *rows])])


def _document(finding: Finding, key: str | None) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(finding)
    return found | ({"object": key} if key else {})
