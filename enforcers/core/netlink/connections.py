"""Connections as the kernel tracks them: the ctnetlink messages that list them and clear their mark."""

import struct
from typing import Final

import msgspec

from enforcers.core.netlink.messages import ACK, DUMP, NESTED, REQUEST, attribute, attributes, message
from schemas.addresses import ICMP, ICMPV6

CTNETLINK: Final = 1 << 8
NEW, GET, DELETE, GET_STATISTICS = CTNETLINK, CTNETLINK | 1, CTNETLINK | 2, CTNETLINK | 5
TUPLE_ORIGINAL, TUPLE_REPLY, MARK, ZONE, MARK_MASK = 1, 2, 8, 18, 21
IP, PROTOCOL = 1, 2
ENTRIES: Final = 1
ADDRESS_KINDS: Final = {1: "source", 2: "destination", 3: "source", 4: "destination"}
NUMBER, SOURCE_PORT, DESTINATION_PORT, ICMP_TYPE, ICMPV6_TYPE = 1, 2, 3, 5, 8


class Endpoints(msgspec.Struct, frozen=True, gc=False):
    """One direction of a connection: packed addresses; for ICMP the destination port is the message type."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    destination_port: int = 0


class Connection(msgspec.Struct, frozen=True, gc=False):
    original: Endpoints
    """As its first packet was."""
    reply: Endpoints
    """As answers are: behind an address translation their source is the real destination."""
    mark: int
    identity: bytes
    """The kernel's own words for which connection it is, family first: what an update has to repeat."""


def count_request() -> bytes:
    """Ask how many connections the namespace has."""
    return message(GET_STATISTICS, REQUEST | ACK, struct.pack("=BBH", 0, 0, 0))


def parse_count(body: bytes) -> int:
    """The answer."""
    return int.from_bytes(dict(attributes(body[4:]))[ENTRIES], "big")


def dump_request(family: int, mark: int = 0) -> bytes:
    """Ask for all connections of one address family (AF_INET, AF_INET6), or only those with all bits of *mark*."""
    wanted = attribute(MARK, struct.pack(">I", mark)) + attribute(MARK_MASK, struct.pack(">I", mark)) if mark else b""
    return message(GET, REQUEST | DUMP, struct.pack("=BBH", family, 0, 0) + wanted)


def mark_request(connection: Connection, mask: int, value: int) -> bytes:
    """Set the bits *mask* of the connection's mark to *value*; its other bits belong to others and stay."""
    family, identity = connection.identity[0], connection.identity[1:]
    body = struct.pack("=BBH", family, 0, 0) + identity
    body += attribute(MARK, struct.pack(">I", value)) + attribute(MARK_MASK, struct.pack(">I", mask))
    return message(NEW, REQUEST | ACK, body)


def delete_request(connection: Connection) -> bytes:
    """End the tracking of the connection."""
    family, identity = connection.identity[0], connection.identity[1:]
    return message(DELETE, REQUEST | ACK, struct.pack("=BBH", family, 0, 0) + identity)


def parse(body: bytes) -> Connection | None:
    """One entry of a dump; ``None`` for what has no addresses or protocol."""
    family = body[0]
    parts = dict(attributes(body[4:]))
    original, reply = _endpoints(parts.get(TUPLE_ORIGINAL, b"")), _endpoints(parts.get(TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    identity = bytes((family,)) + attribute(TUPLE_ORIGINAL | NESTED, parts[TUPLE_ORIGINAL])
    if ZONE in parts:
        identity += attribute(ZONE, parts[ZONE])
    mark = struct.unpack(">I", parts[MARK])[0] if MARK in parts else 0
    return Connection(original, reply, mark, identity)


def _endpoints(data: bytes) -> Endpoints | None:
    parts = dict(attributes(data))
    addresses = {ADDRESS_KINDS[kind]: value for kind, value in attributes(parts.get(IP, b"")) if kind in ADDRESS_KINDS}
    protocol = dict(attributes(parts.get(PROTOCOL, b"")))
    if len(addresses) != len(set(ADDRESS_KINDS.values())) or NUMBER not in protocol:
        return None
    number = protocol[NUMBER][0]
    if number in (ICMP, ICMPV6):
        kind = protocol.get(ICMP_TYPE if number == ICMP else ICMPV6_TYPE, b"\0")[0]
        return Endpoints(addresses["source"], addresses["destination"], number, 0, kind)
    return Endpoints(
        addresses["source"],
        addresses["destination"],
        number,
        _port(protocol.get(SOURCE_PORT)),
        _port(protocol.get(DESTINATION_PORT)),
    )


def _port(data: bytes | None) -> int:
    return int(struct.unpack(">H", data)[0]) if data else 0
