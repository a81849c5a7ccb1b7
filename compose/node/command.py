"""`eastwest node`: this node's enforcer, asked over its unix socket; it works while everything else is away."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

import click

from compose.node import ordering, showing
from compose.node.asking import ask, ask_each
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

EXAMPLES: Final = """\b
Examples:
  eastwest node pods                                    what has become of each Pod of this node
  eastwest node program shop/web-7d4f                   its rules, and the policy behind each
  eastwest node counters shop/web-7d4f                  which of them packets have met, and how many
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
    show_envvar=True,
    type=click.Path(),
    help="Where the enforcer answers.",
)
@click.pass_context
def node(context: click.Context, socket: str) -> None:
    """Ask this node's enforcer, or order it something. Needs root, and neither NATS nor the cluster."""
    context.obj = socket


for command in (ordering.pause, ordering.release, ordering.resume):
    node.add_command(command)

with_pod = click.argument("pod", default="", metavar="[POD]")
with_namespace = click.option("-n", "--namespace", default="", help="Only this namespace (default: all).")


def _table(heading: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    return printing.aligned([heading, *rows]) if rows else ["Nothing found."]


@node.command(short_help="The enforcer itself.")
@showing.with_format
@click.pass_obj
def status(socket: str, output: str) -> None:
    """The enforcer itself: what it has realized, whether it knows the policy, what is ordered, what is wrong."""
    found = ask(socket, "GET", "/", NodeState)
    showing.show(found, output, lambda: showing.state(found))


@node.command(short_help="Its Pods, and what has become of each.")
@with_pod
@with_namespace
@showing.with_format
@click.pass_obj
def pods(socket: str, pod: str, namespace: str, output: str) -> None:
    """The Pods of this node, and what has become of each.

    CONNECTIONS are those tracked in the Pod's namespace, of as many as the kernel takes there. TROUBLE is why a Pod
    does not hold what it should, and what is wrong though it does.
    """
    found = ask(socket, "GET", "/pods", list[PodLine], pod=pod, namespace=namespace)
    heading = ("NAMESPACE", "NAME", "STATE", "RULES", "SETS", "PATCHES", "CONNECTIONS", "TROUBLE")
    showing.show(found, output, lambda: _table(heading, list(map(showing.pod, found))))


@node.command(short_help="A Pod's rules, and the policy behind each.")
@click.argument("pod")
@showing.with_format
@click.pass_obj
def program(socket: str, pod: str, output: str) -> None:
    """The rules of POD (``namespace/name``, a name or a uid), the policy behind each, and who is in their sets."""
    found = ask(socket, "GET", "/programs", list[ProgramView], pod=pod)
    if not found:
        raise click.ClickException(f"{pod} is here and has no program: nothing concerns it, or nothing is known yet")
    policy = Policy(
        programs={(each.program.node, each.program.uid): each.program for each in found},
        sets={name: frozenset(members) for each in found for name, members in each.sets.items()},
    )
    texts = ["\n".join(policy_text.text(each.program, policy.sets)) for each in found]
    showing.show(policy_text.document(policy), output, lambda: ["\n\n".join(texts)])


@node.command(short_help="Address sets, and how many members each has.")
@with_pod
@showing.with_format
@click.pass_obj
def sets(socket: str, pod: str, output: str) -> None:
    """The address sets that this node's programs name, or those of POD. Their members: `eastwest node program POD`."""
    found = ask(socket, "GET", "/sets", list[SetLine], pod=pod)
    showing.show(
        found, output, lambda: _table(("SET", "HOLDS", "MEMBERS", "PODS"), list(map(showing.address_set, found)))
    )


@node.command(short_help="Packets and bytes per rule.")
@with_pod
@with_namespace
@click.option("--zeroes", is_flag=True, help="In the table, also rules that no packet has met.")
@showing.with_format
@click.pass_obj
def counters(socket: str, pod: str, namespace: str, zeroes: bool, output: str) -> None:
    """What each rule has counted since it was written: packets, bytes, and the policies behind it.

    RULE is the id of a program's rule, or says what a rule of our own is for: ``default-…`` blocks what nothing allows,
    ``unmarked-…`` what belongs to no allowed connection, ``virtual-…`` Services that are not open.
    """
    found = ask(socket, "GET", "/counters", list[PodCounters], pod=pod, namespace=namespace)
    errors = [f"{each.namespace}/{each.name}: {each.error}" for each in found if each.error]

    def lines() -> Iterable[str]:
        rows = [row for each in found for row in showing.counters(each)]
        met = [row for row in rows if zeroes or row.packets]
        heading = ("NAMESPACE", "NAME", "FAMILY", "CHAIN", "RULE", "PACKETS", "BYTES", "POLICIES")
        yield from _table(heading, met)
        if left := len(rows) - len(met):
            yield f"{printing.counted(left, 'rule')} that no packet has met: --zeroes"
        yield from errors

    showing.show(found, output, lines)
    sys.exit(1 if errors else 0)


@node.command(short_help="The newest writes to Pods, and how long each took.")
@with_pod
@with_namespace
@showing.with_format
@click.pass_obj
def patches(socket: str, pod: str, namespace: str, output: str) -> None:
    """The newest patches written to Pods, oldest first, and how long each took."""
    found = ask(socket, "GET", "/patches", list[PatchNote], pod=pod, namespace=namespace)
    rows = [(each.time, each.namespace, each.name, f"{each.milliseconds:.2f} ms", each.what) for each in found]
    showing.show(found, output, lambda: _table(("TIME", "NAMESPACE", "NAME", "TOOK", "WHAT"), rows))


@node.command(short_help="Compare the kernel with what it should hold.")
@with_pod
@with_namespace
@showing.with_format
@click.pass_obj
def verify(socket: str, pod: str, namespace: str, output: str) -> None:
    """Compute anew what each Pod should hold, read what the kernel holds, and compare; write nothing.

    Exits with 1 where anything differs or cannot be compared.
    """
    with showing.progress("compared") as progress:
        found = ask_each(socket, "/verify", Verification, progress, pod=pod, namespace=namespace)
    found.sort(key=lambda each: (each.namespace, each.name))
    wrong = [each for each in found if each.differences or each.error]

    def lines() -> Iterable[str]:
        for each in wrong:
            for difference in each.differences or (f"not compared: {each.error}",):
                yield f"{each.namespace}/{each.name}: {difference}"
        if found:
            yield f"{len(found) - len(wrong)} of {len(found)} Pods hold exactly what they should"
        else:
            yield "Nothing found: there is no such Pod here to compare."

    showing.show(found, output, lines)
    sys.exit(1 if wrong else 0)
