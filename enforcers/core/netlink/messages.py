"""Netlink messages as bytes (RFC 3549): headers, attributes, nesting."""

import struct
from collections.abc import Iterator
from typing import Final

REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
NESTED: Final = 0x8000
TYPE_MASK: Final = 0x3FFF
ERROR: Final = 2
DONE: Final = 3
HEADER: Final = struct.Struct("=IHHII")


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each; a truncated one ends it."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each message in one datagram."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield kind, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def error_number(body: bytes) -> int:
    """The errno of an ERROR message; 0 is an acknowledgement."""
    return -int(struct.unpack_from("=i", body)[0])
