"""nftables as bytes: how a namespace's rules are listed, how one is taken out, and what the kernel tells of changes.

Source: Linux ``uapi/linux/netfilter/nf_tables.h``. iptables-nft keeps a rule's comment as an xtables match.
"""

import hashlib
import struct
from collections.abc import Callable
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
ANY_FAMILY: Final = 0
_FAMILIES: Final[dict[int, Family]] = {number: family for family, number in FAMILY_NUMBERS.items()}
DIGEST_BYTES: Final = 16
DORMANT: Final = 1
COUNTER, MATCH, COMMENT = (attribute(1, each) for each in (b"counter\0", b"match\0", b"comment\0"))
"""How expressions begin, and the data of the one that is a comment."""
INSIDE_MATCH: Final = len(MATCH) + 4


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


def dump_request(kind: int) -> bytes:
    """Ask for the tables or chains (GET_…) of all families."""
    return message(kind, REQUEST | DUMP, _generic(ANY_FAMILY))


def rules_request(family: Family, table: str) -> bytes:
    """Ask for the rules of one table: of all families the kernel lists only the first that has the name."""
    named = attribute(1, table.encode() + b"\0")
    return message(GET_RULE, REQUEST | DUMP, _generic(FAMILY_NUMBERS[family]) + named)


def family_of(body: bytes) -> Family | None:
    """The family of what is listed; ``None``: one of those that are not ours, as inet."""
    return _FAMILIES.get(body[0])


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


def parse_rule(body: bytes, wanted: Callable[[str], bool]) -> NativeRule | None:
    """The rule, if its chain is *wanted*: some microseconds, and all of a Pod's are read whenever one has changed."""
    parts = dict(attributes(body[4:]))
    chain = text(parts.get(2))
    if not wanted(chain):
        return None
    comment, does = "", []
    for _, expression in attributes(parts.get(4, b"")):
        if not expression.startswith(COUNTER):
            does.append(expression)
            if not comment and expression.startswith(MATCH) and expression.startswith(COMMENT, INSIDE_MATCH):
                comment = text(dict(attributes(expression[INSIDE_MATCH:])).get(3))
    digest = hashlib.blake2b(b"".join(does), digest_size=DIGEST_BYTES).digest()
    return NativeRule(chain, _number(parts.get(3)), comment, digest)


def _generic(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")
