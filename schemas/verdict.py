"""The verdict interpreter: what programs and sets say of one new connection, independent of any kernel.

It reads programs exactly as the rules rendered from them are matched, so its verdict is also the packet's. The
enforcer asks it which established connections a tightening no longer allows; `explain`, `preview` and flow
attribution ask it for the reason.
"""

from collections.abc import Callable, Collection
from enum import StrEnum

import msgspec

from schemas import sets
from schemas.addresses import ECHO, ICMPV6
from schemas.programs import Denial, Direction, PortRange, Program, Rule, denial_id
from schemas.sets import SetKind

Members = Callable[[str], Collection[bytes]]
"""The members of a set by id; empty for a set that does not exist."""

NEIGHBOUR_TYPES = frozenset((*range(130, 138), 143))
"""ICMPv6 types without which IPv6 does not work at all: MLD and neighbour discovery (RFC 4890 §4.4.1)."""


class Verdict(StrEnum):
    ALLOWED = "allowed"
    BLOCKED = "blocked"


class Reason(StrEnum):
    LOOPBACK = "loopback"
    """A Pod cannot block itself: own-address traffic never leaves it."""
    NOT_ISOLATED = "not isolated"
    OWN_NODE = "own node"
    """The Pod's own node may always connect in; and be reached, unless a setting says otherwise."""
    INFRASTRUCTURE = "infrastructure"
    """Neighbour discovery and multicast listener messages."""
    RULE = "rule"
    NO_RULE = "no rule"
    """Isolated, and no rule allows it."""
    VIRTUAL_ALLOWED = "virtual address allowed"
    VIRTUAL = "virtual address not allowed"
    """Some endpoint behind the Service is not allowed, or it has none."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A verdict and what decided it."""

    verdict: Verdict
    reason: Reason
    rule: str = ""
    """Id of the deciding rule, as in the kernel; empty where none decided."""
    policy: str = ""
    """The object behind the rule."""
    isolating: tuple[str, ...] = ()
    """For a block: the policies that isolate."""

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOWED


def _allowed(reason: Reason) -> Judgement:
    return Judgement(verdict=Verdict.ALLOWED, reason=reason)


def _blocked(reason: Reason, denial: Denial, direction: Direction) -> Judgement:
    rule = denial_id(denial, direction.isolating)
    return Judgement(verdict=Verdict.BLOCKED, reason=reason, rule=rule, isolating=direction.isolating)


LOOPBACK = _allowed(Reason.LOOPBACK)
NOT_ISOLATED = _allowed(Reason.NOT_ISOLATED)
OWN_NODE = _allowed(Reason.OWN_NODE)
INFRASTRUCTURE = _allowed(Reason.INFRASTRUCTURE)
VIRTUAL_ALLOWED = _allowed(Reason.VIRTUAL_ALLOWED)


class Flow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A new connection as the packet shows it: packed addresses, protocol number, destination port.

    For ICMP and ICMPv6 *port* is the message type.
    """

    source: bytes
    destination: bytes
    protocol: int
    port: int


def judge_ingress(program: Program | None, flow: Flow, members: Members, node: Collection[bytes] = ()) -> Judgement:
    """Judge *flow* at its destination, whose program is *program*.

    *node* holds the addresses of the Pod's own node. ``None`` is a Pod without a program: nothing is enforced.
    """
    if flow.source == flow.destination:
        return LOOPBACK
    if program is None or program.ingress is None:
        return NOT_ISOLATED
    if flow.protocol == ICMPV6 and flow.port in NEIGHBOUR_TYPES:
        return INFRASTRUCTURE
    if flow.source in node:
        return OWN_NODE
    return judge_rules(program.ingress, flow.source, flow, members, node)


def judge_egress(program: Program | None, flow: Flow, members: Members, node: Collection[bytes] = ()) -> Judgement:
    """Judge *flow* at its source, whose program is *program*; otherwise as `judge_ingress`."""
    if flow.source == flow.destination:
        return LOOPBACK
    if program is None or program.egress is None:
        return NOT_ISOLATED
    if flow.protocol == ICMPV6 and flow.port in NEIGHBOUR_TYPES:
        return INFRASTRUCTURE
    direction = program.egress
    if (virtual := direction.virtual) is not None and any(
        _holds(identity, flow.destination, flow, members, node) for identity in (virtual.addresses, virtual.ports)
    ):
        if any(_holds(identity, flow.destination, flow, members, node) for identity in virtual.allowed):
            return VIRTUAL_ALLOWED
        return _blocked(Reason.VIRTUAL, Denial.VIRTUAL, direction)
    return judge_endpoint(direction, flow, members, node)


def judge_endpoint(direction: Direction, flow: Flow, members: Members, node: Collection[bytes] = ()) -> Judgement:
    """Judge *flow*, whose destination is surely no virtual address, by the egress *direction*."""
    if direction.own_node and flow.destination in node:
        return OWN_NODE
    return judge_rules(direction, flow.destination, flow, members, node)


def judge_rules(
    direction: Direction, peer: bytes, flow: Flow, members: Members, node: Collection[bytes] = ()
) -> Judgement:
    """Judge *flow* by a direction's rules alone: *peer* does not pass as the own node, and is no virtual address."""
    for rule in direction.rules:
        if _matches(rule, peer, flow, members, node):
            return Judgement(verdict=Verdict.ALLOWED, reason=Reason.RULE, rule=rule.id, policy=rule.policy)
    return _blocked(Reason.NO_RULE, Denial.DEFAULT, direction)


def _matches(rule: Rule, peer: bytes, flow: Flow, members: Members, node: Collection[bytes]) -> bool:
    """Echo requests follow the peers: where any port is open to someone, so is the question whether the Pod lives."""
    if rule.ports is not None and not is_echo(flow) and not any(_covers(ports, flow) for ports in rule.ports):
        return False
    return rule.sets is None or any(_holds(identity, peer, flow, members, node) for identity in rule.sets)


def is_echo(flow: Flow) -> bool:
    """Whether *flow* is an ICMP or ICMPv6 echo request."""
    return ECHO.get(flow.protocol) == flow.port


def _covers(ports: PortRange, flow: Flow) -> bool:
    return ports.protocol == flow.protocol and ports.first <= flow.port <= ports.last


def _holds(identity: str, peer: bytes, flow: Flow, members: Members, node: Collection[bytes]) -> bool:
    """Whether the set holds *peer*: by its address, of tuples also as one of the node's own."""
    which, found = sets.kind_of(identity), members(identity)
    if which is SetKind.TUPLES and peer in node:
        door = sets.endpoint(peer, flow.protocol, _port(flow))
        return door in found or sets.here(door) in found
    return sets.contains(which, found, peer, flow.protocol, _port(flow))


def _port(flow: Flow) -> int:
    """What stands for it in a set."""
    return sets.icmp_port(flow.port) if flow.protocol in ECHO else flow.port
