"""Address sets: named sets of packed members, shared by every program that refers to them.

A member is bytes, so that a set is a plain ``set[bytes]``, compares and hashes fast, travels without conversion and
goes to the kernel as it is. The set's kind says what a member holds; its length says the family:

=========== ============================================= ============ ============
kind        member                                        bytes, IPv4  bytes, IPv6
=========== ============================================= ============ ============
addresses   address                                       4            16
blocks      network address, prefix length, exception?    6            18
tuples      address, protocol, port (big-endian)          7            19
=========== ============================================= ============ ============

The port of ICMP is its type and code, as everywhere in ipset: an echo request is ``8 << 8``, in IPv6 ``128 << 8``.

A tuple at the unspecified address (``0.0.0.0``, ``::``) means every address of whichever node enforces: kube-proxy
answers a node port on all of them, and the API names only some.
"""

import base64
import hashlib
import ipaddress
import struct
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import Final

from schemas import addresses

ID_BYTES: Final = 12
DIGEST_MODULUS: Final = 1 << 128
IPV4_MEMBER_LIMIT: Final = 8
"""Members shorter than this are IPv4, in every kind."""


class SetKind(StrEnum):
    """The first letter of a set's id says its kind."""

    ADDRESSES = "a"
    BLOCKS = "b"
    TUPLES = "t"


KINDS: Final[dict[str, SetKind]] = {kind.value: kind for kind in SetKind}
"""By first letter: to ask the enum takes five times as long, and every rule asks."""
UNSPECIFIED: Final = {width: bytes(width) for width in addresses.WIDTHS.values()}
"""The unspecified address, by width."""

EXTRA_BYTES: Final = {SetKind.ADDRESSES: 0, SetKind.BLOCKS: 2, SetKind.TUPLES: 3}


def set_id(kind: SetKind, definition: str) -> str:
    """The id of the set that *definition* defines: 21 characters, the same wherever and whenever it is computed.

    Derived from what the set means (a selector, a block with its exceptions), never from its members, so a changing
    membership keeps its name, and two policies that mean the same peers share one set.
    """
    digest = hashlib.blake2b(definition.encode(), digest_size=ID_BYTES).digest()
    return kind.value + base64.b32encode(digest).decode().rstrip("=").lower()


def kind_of(identity: str) -> SetKind:
    """The kind of the set *identity*; raises `ValueError` for an id of no known kind."""
    try:
        return KINDS[identity[:1]]
    except KeyError:
        raise ValueError(f"{identity!r} is no id of an address set") from None


def family_of(member: bytes) -> int:
    """4 or 6."""
    return 4 if len(member) < IPV4_MEMBER_LIMIT else 6


def member_size(kind: SetKind, family: int) -> int:
    return addresses.WIDTHS[family] + EXTRA_BYTES[kind]


def block(network: ipaddress.IPv4Network | ipaddress.IPv6Network, *, exception: bool = False) -> bytes:
    """A member of a *blocks* set; an exception takes its addresses out of the block around it."""
    return network.network_address.packed + bytes((network.prefixlen, exception))


def endpoint(address: bytes, protocol: int, port: int) -> bytes:
    """A member of a *tuples* set."""
    return address + struct.pack(">BH", protocol, port)


def echo(address: bytes) -> bytes:
    """The member of a *tuples* set that stands for echo requests with *address*."""
    protocol = addresses.ICMP if addresses.family(address) == 4 else addresses.ICMPV6
    return endpoint(address, protocol, icmp_port(addresses.ECHO[protocol]))


def icmp_port(message_type: int) -> int:
    """What stands for a *message_type* with code 0 where a port would be."""
    return message_type << 8


def address_of(kind: SetKind, member: bytes) -> bytes:
    """The address that *member* is about; of a block its network's."""
    return member[: len(member) - EXTRA_BYTES[kind]]


def here(member: bytes) -> bytes:
    """The tuple *member* at every address of the node that enforces."""
    return UNSPECIFIED[len(member) - EXTRA_BYTES[SetKind.TUPLES]] + member[-EXTRA_BYTES[SetKind.TUPLES] :]


def unpack_block(member: bytes) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, bool]:
    """The network and whether it is an exception."""
    return ipaddress.ip_network((member[:-2], member[-2])), bool(member[-1])


def unpack_endpoint(member: bytes) -> tuple[bytes, int, int]:
    """Address, protocol, port."""
    protocol, port = struct.unpack(">BH", member[-3:])
    return member[:-3], protocol, port


def describe(kind: SetKind, member: bytes) -> str:
    """*member* as a person reads it: ``10.0.0.1``, ``!10.0.0.0/24``, ``10.0.0.1:80/TCP``, ``[fd00::1]:80/TCP``,
    ``10.0.0.1 echo/ICMP``, ``own node (IPv4):30080/TCP``."""
    if kind is SetKind.ADDRESSES:
        return addresses.unpack(member)
    if kind is SetKind.BLOCKS:
        network, exception = unpack_block(member)
        return f"{'!' if exception else ''}{network}"
    address, protocol, port = unpack_endpoint(member)
    host = addresses.unpack(address)
    if protocol in addresses.ECHO:
        return f"{host} echo/{addresses.PROTOCOL_NAMES[protocol]}"
    if address in UNSPECIFIED.values():
        host = f"own node (IPv{addresses.family(address)})"
    elif ":" in host:
        host = f"[{host}]"
    return f"{host}:{port}/{addresses.PROTOCOL_NAMES.get(protocol, protocol)}"


def contains(kind: SetKind, members: Collection[bytes], address: bytes, protocol: int, port: int) -> bool:
    """Whether the set holds *address* (for tuples: with this protocol and port), as the kernel's match would say."""
    if kind is SetKind.ADDRESSES:
        return address in members
    if kind is SetKind.TUPLES:
        return endpoint(address, protocol, port) in members
    # The longest prefix decides. Asked by length: a set may hold thousands of blocks, and there are few lengths.
    number, size = int.from_bytes(address, "big"), len(address)
    for suffix in range(8 * size + 1):
        block = ((number >> suffix) << suffix).to_bytes(size, "big") + bytes((8 * size - suffix,))
        if block + b"\1" in members:
            return False
        if block + b"\0" in members:
            return True
    return False


def pack_members(members: Iterable[bytes], family: int) -> bytes:
    """The members of one family, sorted and joined: fixed size each, so nothing separates them."""
    return b"".join(sorted(member for member in members if family_of(member) == family))


def unpack_members(kind: SetKind, family: int, packed: bytes) -> Iterator[bytes]:
    """The members that `pack_members` joined; raises `ValueError` where the length does not fit."""
    size = member_size(kind, family)
    if len(packed) % size:
        raise ValueError(f"{len(packed)} bytes are not a whole number of {kind.name.lower()} members of {size} bytes")
    return (packed[at : at + size] for at in range(0, len(packed), size))


def digest(members: Iterable[bytes], start: int = 0) -> int:
    """*start* plus the sum of member hashes modulo 2¹²⁸: adding or removing a member costs one hash."""
    return (start + sum(map(member_hash, members))) % DIGEST_MODULUS


def digest_after(before: int, added: Iterable[bytes], removed: Iterable[bytes]) -> int:
    """The digest of a part with *added* in and *removed* out."""
    return (before + sum(map(member_hash, added)) - sum(map(member_hash, removed))) % DIGEST_MODULUS


def member_hash(member: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(member, digest_size=16).digest(), "big")
