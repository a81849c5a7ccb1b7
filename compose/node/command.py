"""`eastwest node`: this node's enforcer, asked over its unix socket; it works while everything else is away."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click

from compose.node.asking import ask, whoever_asks
from compose.reading import output as printing
from compose.reading import policy_text
from schemas.local import (
    DEFAULT_SOCKET,
    NodeState,
    PatchNote,
    PodCounters,
    PodLine,
    ProgramView,
    SetLine,
    Verification,
)
from schemas.policy import Policy
from schemas.status import Order

EXAMPLES: Final = """\b
Examples:
  eastwest node pods                                    what has become of each Pod of this node
  eastwest node program shop/web-7d4f                   its rules, and the policy behind each
  eastwest node verify                                  does the kernel hold what it should? exits with 1 if not
  eastwest node release shop/web-7d4f --reason "INC-7"  break-glass: take our rules out of one Pod
  eastwest node resume                                  undo whatever was ordered
  kubectl -n eastwest exec POD -- eastwest node pods    in a cluster; POD is the enforcer's on that node
"""


@click.group(epilog=EXAMPLES)
@click.option(
    "--socket",
    envvar="EASTWEST_ENFORCER_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    help="Where the enforcer answers.",
)
@click.pass_context
def node(context: click.Context, socket: str) -> None:
    """Ask this node's enforcer, or order it something. Needs root, and neither NATS nor the cluster."""
    context.obj = socket


with_format = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
)
with_pod = click.argument("pod", default="")
with_namespace = click.option("-n", "--namespace", default="", help="Only this namespace (default: all).")


def _print(found: Any, output: str, lines: Callable[[], Iterable[str]]) -> None:
    if output == "json":
        click.echo(printing.document(found, "json"))
    else:
        for line in lines():
            click.echo(line)


def _table(heading: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    return printing.aligned([heading, *rows]) if rows else ["Nothing found."]


@node.command()
@with_format
@click.pass_obj
def status(socket: str, output: str) -> None:
    """The enforcer itself: what it has realized, whether it knows the policy, what is ordered by hand."""
    found = ask(socket, "GET", "/", NodeState)

    def lines() -> list[str]:
        knows = "the snapshot on disk" if found.from_disk else "the complete policy" if found.known else "nothing yet"
        facts = [
            ("Node", found.node),
            ("Version", found.version),
            ("Realized", found.realized if found.realized >= 0 else "nothing yet"),
            ("Knows", knows),
            ("Mode", "observing: nothing is written" if found.observing else "enforcing"),
            ("Ordered", "; ".join(map(str, found.orders)) or "nothing"),
        ]
        return printing.aligned(facts)

    _print(found, output, lines)


@node.command()
@with_pod
@with_namespace
@with_format
@click.pass_obj
def pods(socket: str, pod: str, namespace: str, output: str) -> None:
    """The Pods of this node, and what has become of each."""
    found = ask(socket, "GET", "/pods", list[PodLine], pod=pod, namespace=namespace)
    heading = ("NAMESPACE", "NAME", "STATE", "RULES", "SETS", "PATCHES", "TROUBLE")
    rows = [
        (each.namespace, each.name, f"{each.state}{' (bypassable)' if each.bypassable else ''}", each.rules, each.sets,
         each.patches, each.reason)
        for each in found
    ]  # fmt: skip
    _print(found, output, lambda: _table(heading, rows))


@node.command()
@click.argument("pod")
@with_format
@click.pass_obj
def program(socket: str, pod: str, output: str) -> None:
    """The rules of POD (``namespace/name``, a name or a uid), and the policy behind each."""
    found = ask(socket, "GET", "/programs", list[ProgramView], pod=pod)
    if not found:
        raise click.ClickException(f"{pod} is here and has no program: nothing concerns it, or nothing is known yet")
    policy = Policy(
        programs={(each.program.node, each.program.uid): each.program for each in found},
        sets={name: frozenset(members) for each in found for name, members in each.sets.items()},
    )
    texts = ["\n".join(policy_text.text(each.program, policy.sets)) for each in found]
    _print(policy_text.document(policy), output, lambda: ["\n\n".join(texts)])


@node.command()
@with_pod
@with_format
@click.pass_obj
def sets(socket: str, pod: str, output: str) -> None:
    """The address sets that this node's programs name, or those of POD."""
    found = ask(socket, "GET", "/sets", list[SetLine], pod=pod)
    rows = [(each.id, each.members, each.pods) for each in found]
    _print(found, output, lambda: _table(("SET", "MEMBERS", "PODS"), rows))


@node.command()
@with_pod
@with_namespace
@with_format
@click.pass_obj
def counters(socket: str, pod: str, namespace: str, output: str) -> None:
    """What each rule has counted since it was written: packets, bytes, and the policy behind it."""
    found = ask(socket, "GET", "/counters", list[PodCounters], pod=pod, namespace=namespace)
    heading = ("NAMESPACE", "NAME", "FAMILY", "CHAIN", "RULE", "PACKETS", "BYTES", "POLICIES")
    rows = [
        (each.namespace, each.name, f"IPv{one.family}", one.chain, one.rule, one.packets, one.bytes,
         ", ".join(one.policies))
        for each in found
        for one in each.counters
    ]  # fmt: skip
    errors = [f"{each.namespace}/{each.name}: {each.error}" for each in found if each.error]
    _print(found, output, lambda: [*_table(heading, rows), *errors])
    sys.exit(1 if errors else 0)


@node.command()
@with_pod
@with_namespace
@with_format
@click.pass_obj
def patches(socket: str, pod: str, namespace: str, output: str) -> None:
    """The newest patches written to Pods, oldest first, and how long each took."""
    found = ask(socket, "GET", "/patches", list[PatchNote], pod=pod, namespace=namespace)
    rows = [(each.time, each.namespace, each.name, f"{each.milliseconds:.2f} ms", each.what) for each in found]
    _print(found, output, lambda: _table(("TIME", "NAMESPACE", "NAME", "TOOK", "WHAT"), rows))


@node.command()
@with_pod
@with_namespace
@with_format
@click.pass_obj
def verify(socket: str, pod: str, namespace: str, output: str) -> None:
    """Compute anew what each Pod should hold, read what the kernel holds, and compare; write nothing.

    Exits with 1 where anything differs or cannot be compared.
    """
    found = ask(socket, "GET", "/verify", list[Verification], pod=pod, namespace=namespace)
    wrong = [each for each in found if each.differences or each.error]

    def lines() -> Iterable[str]:
        for each in wrong:
            for difference in each.differences or (f"not compared: {each.error}",):
                yield f"{each.namespace}/{each.name}: {difference}"
        yield f"{len(found) - len(wrong)} of {len(found)} Pods hold exactly what they should"

    _print(found, output, lines)
    sys.exit(1 if wrong else 0)


with_reason = click.option("--reason", default="", help="Why; it is kept for audit.")


@node.command()
@with_reason
@click.pass_obj
def pause(socket: str, reason: str) -> None:
    """Keep every rule as it is and write nothing, until `resume`; a restart of the enforcer does not end it."""
    ask(socket, "POST", "/orders", Any, body=Order(by=whoever_asks(), reason=reason))
    click.echo("paused: rules stay as they are; `eastwest node resume` ends it")


@node.command()
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
    done = ask(socket, "POST", "/orders", dict[str, Any], body=order)
    click.echo(f"released: {what or 'all'} ({done['pods']} Pods here now); `eastwest node resume` puts the rules back")


@node.command()
@click.argument("what", default="", metavar="[POD|NAMESPACE|*]")
@with_format
@click.pass_obj
def resume(socket: str, what: str, output: str) -> None:
    """Undo every pause and release, or only the release of what is named; the rules come back."""
    ended = ask(socket, "DELETE", "/orders", list[Order], release=what)
    _print(ended, output, lambda: [f"ended: {each}" for each in ended] or ["nothing was ordered"])
