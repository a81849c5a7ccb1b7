"""From address sets to ipsets and back: types, names, and members as the tool writes them."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from enforcers.core.layout import FAMILIES, NODE_SET, Family, set_name
from enforcers.core.tracked_sets import TrackedSet
from schemas import addresses, sets
from schemas.addresses import ICMP, ICMPV6, PROTOCOL_NAMES, PROTOCOLS
from schemas.sets import SetKind

TYPES: Final = {SetKind.ADDRESSES: "hash:ip", SetKind.BLOCKS: "hash:net", SetKind.TUPLES: "hash:ip,port"}
FAMILY_NAMES: Final[dict[Family, str]] = {4: "inet", 6: "inet6"}
ECHO_TEXTS: Final = {ICMP: "icmp:echo-request", ICMPV6: "ipv6-icmp:echo-request"}
MAX_MEMBERS: Final = 1 << 20
"""maxelem: a set that is full refuses members, so it is generous; it costs nothing until used."""
LEAST_HASH: Final = 64
MOST_FOREIGN: Final = 1 << 12
"""Members that others may have put into a set of ours for it to be read: it may have room for a million."""
NULLS: Final = frozenset(map(bytes, addresses.WIDTHS.values()))


def kind(identity: str) -> SetKind:
    """The kind of a set; the own node's are addresses. Raises `ValueError` for an id of no known kind."""
    return SetKind.ADDRESSES if identity == NODE_SET else sets.kind_of(identity)


def kernel_members(identity: str, members: Iterable[bytes]) -> frozenset[bytes]:
    """*members* as the kernel holds them.

    Of addresses and tuples without those of the null address, which no packet between Pods has and the kernel refuses.
    hash:net refuses a block of everything, so that becomes its two halves, where nothing longer decides about them; and
    it holds a block once, so that an exception alike takes its place.
    """
    which = kind(identity)
    if which is SetKind.ADDRESSES:
        return frozenset(members).difference(NULLS)
    if which is SetKind.TUPLES:
        return frozenset(member for member in members if member[:-3] not in NULLS)
    found, everything = set[bytes](), set[bytes]()
    for member in members:
        (found if member[-2] else everything).add(member)
    decided = {member[:-1] for member in found}
    for member in everything:
        network, exception = sets.unpack_block(member)
        halves = (sets.block(half, exception=exception) for half in network.subnets())
        found.update(half for half in halves if half[:-1] not in decided)
    return frozenset(member for member in found if member[-1] or member[:-1] + b"\1" not in found)


def differences(identity: str, there: frozenset[bytes], wanted: frozenset[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What to add to a set as it is *there*, and what to take out then, so that it is as *wanted*.

    A block that becomes an exception, or the other way round, is only added: taken out, it would be gone as both.
    """
    added, removed = sorted(wanted - there), sorted(there - wanted)
    if kind(identity) is SetKind.BLOCKS:
        overwritten = {member[:-1] for member in added}
        removed = [member for member in removed if member[:-1] not in overwritten]
    return added, removed


def reading_limits(identities: Iterable[str], tracked: Mapping[str, TrackedSet]) -> dict[str, int]:
    """By name of ipset, how many members it may have to be read at all; any other is not read."""
    most = {identity: tracked[identity].most + MOST_FOREIGN for identity in identities if identity in tracked}
    return {set_name(identity, family): limit for identity, limit in most.items() for family in FAMILIES}


def of_family(members: Iterable[bytes], family: Family) -> list[bytes]:
    """Sorted, so that equal sets are written alike."""
    return sorted(member for member in members if sets.family_of(member) == family)


def element(which: SetKind, member: bytes) -> str:
    """One member in the tool's words, as it also prints it."""
    if which is SetKind.ADDRESSES:
        return addresses.unpack(member)
    if which is SetKind.TUPLES:
        address, protocol, port = sets.unpack_endpoint(member)
        if member == sets.echo(address):
            return f"{addresses.unpack(address)},{ECHO_TEXTS[protocol]}"
        return f"{addresses.unpack(address)},{PROTOCOL_NAMES[protocol].lower()}:{port}"
    network, exception = sets.unpack_block(member)
    text = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
    return f"{text} nomatch" if exception else text


def parse_element(which: SetKind, text: str) -> bytes:
    """The member that the tool prints as *text*; raises `ValueError` for what we would never have written."""
    if which is SetKind.ADDRESSES:
        return ipaddress.ip_address(text).packed
    if which is SetKind.TUPLES:
        address, _, rest = text.partition(",")
        if rest in ECHO_TEXTS.values():
            return sets.echo(ipaddress.ip_address(address).packed)
        protocol, _, port = rest.partition(":")
        if protocol.upper() not in PROTOCOLS:
            raise ValueError(f"{text!r} has a protocol that no program names")
        return sets.endpoint(ipaddress.ip_address(address).packed, PROTOCOLS[protocol.upper()], int(port))
    network, _, option = text.partition(" ")
    return sets.block(ipaddress.ip_network(network), exception=option == "nomatch")


def hash_size(expected: int) -> int:
    """Buckets for *expected* members from the start: growing a set is dear (20 ms per 10,000)."""
    return max(LEAST_HASH, 1 << (expected - 1).bit_length()) if expected else LEAST_HASH


def shape(identity: str, family: Family, expected: int) -> str:
    """Type and options of a set with room for *expected* members, as the tool takes and prints them."""
    options = f"family {FAMILY_NAMES[family]} hashsize {hash_size(expected)} maxelem {MAX_MEMBERS}"
    return f"{TYPES[kind(identity)]} {options}"


def creation(identity: str, family: Family, members: Sequence[bytes], *, name: str = "") -> list[str]:
    """Commands that create a set, which must not exist, with *members*."""
    name, which = name or set_name(identity, family), kind(identity)
    return [
        f"create {name} {shape(identity, family, len(members))}",
        *(f"add {name} {element(which, member)}" for member in members),
    ]


def change(identity: str, family: Family, added: Iterable[bytes], removed: Iterable[bytes]) -> list[str]:
    """Commands that change a set's members in place."""
    name, which = set_name(identity, family), kind(identity)
    adding = [f"add {name} {element(which, member)}" for member in added]
    return adding + [f"del {name} {element(which, member).removesuffix(' nomatch')}" for member in removed]
