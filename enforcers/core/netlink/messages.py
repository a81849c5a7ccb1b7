"""Netlink messages as bytes (RFC 3549): headers, attributes, nesting."""

import struct
from collections.abc import Iterator
from typing import Final

REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
DUMP_INTERRUPTED: Final = 0x10
"""What is listed changed meanwhile, so that something may be missing in the listing."""
CREATE: Final = 0x600
"""Make it, and refuse where it is there (CREATE and EXCL)."""
NESTED: Final = 0x8000
TYPE_MASK: Final = 0x3FFF
ERROR: Final = 2
DONE: Final = 3
HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
"""Made once: a table is thousands of them."""


def attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each; a truncated one ends it."""
    at, end, header = 0, len(data) - 4, _ATTRIBUTE.unpack_from
    while at <= end:
        length, kind = header(data, at)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def fields(data: bytes, at: int = 0) -> dict[int, bytes]:
    """`attributes` from *at* on, by kind; of several alike the last.

    A loop of its own: what the kernel lists of a Pod is hundreds of these, and a generator takes half as long again.
    """
    found: dict[int, bytes] = {}
    end, header = len(data) - 4, _ATTRIBUTE.unpack_from
    while at <= end:
        length, kind = header(data, at)
        if length < 4:
            break
        found[kind & TYPE_MASK] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def text(data: bytes | None) -> str:
    """A name that the kernel keeps for whoever gave it: any bytes, so that what no terminal should see is escaped."""
    found = (data or b"").partition(b"\0")[0].decode(errors="backslashreplace")
    return found if found.isprintable() else found.encode("unicode_escape").decode()


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each message in one datagram."""
    return ((kind, body) for kind, _, body in flagged_messages(data))


def flagged_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, flags, body) of each message in one datagram."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield kind, flags, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def error_number(body: bytes) -> int:
    """The errno of an ERROR message; 0 is an acknowledgement."""
    return -int(struct.unpack_from("=i", body)[0])


def refused_sequence(body: bytes) -> int:
    """The sequence number of the message that an ERROR message is about."""
    return int(HEADER.unpack_from(body, 4)[3])
