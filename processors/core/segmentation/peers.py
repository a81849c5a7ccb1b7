"""The parts of a NetworkPolicy rule: peers and ports, each read by itself.

A part that cannot be read admits nobody, and so does one with a field this version does not know: what it was meant
to restrict is unknown. Source: field comments of ``NetworkPolicyPeer``, ``IPBlock``, ``NetworkPolicyPort``
(networking/v1).
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from processors.core.segmentation.selection.selectors import Selector, Unreadable, read_selector
from schemas import addresses, sets
from schemas.addresses import PROTOCOLS, TCP

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
"""IPv4 addresses written as IPv6 (RFC 4291 §2.5.5.2)."""


class PodPeer(msgspec.Struct, frozen=True):
    """Pods by label, in namespaces by label."""

    namespaces: Selector | None
    """``None``: the policy's own namespace."""
    pods: Selector


class BlockPeer(msgspec.Struct, frozen=True):
    """Addresses by block, Pods' addresses included."""

    definition: str
    """Canonical: equal for blocks with the same cidr and exceptions; of several blocks, separated by commas."""
    members: frozenset[bytes]
    """As in a *blocks* set."""


Peer = PodPeer | BlockPeer


class PortMatch(msgspec.Struct, frozen=True, order=True):
    """Destination ports: numbers *first* to *last*, or whatever the destination Pod calls *name*."""

    protocol: int
    first: int = 0
    last: int = 65535
    name: str = ""


class Problems:
    """What could not be read, collected in the order of the manifest."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def read(self, read: Callable[[object, str], T], value: object, where: str) -> T | None:
        """*value* as *read* reads it; ``None``, and a problem noted, where that fails."""
        try:
            return read(value, where)
        except Unreadable as error:
            self.found.append(str(error))
            return None

    def read_list(self, read: Callable[[object, str], T | None], value: object, where: str) -> tuple[T, ...] | None:
        """The readable items of a list; ``None`` where the list is null, absent or empty: the API's *any*.

        Something that is no list has no readable item.
        """
        if value is None or value == []:
            return None
        if not isinstance(value, list):
            self.found.append(f"{where}: is not a list")
            return ()
        items = (self.read(read, item, f"{where}[{index}]") for index, item in enumerate(value))
        return tuple(item for item in items if item is not None)


def fields(value: object, where: str, known: frozenset[str]) -> dict[str, object]:
    """*value* as an object that has no other fields than *known*; null counts as absent. Raises `Unreadable`."""
    if not isinstance(value, dict):
        raise Unreadable(where, "is not an object")
    if unknown := value.keys() - known:
        raise Unreadable(where, f"has the unknown field {min(unknown)!r}")
    return {key: item for key, item in value.items() if item is not None}


PEER_FIELDS: Final = frozenset(("podSelector", "namespaceSelector", "ipBlock"))
BLOCK_FIELDS: Final = frozenset(("cidr", "except"))
PORT_FIELDS: Final = frozenset(("protocol", "port", "endPort"))


def read_peer(value: object, where: str) -> Peer | None:
    """One entry of ``from`` or ``to``; ``None`` for a block with nothing in it. Raises `Unreadable`."""
    given = fields(value, where, PEER_FIELDS)
    if "ipBlock" in given:
        if len(given) > 1:
            raise Unreadable(where, "has an ipBlock and a selector; a peer is one or the other")
        return read_block(given["ipBlock"], f"{where}.ipBlock")
    if not given:
        raise Unreadable(where, "names no peer: give a podSelector, a namespaceSelector or an ipBlock")
    namespaces = given.get("namespaceSelector")
    return PodPeer(
        None if namespaces is None else read_selector(namespaces, f"{where}.namespaceSelector"),
        read_selector(given.get("podSelector", {}), f"{where}.podSelector"),
    )


def read_block(value: object, where: str) -> BlockPeer | None:
    """An ``ipBlock``; ``None`` where its exceptions leave nothing of it. Raises `Unreadable`.

    An exception outside the block takes nothing away. Exceptions that overlap or touch are joined, so that blocks
    which mean the same are the same.
    """
    given = fields(value, where, BLOCK_FIELDS)
    network = _network(given.get("cidr"), f"{where}.cidr")
    listed = given.get("except", [])
    if not isinstance(listed, list):
        raise Unreadable(f"{where}.except", "is not a list")
    exceptions = [_network(item, f"{where}.except[{index}]") for index, item in enumerate(listed)]
    inside = _joined([item for item in exceptions if item.version == network.version and item.overlaps(network)])
    if any(item.prefixlen <= network.prefixlen for item in inside):
        return None
    return BlockPeer(
        definition="|".join(map(str, (network, *inside))),
        members=frozenset((sets.block(network), *(sets.block(item, exception=True) for item in inside))),
    )


def joined(peers: Iterable[Peer]) -> list[Peer]:
    """*peers* with all blocks that have no exceptions as one; those that overlap or touch are joined.

    Lists of thousands of blocks are common, and the kernel tries the sets of a rule one after the other. Exceptions
    hold for a whole set, so a block that has some stays by itself.
    """
    found: list[Peer] = []
    plain: list[Network] = []
    for peer in peers:
        if isinstance(peer, BlockPeer) and len(peer.members) == 1:
            plain.append(ipaddress.ip_network(peer.definition))
        else:
            found.append(peer)
    if networks := _joined(plain):
        found.append(BlockPeer(",".join(map(str, networks)), frozenset(map(sets.block, networks))))
    return found


def _joined(networks: list[Network]) -> list[Network]:
    found: list[Network] = []
    found += ipaddress.collapse_addresses(item for item in networks if isinstance(item, ipaddress.IPv4Network))
    found += ipaddress.collapse_addresses(item for item in networks if isinstance(item, ipaddress.IPv6Network))
    return found


def _network(value: object, where: str) -> Network:
    """A CIDR; host bits and leading zeros are ignored, as the API server's reader does. An IPv4-mapped one is IPv4."""
    address, _, length = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not (length.isascii() and length.isdecimal()):  # Python would take a netmask, too
        raise Unreadable(where, f"{value!r} is not a CIDR")
    try:
        if ":" not in address:
            address = addresses.unpack(addresses.pack(address))
        network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    except ValueError as error:
        raise Unreadable(where, f"{value!r} is not a CIDR: {error}") from error
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        return ipaddress.IPv4Network((network.network_address.packed[-4:], network.prefixlen - MAPPED.prefixlen))
    return network


def read_port(value: object, where: str) -> PortMatch:
    """One entry of ``ports``. Raises `Unreadable`.

    ``protocol`` absent means TCP; ``port`` absent means every port of the protocol; ``endPort`` needs a number to
    begin from.
    """
    given = fields(value, where, PORT_FIELDS)
    protocol = _protocol(given.get("protocol"), f"{where}.protocol")
    port, end = given.get("port"), given.get("endPort")
    if port is None:
        if end is not None:
            raise Unreadable(f"{where}.endPort", "needs a port to begin from")
        return PortMatch(protocol)
    if isinstance(port, str):
        if end is not None:
            raise Unreadable(f"{where}.endPort", "needs a numeric port, not a named one")
        if not any(map(str.isalpha, port)):
            raise Unreadable(f"{where}.port", f"{port!r} is neither a number nor a name")
        return PortMatch(protocol, name=port)
    first = _number(port, f"{where}.port")
    last = first if end is None else _number(end, f"{where}.endPort")
    if last < first:
        raise Unreadable(f"{where}.endPort", f"{last} is below port {first}")
    return PortMatch(protocol, first, last)


def _protocol(value: object, where: str) -> int:
    if value is None:
        return TCP
    if not isinstance(value, str) or value not in PROTOCOLS:
        raise Unreadable(where, f"{value!r} is not TCP, UDP or SCTP")
    return PROTOCOLS[value]


def _number(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise Unreadable(where, f"{value!r} is not a port from 1 to 65535")
    return value
