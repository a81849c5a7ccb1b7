"""Connections as the kernel tracks them: the ctnetlink messages that list, find, make, mark and end them.

Source: Linux ``uapi/linux/netfilter/nfnetlink_conntrack.h`` and ``nf_conntrack_tcp.h``.
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

from enforcers.core.netlink.messages import ACK, CREATE, DUMP, NESTED, REQUEST, attribute, attributes, fields, message
from schemas.addresses import ICMP, ICMPV6, TCP

CTNETLINK: Final = 1 << 8
NEW, GET, DELETE, STATISTICS = CTNETLINK, CTNETLINK | 1, CTNETLINK | 2, CTNETLINK | 5
TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, PROTOCOL_STATE, TIMEOUT, MARK, ZONE, MARK_MASK = 1, 2, 3, 4, 7, 8, 18, 21
IP, PROTOCOL = 1, 2
ADDRESS_KINDS: Final = {1: "source", 2: "destination", 3: "source", 4: "destination"}
NUMBER, SOURCE_PORT, DESTINATION_PORT, ICMP_TYPE, ICMPV6_TYPE = 1, 2, 3, 5, 8
TCP_PART, TCP_STATE, TCP_FLAGS_ORIGINAL, TCP_FLAGS_REPLY = 1, 1, 4, 5
LIBERAL: Final = 0x08
"""IP_CT_TCP_FLAG_BE_LIBERAL: no packet is invalid for being outside the window. The kernel itself sets it for both
directions of a connection that it met midway, and only then."""
SEEN_REPLY, ASSURED, CONFIRMED = 0x2, 0x4, 0x8
COUNT, MAXIMUM = 1, 2
AF_INET, AF_INET6 = 2, 10


class Tracked(IntEnum):
    """A TCP connection's state as conntrack names it."""

    SYN_SENT = 1
    SYN_RECEIVED = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6


TIMEOUTS: Final = {Tracked.ESTABLISHED: 432_000}
"""Seconds that an entry lives without a packet, where it is not `OTHER_TIMEOUT`; the next packet begins the kernel's
own time."""
OTHER_TIMEOUT: Final = 120


class Endpoints(msgspec.Struct, frozen=True, gc=False):
    """One direction of a connection: packed addresses; for ICMP the destination port is the message type."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    destination_port: int = 0

    @property
    def reverse(self) -> "Endpoints":
        return Endpoints(self.destination, self.source, self.protocol, self.destination_port, self.source_port)


class Connection(msgspec.Struct, frozen=True, gc=False):
    original: Endpoints
    """As its first packet was."""
    reply: Endpoints
    """As answers are: behind an address translation their source is the real destination."""
    mark: int
    identity: bytes
    """The kernel's own words for which connection it is, family first: what an update has to repeat."""
    met_midway: bool = False
    """TCP whose beginning was not seen: *original* is the direction of whichever packet came first."""

    @property
    def sent(self) -> Endpoints:
        """As packets in the original direction leave its namespace, after what is translated there."""
        return self.original if self.original.protocol in (ICMP, ICMPV6) else self.reply.reverse

    @property
    def translated(self) -> bool:
        return self.sent != self.original


def dump_request(family: int, mark: int = 0) -> bytes:
    """Ask for all connections of one address family (AF_INET, AF_INET6), or only those with all bits of *mark*."""
    wanted = attribute(MARK, struct.pack(">I", mark)) + attribute(MARK_MASK, struct.pack(">I", mark)) if mark else b""
    return message(GET, REQUEST | DUMP, struct.pack("=BBH", family, 0, 0) + wanted)


def find_request(ends: Endpoints) -> bytes:
    """Ask for the connection that has *ends* as either of its directions."""
    return message(GET, REQUEST | ACK, _head(ends) + _tuple(TUPLE_ORIGINAL, ends))


def statistics_request() -> bytes:
    """Ask how many connections a namespace has, and how many it may have."""
    return message(STATISTICS, REQUEST | ACK, struct.pack("=BBH", 0, 0, 0))


def parse_statistics(body: bytes) -> tuple[int, int]:
    """Count and maximum; 0 for what an old kernel does not tell."""
    parts = fields(body, 4)
    count, maximum = (struct.unpack(">I", parts.get(each, bytes(4)))[0] for each in (COUNT, MAXIMUM))
    return count, maximum


def create_request(original: Endpoints, state: Tracked | None, mark: int) -> bytes:
    """Track a connection that exists, as begun by *original*'s source, with the bits *mark*.

    *state* is of TCP; its windows are unknown, so that the entry is liberal about them. Refused with EEXIST where the
    kernel has met a packet of it.
    """
    flags = struct.pack("=BB", LIBERAL, LIBERAL)
    answered = state not in (Tracked.SYN_SENT, Tracked.SYN_RECEIVED)
    body = _head(original) + _tuple(TUPLE_ORIGINAL, original) + _tuple(TUPLE_REPLY, original.reverse)
    body += attribute(TIMEOUT, struct.pack(">I", TIMEOUTS.get(state, OTHER_TIMEOUT) if state else OTHER_TIMEOUT))
    body += attribute(STATUS, struct.pack(">I", CONFIRMED | (SEEN_REPLY | ASSURED if answered else 0)))
    body += attribute(MARK, struct.pack(">I", mark))
    if state is not None:
        tcp = attribute(TCP_STATE, bytes((state,)))
        tcp += attribute(TCP_FLAGS_ORIGINAL, flags) + attribute(TCP_FLAGS_REPLY, flags)
        body += attribute(PROTOCOL_STATE | NESTED, attribute(TCP_PART | NESTED, tcp))
    return message(NEW, REQUEST | ACK | CREATE, body)


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
    parts = fields(body, 4)
    original, reply = _endpoints(parts.get(TUPLE_ORIGINAL, b"")), _endpoints(parts.get(TUPLE_REPLY, b""))
    if original is None or reply is None:
        return None
    identity = bytes((family,)) + attribute(TUPLE_ORIGINAL | NESTED, parts[TUPLE_ORIGINAL])
    if ZONE in parts:
        identity += attribute(ZONE, parts[ZONE])
    mark = struct.unpack(">I", parts[MARK])[0] if MARK in parts else 0
    midway = original.protocol == TCP and _liberal(parts.get(PROTOCOL_STATE, b""))
    return Connection(original, reply, mark, identity, midway)


def _liberal(state: bytes) -> bool:
    parts = fields(fields(state).get(TCP_PART, b""))
    return all(parts.get(each, b"\0")[0] & LIBERAL for each in (TCP_FLAGS_ORIGINAL, TCP_FLAGS_REPLY))


def _head(ends: Endpoints) -> bytes:
    return struct.pack("=BBH", AF_INET if len(ends.source) == 4 else AF_INET6, 0, 0)


def _tuple(kind: int, ends: Endpoints) -> bytes:
    source, destination = (1, 2) if len(ends.source) == 4 else (3, 4)
    ip = attribute(source, ends.source) + attribute(destination, ends.destination)
    protocol = attribute(NUMBER, bytes((ends.protocol,)))
    protocol += attribute(SOURCE_PORT, struct.pack(">H", ends.source_port))
    protocol += attribute(DESTINATION_PORT, struct.pack(">H", ends.destination_port))
    return attribute(kind | NESTED, attribute(IP | NESTED, ip) + attribute(PROTOCOL | NESTED, protocol))


def _endpoints(data: bytes) -> Endpoints | None:
    parts = fields(data)
    addresses = {ADDRESS_KINDS[kind]: value for kind, value in attributes(parts.get(IP, b"")) if kind in ADDRESS_KINDS}
    protocol = fields(parts.get(PROTOCOL, b""))
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
