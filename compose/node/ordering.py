"""What `eastwest node` can order: a brake, a way out, and their end."""

from typing import Any

import click

from compose.node.asking import ask, whoever_asks
from compose.node.showing import show, with_format
from compose.reading.output import counted
from schemas.status import Order

with_reason = click.option("--reason", default="", help="Why; it is kept for audit.")


@click.command(short_help="Write nothing until `resume`.")
@with_reason
@click.pass_obj
def pause(socket: str, reason: str) -> None:
    """Keep every rule as it is and write nothing, until `resume`; a restart of the enforcer does not end it."""
    ask(socket, "POST", "/orders", Any, body=Order(by=whoever_asks(), reason=reason))
    click.echo("paused: rules stay as they are; `eastwest node resume` ends it")


@click.command(short_help="Break-glass: take our rules out, and keep them out.")
@click.argument("what", default="", metavar="POD|NAMESPACE")
@click.option("--all", "everything", is_flag=True, help="Every Pod of this node.")
@with_reason
@click.pass_obj
def release(socket: str, what: str, everything: bool, reason: str) -> None:
    """Break-glass: remove our rules from POD (``namespace/name``), NAMESPACE or all Pods, and keep them out.

    It holds over restarts and for Pods to come, is logged and reported as status for audit, and no revision counts as
    realized for these Pods. `eastwest node resume` undoes it.
    """
    if bool(what) == everything:
        raise click.UsageError("name a Pod as namespace/name, or a namespace, or give --all")
    order = Order(release="*" if everything else what, by=whoever_asks(), reason=reason)
    pods = ask(socket, "POST", "/orders", dict[str, Any], body=order)["pods"]
    here = f"{counted(pods, 'Pod')} here now" if pods else "no Pod here now, only those to come: is the name right?"
    click.echo(f"released: {what or 'all'} ({here}); `eastwest node resume` puts the rules back")


@click.command(short_help="Undo what was ordered.")
@click.argument("what", default="", metavar="[POD|NAMESPACE|*]")
@with_reason
@with_format
@click.pass_obj
def resume(socket: str, what: str, reason: str, output: str) -> None:
    """Undo every pause and release, or only the release of what is named; the rules come back."""
    ended = ask(socket, "DELETE", "/orders", list[Order], release=what, by=whoever_asks(), reason=reason)
    show(ended, output, lambda: [f"ended: {each}" for each in ended] or ["nothing was ordered"])
