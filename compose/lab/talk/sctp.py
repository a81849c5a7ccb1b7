"""SCTP packets by hand (RFC 9260), as far as a probe needs them: INIT asks, INIT ACK or ABORT answers.

For kernels without SCTP sockets. The answer carries who answered in its state cookie, which the asker just reads.
"""

import struct
from typing import Final

import msgspec

INIT: Final = 1
INIT_ACK: Final = 2
ABORT: Final = 6
STATE_COOKIE: Final = 7

_COMMON = struct.Struct("!HHI")  # ports, verification tag; the checksum follows
_CHUNK = struct.Struct("!BBH")
_INIT = struct.Struct("!IIHHI")  # initiate tag, receiver window, outbound and inbound streams, initial sequence number
_CASTAGNOLI: Final = 0x82F63B78


class Packet(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One packet with one chunk."""

    source_port: int
    destination_port: int
    tag: int
    """The verification tag: the receiver's own, or 0 for INIT, which cannot know it."""
    chunk: int
    initiate_tag: int = 0
    """What the sender wants to see in answers; INIT and INIT ACK only."""
    cookie: bytes = b""
    """INIT ACK only."""


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ _CASTAGNOLI * (byte & 1)  # noqa: PLW2901  the register is the loop's own
        table.append(byte)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """The checksum of RFC 9260, appendix A."""
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ _TABLE[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


def encode(packet: Packet) -> bytes:
    """The packet from its common header on, with its checksum."""
    body = b""
    if packet.chunk in (INIT, INIT_ACK):
        body = _INIT.pack(packet.initiate_tag, 65536, 1, 1, packet.initiate_tag)
    if packet.chunk == INIT_ACK:
        padding = bytes(-len(packet.cookie) % 4)
        body += struct.pack("!HH", STATE_COOKIE, 4 + len(packet.cookie)) + packet.cookie + padding
    head = _COMMON.pack(packet.source_port, packet.destination_port, packet.tag)
    chunk = _CHUNK.pack(packet.chunk, 0, _CHUNK.size + len(body)) + body
    checksum = crc32c(head + bytes(4) + chunk)
    return head + struct.pack("<I", checksum) + chunk


def decode(data: bytes) -> Packet | None:
    """The first chunk of a packet that begins at its common header; `None` for what `encode` would not make."""
    if len(data) < 16:
        return None
    source, destination, tag = _COMMON.unpack_from(data)
    chunk, _, length = _CHUNK.unpack_from(data, 12)
    initiate_tag, cookie = 0, b""
    if chunk in (INIT, INIT_ACK):
        if len(data) < 32 or length < 20:
            return None
        initiate_tag = _INIT.unpack_from(data, 16)[0]
    if chunk == INIT_ACK and len(data) >= 36:
        kind, size = struct.unpack_from("!HH", data, 32)
        cookie = data[36 : 32 + size] if kind == STATE_COOKIE else b""
    return Packet(
        source_port=source,
        destination_port=destination,
        tag=tag,
        chunk=chunk,
        initiate_tag=initiate_tag,
        cookie=cookie,
    )


def answer(asked: Packet, identity: str | None) -> Packet:
    """What a server says to an INIT: INIT ACK with its *identity*, or ABORT where there is none."""
    return Packet(
        source_port=asked.destination_port,
        destination_port=asked.source_port,
        tag=asked.initiate_tag,
        chunk=ABORT if identity is None else INIT_ACK,
        initiate_tag=(asked.initiate_tag ^ 0xFFFFFFFF) or 1,
        cookie=(identity or "").encode(),
    )


def without_ip_header(data: bytes, version: int) -> bytes:
    """What a raw socket received, from the transport header on: only IPv4 sockets show the IP header, raw(7)."""
    return data[(data[0] & 0x0F) * 4 :] if version == 4 and data else data
