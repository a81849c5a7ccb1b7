"""`eastwest uninstall`: the way out, for one node."""

import asyncio
import sys
from pathlib import Path

import click

from enforcers.core.layout import DEFAULT_MARK
from enforcers.runtimes.calls import RuntimeUnavailable
from enforcers.runtimes.cri import CriRuntime
from enforcers.settings import EnforcerSettings
from enforcers.uninstalling import uninstall as remove

EXAMPLES = """\b
Examples:
  eastwest uninstall                                   from all Pods that containerd knows on this machine
  eastwest uninstall --netns blue --netns green        from these network namespaces
"""


@click.command(epilog=EXAMPLES)
@click.option("--runtime", default=EnforcerSettings().runtime, show_default=True, help="Socket of containerd.")
@click.option("--netns", multiple=True, help="A network namespace by name or path, instead of asking the runtime.")
@click.option("--mark", type=int, default=DEFAULT_MARK, help="The mark's bit, where the enforcer was given another.")
def uninstall(runtime: str, netns: tuple[str, ...], mark: int) -> None:
    """Remove every rule and set of ours from this node's Pods. Stop the node's enforcer first, or it puts them back.

    Nothing of anyone else is touched. Exits with 1 where something may be left.
    """
    try:
        sys.exit(asyncio.run(_uninstall(runtime, netns, mark)))
    except RuntimeUnavailable as error:
        raise click.ClickException(str(error)) from None


async def _uninstall(runtime: str, netns: tuple[str, ...], mark: int) -> int:
    if netns:
        places = {path: str(path) for path in (Path("/run/netns") / name for name in netns)}  # a path stays itself
    else:
        async with CriRuntime(runtime) as cri:
            found = await cri.sandboxes()
        places = {each.netns: f"{each.namespace}/{each.name}" for each in found.values()}
    results = await remove(places, mark=mark)
    for path, result in sorted(results.items(), key=lambda item: places[item[0]]):
        if result.trouble:
            click.echo(f"{places[path]}: not removed: {result.trouble}", err=True)
        elif result.removed:
            click.echo(f"{places[path]}: removed")
    removed = sum(result.removed for result in results.values())
    click.echo(f"{removed} of {len(results)} namespaces had rules or sets of ours")
    return 1 if any(result.trouble for result in results.values()) else 0
