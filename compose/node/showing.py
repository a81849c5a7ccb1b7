"""How the answers of a node's enforcer look."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import click

from compose.reading.output import aligned, document
from schemas.local import NodeState, PodCounters, PodLine, SetLine
from schemas.sets import SetKind, kind_of

HOLDS: Final = {SetKind.ADDRESSES: "addresses", SetKind.BLOCKS: "blocks", SetKind.TUPLES: "addresses with ports"}
TOOLS: Final = {"sets": "the ipset tool", "chains": "iptables-nft-restore"}


with_format = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print."
)


def show(found: Any, output: str, lines: Callable[[], Iterable[str]]) -> None:
    """Print *found* as JSON, or *lines* for people."""
    if output == "json":
        click.echo(document(found, "json"))
    else:
        for line in lines():
            click.echo(line)


def state(found: NodeState) -> list[str]:
    """The enforcer itself."""
    knows = "the snapshot on disk" if found.from_disk else "the complete policy" if found.known else "nothing yet"
    ways = {
        what: "netlink" if how == "netlink" else TOOLS[what]
        for what, how in (("sets", found.sets_by), ("chains", found.chains_by))
    }
    return aligned(
        [
            ("Node", found.node),
            ("Version", found.version),
            ("Realized", found.realized if found.realized >= 0 else "nothing yet"),
            ("Knows", knows),
            ("Mode", "observing: nothing is written" if found.observing else "enforcing"),
            ("Pods", ", ".join(f"{state} {count}" for state, count in sorted(found.pods.items())) or "none"),
            ("Writes", ", ".join(f"{what} by {how}" for what, how in ways.items())),
            *(("Ordered", order) for order in found.orders or ("nothing",)),
            *(("Problem", problem) for problem in found.problems),
        ]
    )


def pod(line: PodLine) -> tuple[object, ...]:
    """A row."""
    return (
        line.namespace,
        line.name,
        f"{line.state}{' (bypassable)' if line.bypassable else ''}",
        line.rules,
        line.sets,
        line.patches,
        f"{line.connections}/{line.connections_limit}" if line.connections_limit else "",
        "; ".join(filter(None, (line.reason, *line.problems))),
    )


def address_set(line: SetLine) -> tuple[object, ...]:
    """A row."""
    return line.id, HOLDS[kind_of(line.id)], line.members, line.pods


class CounterRow(NamedTuple):
    """What the rules of one meaning in one chain have counted together."""

    namespace: str
    name: str
    family: str
    chain: str
    rule: str
    packets: int
    bytes: int
    policies: str


def counters(pod: PodCounters) -> list[CounterRow]:
    """The rows of *pod*, in the order of evaluation. Its own namespace's NetworkPolicies go by their names."""
    own = f"NetworkPolicy/{pod.namespace}/"
    rows: dict[tuple[int, str, str], CounterRow] = {}
    for one in pod.counters:
        key = (one.family, one.chain, one.rule)
        before = rows.get(key)
        rows[key] = CounterRow(
            pod.namespace,
            pod.name,
            f"IPv{one.family}",
            one.chain,
            one.rule,
            one.packets + (before.packets if before else 0),
            one.bytes + (before.bytes if before else 0),
            ", ".join(policy.removeprefix(own) for policy in one.policies),
        )
    return list(rows.values())


@contextmanager
def progress(done: str) -> Iterator[Callable[[int, int], None]]:
    """Tells a person how far it is, on a line of the terminal that is gone afterwards; tells nobody else."""
    shown = sys.stderr.isatty()

    def tell(number: int, expected: int) -> None:
        if shown:
            click.echo(f"\r{number} of {expected} Pods {done}", nl=False, err=True)

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r\x1b[K", nl=False, err=True)
