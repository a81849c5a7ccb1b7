"""nftables as bytes: how a namespace's rules are listed, how one is taken out, and what the kernel tells of changes.

Source: Linux ``uapi/linux/netfilter/nf_tables.h``. iptables-nft keeps a rule's comment as an xtables match.
"""

import hashlib
import struct
from typing import Final

import msgspec

from enforcers.core.layout import Family
from enforcers.core.netlink.messages import ACK, DUMP, REQUEST, attribute, attributes, message, text

SUBSYSTEM: Final = 10 << 8
NEW_TABLE, GET_TABLE, NEW_CHAIN, GET_CHAIN = SUBSYSTEM, SUBSYSTEM | 1, SUBSYSTEM | 3, SUBSYSTEM | 4
NEW_RULE, GET_RULE, DELETE_RULE = SUBSYSTEM | 6, SUBSYSTEM | 7, SUBSYSTEM | 8
NEW_GENERATION, GET_GENERATION = SUBSYSTEM | 15, SUBSYSTEM | 16
BATCH_BEGIN, BATCH_END = 16, 17
CHANGES_GROUP: Final = 7
"""NFNLGRP_NFTABLES."""
FAMILY_NUMBERS: Final[dict[Family, int]] = {4: 2, 6: 10}
DIGEST_BYTES: Final = 16
DORMANT: Final = 1
COUNTER: Final = b"counter\0"


class Generation(msgspec.Struct, frozen=True, gc=False):
    """The number of a namespace's newest rule change, and whose it was."""

    number: int
    process: str = ""
    pid: int = 0


class NativeRule(msgspec.Struct, frozen=True, gc=False):
    chain: str
    handle: int
    """Unique in its table; a rule that replaces another keeps its number."""
    comment: str
    digest: bytes
    """Of everything it does; not of its counters."""


class NativeChain(msgspec.Struct, frozen=True, gc=False):
    name: str
    hook: int | None = None
    """NF_INET_… where it is a base chain."""
    priority: int = 0
    kind: str = ""
    """``filter``, ``nat``, ``route``."""


def generation_request() -> bytes:
    """Ask for the namespace's `Generation`."""
    return message(GET_GENERATION, REQUEST | ACK, _generic(0))


def dump_request(kind: int, family: Family, table: str = "") -> bytes:
    """Ask for the tables, chains or rules (GET_…) of a family; rules of one *table* only."""
    named = attribute(1, table.encode() + b"\0") if table else b""
    return message(kind, REQUEST | DUMP, _generic(FAMILY_NUMBERS[family]) + named)


def delete_rule(family: Family, table: str, chain: str, handle: int) -> bytes:
    """The transaction that takes out one rule; it is acknowledged."""
    batch = struct.pack(">BBH", 0, 0, SUBSYSTEM >> 8)
    place = attribute(1, table.encode() + b"\0") + attribute(2, chain.encode() + b"\0")
    body = _generic(FAMILY_NUMBERS[family]) + place + attribute(3, struct.pack(">Q", handle))
    return b"".join(
        [
            message(BATCH_BEGIN, REQUEST, batch),
            message(DELETE_RULE, REQUEST | ACK, body),
            message(BATCH_END, REQUEST, batch),
        ]
    )


def parse_generation(body: bytes) -> Generation:
    parts = dict(attributes(body[4:]))
    return Generation(_number(parts.get(1)), text(parts.get(3)), _number(parts.get(2)))


def parse_table(body: bytes) -> tuple[str, int, int]:
    """Name, handle and flags of a table."""
    parts = dict(attributes(body[4:]))
    return text(parts.get(1)), _number(parts.get(4)), _number(parts.get(2))


def parse_chain(body: bytes) -> tuple[str, NativeChain]:
    """Its table's name, and a chain."""
    parts = dict(attributes(body[4:]))
    name, table = text(parts.get(3)), text(parts.get(1))
    if 4 not in parts:
        return table, NativeChain(name)
    hook = dict(attributes(parts[4]))
    priority = struct.unpack(">i", hook[2])[0] if 2 in hook else 0
    return table, NativeChain(name, _number(hook.get(1)), priority, text(parts.get(7)))


def chain_of(body: bytes) -> str:
    """The chain of a rule: all that is read of one that is nobody's business."""
    return next((text(value) for kind, value in attributes(body[4:]) if kind == 2), "")


def parse_rule(body: bytes) -> NativeRule:
    parts = dict(attributes(body[4:]))
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    comment = ""
    for _, expression in attributes(parts.get(4, b"")):
        if expression[4 : 4 + len(COUNTER)] == COUNTER:  # its name comes first
            continue
        digest.update(expression)
        comment = comment or _comment(expression)
    return NativeRule(text(parts.get(2)), _number(parts.get(3)), comment, digest.digest())


def _comment(expression: bytes) -> str:
    parts = dict(attributes(expression))
    if parts.get(1) != b"match\0":
        return ""
    data = dict(attributes(parts.get(2, b"")))
    return text(data.get(3)) if text(data.get(1)) == "comment" else ""


def _generic(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")
