"""Expressions of nftables as bytes, as iptables-nft makes them.

Source: Linux ``uapi/linux/netfilter/nf_tables.h``.
"""

import struct
from typing import Final

from enforcers.core.netlink.messages import NESTED, attribute

REGISTER: Final = 1
EQUAL: Final = 0
META_KEYS: Final = {"-p": 16, "-i": 6, "-o": 7}
TRANSPORT: Final = 2
"""Base of an offset: the transport header."""


def expression(name: str, body: bytes) -> bytes:
    return attribute(1 | NESTED, attribute(1, name.encode() + b"\0") + attribute(2 | NESTED, body))


def extension(kind: str, name: str, revision: int, info: bytes) -> bytes:
    """A match or target of xtables; its data are as long as a multiple of the machine's word."""
    padded = info + bytes(-len(info) % struct.calcsize("@P"))
    return expression(kind, attribute(1, name.encode() + b"\0") + number(2, revision) + attribute(3, padded))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def register(kind: int) -> bytes:
    return number(kind, REGISTER)


def data(kind: int, value: bytes) -> bytes:
    return attribute(kind | NESTED, attribute(1, value))


def meta(key: str) -> bytes:
    return expression("meta", number(2, META_KEYS[key]) + register(1))


def compare(value: bytes) -> bytes:
    return expression("cmp", register(1) + number(2, EQUAL) + data(3, value))


def payload(offset: int, length: int) -> bytes:
    return expression("payload", register(1) + number(2, TRANSPORT) + number(3, offset) + number(4, length))


def verdict(code: int, chain: str = "") -> bytes:
    told = attribute(1, struct.pack(">i", code)) + (attribute(2, chain.encode() + b"\0") if chain else b"")
    return expression("immediate", number(1, 0) + attribute(2 | NESTED, attribute(2 | NESTED, told)))
