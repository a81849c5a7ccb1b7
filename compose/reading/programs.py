"""`eastwest get programs`: what is published for each Pod."""

import click

from compose.reading import output as printing
from compose.reading import policy_text
from compose.reading.output import with_format
from compose.reading.presence import require_stream
from compose.reading.running import run
from compose.targets import Target, with_target
from schemas import names
from schemas.policy import Policy
from streams.core.publication import Publication
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import read_stream

EXAMPLES = """\b
Examples:
  eastwest get programs                      one line per Pod
  eastwest get programs shop/web-7d4f        its rules, the policy behind each, the sets they name
  eastwest get programs -n shop -o json
"""


@click.command(epilog=EXAMPLES)
@click.argument("pod", default="")
@with_target
@with_format
@click.option("-n", "--namespace", default="", help="Only this namespace (default: all).")
def programs(target: Target, pod: str, output: str, namespace: str) -> None:
    """What each Pod is to enforce. POD is ``namespace/name``, or a name, a uid, or the beginning of a name."""
    run(_show(target, pod, output, namespace))


async def _show(target: Target, pod: str, output: str, namespace: str) -> None:
    async with target.bus() as bus:
        cluster = target.cluster or "default"
        await require_stream(bus, names.policy_stream(cluster), f"policy of cluster {cluster}")
        policy = await read_policy(bus, cluster)
    space, slash, name = pod.partition("/")
    if not slash:
        space, name = namespace, pod
    in_scope = [one for one in policy.programs.values() if not space or one.namespace == space]
    chosen = [one for one in in_scope if name in (one.name, one.uid)] if name else in_scope
    chosen = chosen or [one for one in in_scope if one.name.startswith(name)]
    if name and not chosen:
        raise click.ClickException(f"no program is published for {pod}: it has no node, is not there, or was just made")
    if output in ("json", "yaml"):
        click.echo(printing.document(policy_text.document(policy, chosen if pod or namespace else None), output))
    elif not name:
        click.echo("\n".join(policy_text.table(chosen)))
    else:
        texts = ("\n".join(policy_text.text(one, policy.sets)) for one in sorted(chosen, key=lambda one: one.name))
        click.echo("\n\n".join(texts))


async def read_policy(bus: NatsBus, cluster: str) -> Policy:
    """Everything that is published. Raises `ReadFailed`."""
    everything = names.policy_subjects(cluster)
    stored = await read_stream(bus, names.policy_stream(cluster), everything, last_only=False)
    below = len(everything) - 1
    return Publication(max_payload=bus.max_payload).read((one.subject[below:], one) for one in stored)
