"""From a program to iptables chains.

    PREROUTING  ─ -i <if> ─▶ EW-IN  ─▶ EW-IN-NEW  ┬─▶ EW-OK    mark the connection, return
    POSTROUTING ─ -o <if> ─▶ EW-OUT ─▶ EW-OUT-NEW ┼─▶ EW-VIP   virtual addresses are decided there, finally
                                                  ├─▶ EW-…-ECHO  echo requests, by their peers alone, finally
                                                  └─▶ drop

Allowed means marked and returned, never accepted: what the Pod itself forbids stays forbidden. Both directions get
chains as soon as one is isolated, since replies to a Pod's own connections would otherwise die at its isolated side.

Only packets in a connection's original direction may earn the mark. A reply that has no mark belongs to a connection
that was cut (or never judged): it is dropped where isolated, else the next push of the other side would heal the cut.
A packet that belongs to no connection at all (INVALID) has no direction and cannot be marked; it is judged by the
rules like a first packet, not dropped for being invalid. It gets through only where a new connection would.

An initial SYN never passes by the mark: an entry that outlived its connection would admit a new one from that port.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from enforcers.core import layout
from enforcers.core.layout import Family, Interface, set_name
from schemas.addresses import ECHO, ICMP, ICMPV6, SCTP, TCP, UDP
from schemas.programs import Denial, Direction, PortRange, Program, Rule, denial_id
from schemas.sets import SetKind, kind_of
from schemas.verdict import NEIGHBOUR_TYPES

MULTIPORT_SLOTS: Final = 15
"""xt_multiport holds 15 ports; a range takes two."""
PROTOCOL_NAMES: Final = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
COMMENT: Final = "ew:"
DIGEST_BYTES: Final = 6
DROP: Final = "-j DROP"
PRIMING: Final = "priming"
ICMP_NAMES: Final[dict[Family, str]] = {4: "icmp", 6: "ipv6-icmp"}
ECHO_MATCHES: Final[dict[Family, str]] = {
    4: f"-p icmp -m icmp --icmp-type {ECHO[ICMP]}",
    6: f"-p ipv6-icmp -m icmp6 --icmpv6-type {ECHO[ICMPV6]}",
}
REMEMBERED: Final = 1 << 14
"""Rules whose comment is not made again: most stand in many Pods, and each is asked for several times."""


class KernelRule(msgspec.Struct, frozen=True, gc=False):
    """One line of iptables, in two halves."""

    match: str
    target: str
    """With its flag: ``-j DROP``, ``-g EW-OK``."""
    id: str = ""
    """Of the program's rule behind it, or what it is for."""

    @property
    def comment(self) -> str:
        """``ew:<digest>:<id>``: what reads back unchanged and says whether the rule is the one we wrote."""
        return _comment(self.match, self.target, self.id)

    def line(self, chain: str, command: str = "-A") -> str:
        match = f" {self.match}" if self.match else ""
        return f'{command} {chain}{match} -m comment --comment "{self.comment}" {self.target}'


@lru_cache(maxsize=REMEMBERED)
def _comment(match: str, target: str, identity: str) -> str:
    digest = hashlib.blake2b(f"{match}\0{target}".encode(), digest_size=DIGEST_BYTES).hexdigest()
    return f"{COMMENT}{digest}:{identity}"


class Chain(msgspec.Struct, frozen=True):
    name: str
    rules: tuple[KernelRule, ...]

    @property
    def comments(self) -> tuple[str, ...]:
        return tuple(rule.comment for rule in self.rules)


def render(program: Program, interface: Interface, family: Family) -> tuple[Chain, ...]:
    """The chains of *program* in one family; none where nothing isolates the Pod."""
    if not program.isolated:
        return ()
    chains = [
        Chain(layout.OK, (KernelRule("", f"-j CONNMARK --set-xmark {_mark(interface)}", "allowed"),)),
        *_entry("-i", interface, layout.IN, layout.IN_LINK, layout.IN_NEW),
        _new_inbound(program.ingress, family),
        *_entry("-o", interface, layout.OUT, layout.OUT_LINK, layout.OUT_NEW),
        _new_outbound(program.egress, family),
    ]
    if program.egress is not None and program.egress.virtual is not None:
        chains.append(_virtual(program.egress, family))
    if program.ingress is not None and _asks_for_ports(program.ingress):
        chains.append(_echo(layout.IN_ECHO, program.ingress, family, "src"))
    if program.egress is not None and _asks_for_ports(program.egress):
        chains.append(_echo(layout.OUT_ECHO, program.egress, family, "dst"))
    return tuple(chains)


def prime(chains: Iterable[Chain]) -> tuple[Chain, ...]:
    """*chains* as they begin where connections exist: they track and mark, and drop nothing.

    The kernel knows of no connection yet who began it. So of TCP only what begins now may earn the mark, by its SYN;
    whatever else does is set right before the chains that drop take their place.
    """
    primed = []
    for chain in chains:
        rules = [rule if rule.target != DROP else KernelRule(rule.match, "-j RETURN", rule.id) for rule in chain.rules]
        if chain.name in (layout.IN, layout.OUT):
            rules.insert(1, KernelRule("-p tcp", "-j RETURN", PRIMING))  # after the one for what begins
        primed.append(Chain(chain.name, tuple(rules)))
    return tuple(primed)


def is_primed(comments: Iterable[str]) -> bool:
    """Whether the rules with these *comments* are an entry chain of `prime`'s."""
    return any(comment.rpartition(":")[2] == PRIMING for comment in comments)


def jumps(interface: Interface) -> dict[str, KernelRule]:
    """The first rule of each hook."""
    return {
        "PREROUTING": KernelRule(_one("-i", interface), f"-j {layout.IN}", "in"),
        "POSTROUTING": KernelRule(_one("-o", interface), f"-j {layout.OUT}", "out"),
    }


def _one(flag: str, interface: Interface) -> str:
    """The only link; of several, the chain behind the jump asks."""
    return "" if interface.others else f"{flag} {interface.name}"


def _mark(interface: Interface) -> str:
    return f"{interface.mark:#x}/{interface.mark:#x}"


def _entry(flag: str, interface: Interface, name: str, link: str, new: str) -> Iterator[Chain]:
    """Of several links the chain *name* asks, and leads to the chain *link*, which then is the entry."""
    if interface.others:
        links = (interface.name, *interface.others)
        yield Chain(name, tuple(KernelRule(f"{flag} {each}", f"-g {link}", "link") for each in links))
        name = link
    yield Chain(
        name,
        (
            KernelRule("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", f"-g {new}", "initial-syn"),
            KernelRule(f"-m connmark --mark {_mark(interface)}", "-j RETURN", "allowed-before"),
            KernelRule("", f"-g {new}", "new"),
        ),
    )


def _new_inbound(direction: Direction | None, family: Family) -> Chain:
    if direction is None:
        return Chain(layout.IN_NEW, (_OPEN,))
    rules = [
        *_neighbours(family),
        *_cut(direction, family),
        KernelRule(f"-m set --match-set {set_name(layout.NODE_SET, family)} src", f"-g {layout.OK}", "own-node"),
        *_to_echo(layout.IN_ECHO, direction, family),
        *_allow(direction.rules, family, "src"),
        _drop(Denial.DEFAULT, direction),
    ]
    return Chain(layout.IN_NEW, tuple(rules))


def _new_outbound(direction: Direction | None, family: Family) -> Chain:
    if direction is None:
        return Chain(layout.OUT_NEW, (_OPEN,))
    rules = [*_neighbours(family), *_cut(direction, family)]
    if virtual := direction.virtual:
        rules += [
            KernelRule(_member(identity, family, "dst"), f"-g {layout.VIRTUAL}", "virtual")
            for identity in (virtual.addresses, virtual.ports)
        ]
    if direction.own_node:
        node = set_name(layout.NODE_SET, family)
        rules.append(KernelRule(f"-m set --match-set {node} dst", f"-g {layout.OK}", "own-node"))
    rules += [
        *_to_echo(layout.OUT_ECHO, direction, family),
        *_allow(direction.rules, family, "dst"),
        _drop(Denial.DEFAULT, direction),
    ]
    return Chain(layout.OUT_NEW, tuple(rules))


def _virtual(direction: Direction, family: Family) -> Chain:
    assert direction.virtual is not None
    allowed = [
        KernelRule(_member(identity, family, "dst"), f"-g {layout.OK}", "virtual-allowed")
        for identity in direction.virtual.allowed
    ]
    return Chain(layout.VIRTUAL, (*allowed, _drop(Denial.VIRTUAL, direction)))


_OPEN: Final = KernelRule("-m conntrack --ctdir ORIGINAL", f"-g {layout.OK}", "not-isolated")


def _drop(denial: Denial, direction: Direction, match: str = "") -> KernelRule:
    return KernelRule(match, DROP, denial_id(denial, direction.isolating))


def _cut(direction: Direction, family: Family) -> Iterator[KernelRule]:
    """Nothing of a connection without the mark passes but what may earn it.

    An error belongs to the connection that it is about, in the direction in which it travels, and may come from anyone
    on the way. Where rules admit that one, or it is the own node, its error would mark a connection that was cut.
    """
    yield _drop(Denial.UNMARKED, direction, "-m conntrack --ctdir REPLY")
    yield _drop(Denial.UNMARKED, direction, f"-p {ICMP_NAMES[family]} -m conntrack --ctstate RELATED")


def _neighbours(family: Family) -> Iterator[KernelRule]:
    if family == 6:
        for kind in sorted(NEIGHBOUR_TYPES):
            yield KernelRule(f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind}", "-j RETURN", "neighbours")


def _asks_for_ports(direction: Direction) -> bool:
    """Whether any rule does: the others cover echo requests as they cover everything."""
    return any(rule.ports is not None for rule in direction.rules)


def _to_echo(chain: str, direction: Direction, family: Family) -> Iterator[KernelRule]:
    if _asks_for_ports(direction):
        yield KernelRule(ECHO_MATCHES[family], f"-g {chain}", "echo")


def _echo(name: str, direction: Direction, family: Family, side: str) -> Chain:
    """Where any port is open to a peer, so is the question whether the Pod lives: each set once, whatever the ports."""
    peers: dict[str, str] = {}
    for rule in direction.rules:
        for peer in _peers(rule, family, side):
            peers.setdefault(peer, rule.id)
    allowed = (KernelRule(peer, f"-g {layout.OK}", identity) for peer, identity in peers.items())
    return Chain(name, (*allowed, _drop(Denial.DEFAULT, direction)))


def _peers(rule: Rule, family: Family, side: str) -> list[str]:
    """A match for each of its sets; one of everybody where it has none."""
    return [""] if rule.sets is None else [_member(identity, family, side) for identity in rule.sets]


def _allow(rules: Iterable[Rule], family: Family, side: str) -> Iterator[KernelRule]:
    """One kernel rule per peer set and handful of ports."""
    for rule in rules:
        peers = _peers(rule, family, side)
        ports = [""] if rule.ports is None else list(_port_matches(rule.ports))
        for peer in peers:
            for port in ports:
                yield KernelRule(" ".join(filter(None, (port, peer))), f"-g {layout.OK}", rule.id)


def _member(identity: str, family: Family, side: str) -> str:
    """A set of tuples looks at the packet's protocol and destination port beside the address."""
    sides = f"{side},dst" if kind_of(identity) is SetKind.TUPLES else side
    return f"-m set --match-set {set_name(identity, family)} {sides}"


def _port_matches(ports: Sequence[PortRange]) -> Iterator[str]:
    by_protocol: dict[int, list[PortRange]] = {}
    for each in ports:
        by_protocol.setdefault(each.protocol, []).append(each)
    for protocol, ranges in sorted(by_protocol.items()):
        name = PROTOCOL_NAMES.get(protocol, str(protocol))
        if any((each.first, each.last) == (0, 65535) for each in ranges):
            yield f"-p {name}"
            continue
        for chunk in _chunks(sorted(set(ranges))):
            texts = [f"{each.first}" if each.first == each.last else f"{each.first}:{each.last}" for each in chunk]
            if len(texts) == 1:
                yield f"-p {name} -m {name} --dport {texts[0]}"
            else:
                yield f"-p {name} -m multiport --dports {','.join(texts)}"


def _chunks(ranges: Sequence[PortRange]) -> Iterator[list[PortRange]]:
    chunk: list[PortRange] = []
    used = 0
    for each in ranges:
        slots = 1 if each.first == each.last else 2
        if used + slots > MULTIPORT_SLOTS:
            yield chunk
            chunk, used = [], 0
        chunk.append(each)
        used += slots
    if chunk:
        yield chunk
