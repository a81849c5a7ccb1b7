"""Which established connections a new state no longer allows."""

from collections.abc import Callable, Collection, Iterable

import msgspec

from enforcers.core.difference import Patch
from enforcers.core.netlink.connections import Connection, Endpoints
from enforcers.core.set_rendering import kind
from schemas import addresses
from schemas.addresses import PROTOCOL_NAMES
from schemas.programs import Program
from schemas.sets import SetKind
from schemas.verdict import Flow, Judgement, Members, Reason, judge_egress, judge_endpoint, judge_ingress

Translated = Callable[[Endpoints], Endpoints | None]
"""Where the node really sends a connection to a virtual address, as its reply tuple tells; ``None``: unknown."""


class Cut(msgspec.Struct, frozen=True):
    """A connection that has to end, and why."""

    connection: Connection
    judgement: Judgement

    def __str__(self) -> str:
        ends = self.connection.original
        source, destination = addresses.unpack(ends.source), addresses.unpack(ends.destination)
        protocol = PROTOCOL_NAMES.get(ends.protocol, str(ends.protocol))
        isolating = ", ".join(self.judgement.isolating)
        return (
            f"{protocol} {source} → {destination} port {ends.destination_port}: {self.judgement.reason} ({isolating})"
        )


def may_tighten(patch: Patch, program: Program | None) -> bool:
    """Whether *patch* may forbid a connection that was allowed. Peers that a set gains only open."""
    if patch.writes_rules or patch.replace or patch.lose:
        return True
    virtual = program.egress.virtual if program is not None and program.egress is not None else None
    closing = (virtual.addresses, virtual.ports) if virtual is not None else ()
    return any(each.id in closing or kind(each.id) is SetKind.BLOCKS for each in patch.gain)  # blocks have exceptions


def no_longer_allowed(
    connections: Iterable[Connection],
    program: Program,
    *,
    own: Collection[bytes],
    members: Members,
    node: Collection[bytes],
    translated: Translated,
) -> tuple[list[Cut], list[Connection]]:
    """Judge every connection anew. Return those to cut, and those to a virtual address that nobody can judge.

    *own* are the Pod's addresses: a connection that began at one of them went out, any other one came in; what was
    forwarded for someone behind the Pod went out, too. A connection to a virtual address is judged by the endpoint it
    was sent to, not by the rule that all endpoints must be allowed: that one decides about new connections.
    """
    cuts: list[Cut] = []
    unknown: list[Connection] = []
    for connection in connections:
        ends = connection.original
        flow = Flow(ends.source, ends.destination, ends.protocol, ends.destination_port)
        if ends.destination in own:
            judgement = judge_ingress(program, flow, members, node)
        else:
            judgement = judge_egress(program, flow, members, node)
            if judgement.reason is Reason.VIRTUAL:
                real = translated(ends)
                if real is None:
                    unknown.append(connection)
                    continue
                if real.source in own:  # a hairpin: a Pod cannot block itself
                    continue
                judgement = _judge_endpoint(program, ends, real, members, node)
        if not judgement.allowed:
            cuts.append(Cut(connection, judgement))
    return cuts, unknown


def _judge_endpoint(
    program: Program, ends: Endpoints, reply: Endpoints, members: Members, node: Collection[bytes]
) -> Judgement:
    assert program.egress is not None  # nothing else knows virtual addresses
    flow = Flow(ends.source, reply.source, ends.protocol, reply.source_port)
    return judge_endpoint(program.egress, flow, members, node)
