"""From address sets to ipsets and back: types, names, and members as the tool writes them."""

import ipaddress
from collections.abc import Iterable
from typing import Final

from enforcers.core.layout import NODE_SET, TEMPORARY, Family, set_name
from schemas import addresses, sets
from schemas.addresses import PROTOCOL_NAMES, PROTOCOLS
from schemas.sets import SetKind

TYPES: Final = {SetKind.ADDRESSES: "hash:ip", SetKind.BLOCKS: "hash:net", SetKind.TUPLES: "hash:ip,port"}
FAMILY_NAMES: Final[dict[Family, str]] = {4: "inet", 6: "inet6"}
MAX_MEMBERS: Final = 1 << 20
"""maxelem: a set that is full refuses members, so it is generous; it costs nothing until used."""
LEAST_HASH: Final = 64


def kind(identity: str) -> SetKind:
    """The kind of a set; the own node's are addresses. Raises `ValueError` for an id of no known kind."""
    return SetKind.ADDRESSES if identity == NODE_SET else sets.kind_of(identity)


def kernel_members(identity: str, members: Iterable[bytes]) -> frozenset[bytes]:
    """*members* as the kernel holds them: hash:net refuses a block of everything, so that becomes its two halves."""
    if kind(identity) is not SetKind.BLOCKS:
        return frozenset(members)
    found: set[bytes] = set()
    for member in members:
        network, exception = sets.unpack_block(member)
        if network.prefixlen:
            found.add(member)
        else:
            found.update(sets.block(half, exception=exception) for half in network.subnets())
    return frozenset(found)


def of_family(members: Iterable[bytes], family: Family) -> list[bytes]:
    """Sorted, so that equal sets are written alike."""
    return sorted(member for member in members if sets.family_of(member) == family)


def element(which: SetKind, member: bytes) -> str:
    """One member in the tool's words, as it also prints it."""
    if which is SetKind.ADDRESSES:
        return addresses.unpack(member)
    if which is SetKind.TUPLES:
        address, protocol, port = sets.unpack_endpoint(member)
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
        protocol, _, port = rest.partition(":")
        if protocol.upper() not in PROTOCOLS:
            raise ValueError(f"{text!r} has a protocol that no program names")
        return sets.endpoint(ipaddress.ip_address(address).packed, PROTOCOLS[protocol.upper()], int(port))
    network, _, option = text.partition(" ")
    return sets.block(ipaddress.ip_network(network), exception=option == "nomatch")


def create(identity: str, family: Family, expected: int, *, name: str = "") -> str:
    """The command that creates the set with room for *expected* members: growing one is dear (20 ms per 10,000)."""
    size = LEAST_HASH
    while size < expected:
        size *= 2
    options = f"family {FAMILY_NAMES[family]} hashsize {size} maxelem {MAX_MEMBERS}"
    return f"create {name or set_name(identity, family)} {TYPES[kind(identity)]} {options}"


def change(identity: str, family: Family, added: Iterable[bytes], removed: Iterable[bytes]) -> list[str]:
    """Commands that change a set's members in place."""
    name, which = set_name(identity, family), kind(identity)
    adding = [f"add {name} {element(which, member)}" for member in added]
    return adding + [f"del {name} {element(which, member).removesuffix(' nomatch')}" for member in removed]


def replace(identity: str, family: Family, members: Iterable[bytes]) -> list[str]:
    """Commands that make a set hold exactly *members*, in one step for whoever looks it up, whatever it held."""
    name, temporary, which = set_name(identity, family), set_name(identity, family) + TEMPORARY, kind(identity)
    chosen = of_family(members, family)
    return [
        create(identity, family, len(chosen)),
        create(identity, family, len(chosen), name=temporary),
        f"flush {temporary}",
        *(f"add {temporary} {element(which, member)}" for member in chosen),
        f"swap {temporary} {name}",
        f"destroy {temporary}",
    ]
