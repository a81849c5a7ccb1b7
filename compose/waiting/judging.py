"""Whether a revision is realized where it has to be: by what is published, and what each enforcer said last."""

from collections.abc import Iterator, Mapping

import msgspec

from compose.waiting.spans import Span
from schemas.status import Component, Connectivity, CvenStatus
from streams.channels.status import Heard, Place


class NodeFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the span."""

    node: str
    realized: int = -1
    """Newest revision that it confirmed; -1: none."""
    connectivity: str = ""
    """Empty: no enforcer was ever heard there."""
    holds: bool = False
    """The revision is realized there, for every Pod that it is about."""
    waited_for: bool = True
    """Not, where nobody is there to realize it."""
    why: tuple[str, ...] = ()
    """Why it does not hold, or is not waited for."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """How far a revision is."""

    revision: int
    published: int
    """Newest revision that is complete in the policy stream; -1: none."""
    span: str
    """Where it has to be, in words."""
    nodes: tuple[NodeFinding, ...]
    realized: bool


def find(span: Span, revision: int, published: int, heard: Mapping[Place, Heard], now: float) -> Finding:
    """How far *revision* is on the nodes of *span*; *now* by the clock of the server that stored what was *heard*.

    Not realized is also what nobody is there to realize, unless nobody has to.
    """
    known = [name for component, name in heard if component is Component.CVEN]
    wanted = sorted(known if span.nodes is None else span.nodes)
    nodes = tuple(_node(name, span, revision, heard, now) for name in wanted)
    waited_for = [each for each in nodes if each.waited_for]
    nobody = span.nodes is not None and not nodes
    return Finding(
        revision=revision,
        published=published,
        span=span.reason,
        nodes=nodes,
        realized=published >= revision and (nobody or (bool(waited_for) and all(each.holds for each in waited_for))),
    )


def _node(name: str, span: Span, revision: int, heard: Mapping[Place, Heard], now: float) -> NodeFinding:
    found = heard.get((Component.CVEN, name))
    if found is None or not isinstance(found.status, CvenStatus):
        return NodeFinding(node=name, waited_for=False, why=("no enforcer was heard there: not waited for",))
    status, state = found.status, found.connectivity(now)
    lacks = tuple(_lacks(status, span, revision))
    if offline := lacks and state is Connectivity.OFFLINE:
        lacks = (*lacks, f"offline for {max(0.0, now - found.stored_at):.0f} s: not waited for; its rules stand")
    return NodeFinding(
        node=name,
        realized=status.realized,
        connectivity=str(state),
        holds=not lacks,
        waited_for=not offline,
        why=lacks,
    )


def _lacks(status: CvenStatus, span: Span, revision: int) -> Iterator[str]:
    if status.observing:
        yield "observes: it programs nothing"
    elif status.realized < revision:
        if status.paused:
            yield "paused: it writes nothing"
        if status.from_disk:
            yield "enforces from disk: it has not heard from NATS since its start"
        if status.realized < 0:
            yield "has not realized anything yet"
        else:
            yield f"lags by {revision - status.realized} revisions"
    for each in status.exceptions:
        if span.about(status.node, each.uid):
            yield f"not {each.namespace}/{each.name}: {each.reason}"
