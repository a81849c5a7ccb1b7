"""Rules as the kernel lists them: which of them write to the connection mark, whoever made them with whatever tool.

Source: Linux ``uapi/linux/netfilter/nf_tables.h`` and ``xt_connmark.h``. What iptables-legacy holds is not in here.
"""

import struct
from collections.abc import Mapping
from typing import Final

import msgspec

from enforcers.core import layout
from enforcers.core.netlink.messages import DUMP, REQUEST, attributes, fields, message, text

GET_RULES: Final = 10 << 8 | 7
TABLE, CHAIN, EXPRESSIONS = 1, 2, 4
NAME, DATA = 1, 2
CT_KEY, CT_SOURCE, CT_MARK = 2, 4, 3
BITWISE_MASK, BITWISE_XOR, VALUE = 4, 5, 1
TARGET_NAME, TARGET_REVISION, TARGET_INFO = 1, 2, 3
WRITING: Final = (b"CONNMARK\0", b"ct\0")
"""No rule writes to the mark without one of them, and hardly any other has one."""
SET, SAVE = 0, 1
"""Modes of xtables' CONNMARK that write."""
EVERY_BIT: Final = 0xFFFFFFFF


class MarkRule(msgspec.Struct, frozen=True):
    """A foreign rule that writes to the connection mark."""

    table: str
    chain: str
    bits: int
    """Those that it may change."""


def dump_request() -> bytes:
    """Ask for every rule of the namespace."""
    return message(GET_RULES, REQUEST | DUMP, struct.pack("=BBH", 0, 0, 0))


def parse(body: bytes) -> MarkRule | None:
    """The rule, if it is not ours and writes to the connection mark."""
    if not any(word in body for word in WRITING):
        return None
    parts = fields(body, 4)
    table, chain = (text(parts.get(each)) for each in (TABLE, CHAIN))
    if layout.is_chain_name(chain):
        return None
    bits, changing = 0, EVERY_BIT
    for _, element in attributes(parts.get(EXPRESSIONS, b"")):
        expression = fields(element)
        name, data = expression.get(NAME, b"").rstrip(b"\0"), fields(expression.get(DATA, b""))
        if name == b"target":
            bits |= _target_bits(data)
        elif name == b"ct" and data.get(CT_KEY) == struct.pack(">I", CT_MARK):
            if CT_SOURCE in data:
                bits |= changing
            else:  # loads the mark, to write it back with some bits changed
                changing = 0
        elif name == b"bitwise" and not changing:
            changing = _changed(data)
        elif name in (b"immediate", b"meta"):
            changing = EVERY_BIT
    return MarkRule(table, chain, bits) if bits else None


def _target_bits(data: Mapping[int, bytes]) -> int:
    revision = int.from_bytes(data.get(TARGET_REVISION, b""), "big")
    form = {1: "=IIIB", 2: "=III2xB"}.get(revision)  # the second also shifts
    information = data.get(TARGET_INFO, b"")
    if data.get(TARGET_NAME, b"").rstrip(b"\0") != b"CONNMARK":
        return 0
    if form is None or len(information) < struct.calcsize(form):
        return EVERY_BIT
    value, mask, packet_mask, mode = map(int, struct.unpack_from(form, information))
    return {SET: value | mask, SAVE: mask | packet_mask}.get(mode, 0)


def _changed(data: Mapping[int, bytes]) -> int:
    """The bits that ``(mark & mask) ^ xor`` may change."""
    mask, xor = (fields(data.get(each, b"")).get(VALUE, b"") for each in (BITWISE_MASK, BITWISE_XOR))
    if len(mask) != 4 or len(xor) != 4:
        return EVERY_BIT
    kept, flipped = (int(each) for each in struct.unpack("=II", mask + xor))
    return (~kept & EVERY_BIT) | flipped
