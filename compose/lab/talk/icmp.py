"""Echo requests by hand: where no port is meant, the kernel of whoever is asked answers itself."""

import struct
from typing import Final

REQUEST: Final = {4: 8, 6: 128}
REPLY: Final = {4: 0, 6: 129}
_MESSAGE = struct.Struct("!BBHI")  # type, code, checksum; identifier and sequence number as one tag


def echo(version: int, tag: int) -> bytes:
    """The request that carries *tag*. A raw ICMPv6 socket fills in the checksum, an ICMP one does not."""
    message = _MESSAGE.pack(REQUEST[version], 0, 0, tag)
    return message if version == 6 else _MESSAGE.pack(REQUEST[version], 0, checksum(message), tag)


def answers(version: int, tag: int, data: bytes) -> bool:
    """Whether *data*, from the ICMP header on, is the answer to the request with *tag*."""
    return len(data) >= _MESSAGE.size and _MESSAGE.unpack_from(data)[::3] == (REPLY[version], tag)


def checksum(data: bytes) -> int:
    """RFC 1071's, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
