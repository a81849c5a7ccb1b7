"""Expressions of nftables as bytes, as iptables-nft makes them.

Source: Linux ``uapi/linux/netfilter/nf_tables.h``.
"""

import struct
from typing import Final

from enforcers.core.netlink.messages import NESTED, attribute

REGISTER: Final = 1
EQUAL: Final = 0
META_KEYS: Final = {"-p": 16, "-i": 6, "-o": 7}
"""By the option of iptables that asks: NFT_META_L4PROTO, NFT_META_IIFNAME, NFT_META_OIFNAME."""
TRANSPORT: Final = 2
"""Base of an offset: the transport header."""
COMMENT_BYTES: Final = 256
"""XT_MAX_COMMENT_LEN: as long is the data of the match, whatever its text."""


def expression(name: str, body: bytes) -> bytes:
    """One expression of a rule: its name, and its own attributes."""
    return attribute(1 | NESTED, attribute(1, name.encode() + b"\0") + attribute(2 | NESTED, body))


def extension(kind: str, name: str, revision: int, info: bytes) -> bytes:
    """A match or target of xtables; its data are as long as a multiple of the machine's word."""
    padded = info + bytes(-len(info) % struct.calcsize("@P"))
    return expression(kind, attribute(1, name.encode() + b"\0") + number(2, revision) + attribute(3, padded))


# --- attributes of expressions ---------------------------------------------------------------------------------------


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def register(kind: int) -> bytes:
    """Where the packet's value is put, or taken from: one register does, since no rule compares two."""
    return number(kind, REGISTER)


def data(kind: int, value: bytes) -> bytes:
    """A constant that the packet's value is compared or combined with."""
    return attribute(kind | NESTED, attribute(1, value))


# --- expressions without a match of xtables --------------------------------------------------------------------------


def meta(key: str) -> bytes:
    """Loads the protocol or the name of a link: *key* as in `META_KEYS`."""
    return expression("meta", number(2, META_KEYS[key]) + register(1))


def compare(value: bytes) -> bytes:
    """Goes on with the rule if what was loaded equals *value*, as far as that goes."""
    return expression("cmp", register(1) + number(2, EQUAL) + data(3, value))


def payload(offset: int, length: int) -> bytes:
    """Loads *length* bytes of the transport header."""
    return expression("payload", register(1) + number(2, TRANSPORT) + number(3, offset) + number(4, length))


def verdict(code: int, chain: str = "") -> bytes:
    """Ends the rule with an NF_… or NFT_… *code*; *chain* is where a jump goes."""
    told = attribute(1, struct.pack(">i", code)) + (attribute(2, chain.encode() + b"\0") if chain else b"")
    return expression("immediate", number(1, 0) + attribute(2 | NESTED, attribute(2 | NESTED, told)))
