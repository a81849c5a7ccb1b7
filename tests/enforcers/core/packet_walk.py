"""What the kernel does with the first packet of a connection that meets rendered chains, by its own rules for sets.

A second reading of the rules, to hold the verdict interpreter against. A word that it does not know is an error.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from enforcers.core import layout
from enforcers.core.layout import Family
from enforcers.core.rendering import Chain
from enforcers.core.set_rendering import kernel_members, kind, of_family
from schemas import sets
from schemas.addresses import ICMP, ICMPV6, SCTP, TCP, UDP
from schemas.sets import SetKind

PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "icmp": ICMP, "ipv6-icmp": ICMPV6}
FIRST: Final = {"--ctdir": ("ORIGINAL",), "--ctstate": ("NEW",)}
"""What conntrack says of it."""


class Packet(msgspec.Struct, frozen=True):
    source: bytes
    destination: bytes
    protocol: int
    port: int
    """Of ICMP the type."""


class Walk:
    """A namespace whose *chains* name *held* sets, by id."""

    def __init__(self, chains: Sequence[Chain], held: Mapping[str, frozenset[bytes]], family: Family) -> None:
        self._chains = {chain.name: chain.rules for chain in chains}
        self._family = family
        self._sets = {
            layout.set_name(identity, family): (
                kind(identity),
                frozenset(of_family(kernel_members(identity, each), family)),
            )
            for identity, each in held.items()
        }

    def __call__(self, chain: str, packet: Packet) -> tuple[bool, str]:
        """Whether it passes, and the id of the rule that decided."""
        for rule in self._chains[chain]:
            if not self._matches(rule.match.split(), packet):
                continue
            option, target, *_ = rule.target.split()
            if target == "RETURN":
                return True, rule.id
            if target == "DROP":
                return False, rule.id
            if target == layout.OK:
                return True, rule.id
            assert option == "-g"
            return self(target, packet)  # nothing comes back from there
        raise AssertionError(f"{chain} does not decide")

    def _matches(self, words: list[str], packet: Packet) -> bool:
        module = ""
        while words:
            option, *words = words
            if option == "-m":
                module, *words = words
            elif option == "--match-set":
                name, sides, *words = words
                if not self._holds(name, sides.split(","), packet):
                    return False
            elif option == "--tcp-flags":
                _, wanted, *words = words
                if (packet.protocol, wanted) != (TCP, "SYN"):
                    return False
            else:
                value, *words = words
                if not self._is(module, option, value, packet):
                    return False
        return True

    def _is(self, module: str, option: str, value: str, packet: Packet) -> bool:
        match module, option:
            case _, "-p":
                return packet.protocol == PROTOCOLS[value]
            case "conntrack", "--ctdir" | "--ctstate":
                return value in FIRST[option]
            case "connmark", "--mark":
                return False
            case "icmp" | "icmp6", "--icmp-type" | "--icmpv6-type":
                return packet.port == int(value)
            case "tcp" | "udp" | "sctp" | "multiport", "--dport" | "--dports":
                ranges = [each.partition(":") for each in value.split(",")]
                return any(int(first) <= packet.port <= int(last or first) for first, _, last in ranges)
        raise AssertionError(f"{module} {option} {value}")

    def _holds(self, name: str, sides: list[str], packet: Packet) -> bool:
        which, members = self._sets[name]
        address = packet.source if sides[0] == "src" else packet.destination
        if which is SetKind.ADDRESSES:
            assert len(sides) == 1
            return address in members
        if which is SetKind.TUPLES:
            assert sides[1] == "dst"
            port = packet.port << 8 if packet.protocol in (ICMP, ICMPV6) else packet.port
            return packet.protocol in PROTOCOLS.values() and sets.endpoint(address, packet.protocol, port) in members
        blocks = [sets.unpack_block(member) for member in members]
        holding = [(net.prefixlen, no) for net, no in blocks if ipaddress.ip_address(address) in net]
        return bool(holding) and not max(holding)[1]  # the longest decides; no two are alike in the kernel
