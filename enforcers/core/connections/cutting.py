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
from schemas.verdict import LOOPBACK, Flow, Judgement, Members, Reason, judge_egress, judge_endpoint, judge_ingress

OnNode = Callable[[Endpoints], Connection | None]
"""How the node's own table tracks what has *ends* as either direction; ``None``: it does not know."""


class Cut(msgspec.Struct, frozen=True):
    """A connection that has to end, and why."""

    connection: Connection
    judgement: Judgement


def describe(connection: Connection) -> str:
    """For people: ``TCP 10.0.0.1 → 10.0.0.2 port 80``."""
    ends = connection.original
    source, destination = addresses.unpack(ends.source), addresses.unpack(ends.destination)
    protocol = PROTOCOL_NAMES.get(ends.protocol, str(ends.protocol))
    return f"{protocol} {source} → {destination} port {ends.destination_port}"


def may_tighten(patch: Patch, program: Program | None) -> bool:
    """Whether *patch* may forbid a connection that was allowed. Peers that a set gains only open."""
    if patch.writes_rules or patch.replace or patch.release or patch.lose:
        return True
    virtual = program.egress.virtual if program is not None and program.egress is not None else None
    closing = (virtual.addresses, virtual.ports) if virtual is not None else ()
    return any(each.id in closing or kind(each.id) is SetKind.BLOCKS for each in patch.gain)  # blocks have exceptions


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """Judges connections that exist by *program*, as its rules would judge their first packet."""

    program: Program
    own: Collection[bytes]
    """Every address of the Pod's namespace: a connection to one of them came in; any other one went out, also where it
    was forwarded for someone behind the Pod."""
    members: Members
    node: Collection[bytes]
    on_node: OnNode

    def __call__(self, connection: Connection) -> Judgement | None:
        """``None``: it goes to a virtual address, and nobody knows to which endpoint.

        A connection to a virtual address is judged by the endpoint it was sent to, not by the rule that all endpoints
        must be allowed: that one decides about new connections.
        """
        wire = self.wire(connection)
        if wire.destination in self.own:
            return judge_ingress(self.program, _flow(wire), self.members, self.node)
        judgement = judge_egress(self.program, _flow(wire), self.members, self.node)
        if judgement.reason is not Reason.VIRTUAL:
            return judgement
        on_node = self.on_node(wire)
        if on_node is None or not on_node.translated:
            return None
        return self._judge_endpoint(on_node.sent)

    def wire(self, connection: Connection) -> Endpoints:
        """Its original direction as our rules see it: before what the Pod translates inbound, after it outbound."""
        return connection.original if connection.original.destination in self.own else connection.sent

    def _judge_endpoint(self, real: Endpoints) -> Judgement:
        if real.destination in self.own:  # a hairpin: a Pod cannot block itself
            return LOOPBACK
        assert self.program.egress is not None  # nothing else knows virtual addresses
        return judge_endpoint(self.program.egress, _flow(real), self.members, self.node)


def no_longer_allowed(connections: Iterable[Connection], judge: Judge, *, most: int) -> tuple[list[Cut], int]:
    """Judge connections anew until *most* of them are to be cut; all of *connections* are read.

    Return those to cut, and how many go to a virtual address and cannot be judged by anybody.
    """
    cuts: list[Cut] = []
    unknown = 0
    for connection in connections:
        if len(cuts) == most:
            continue
        judgement = judge(connection)
        if judgement is None:
            unknown += 1
        elif not judgement.allowed:
            cuts.append(Cut(connection, judgement))
    return cuts, unknown


def _flow(ends: Endpoints) -> Flow:
    return Flow(ends.source, ends.destination, ends.protocol, ends.destination_port)
