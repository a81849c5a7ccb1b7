"""nftables as bytes: how a namespace's rules are listed, how one is taken out, and what the kernel tells of changes.

Source: Linux ``uapi/linux/netfilter/nf_tables.h``. iptables-nft keeps a rule's comment as an xtables match.
"""

import hashlib
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from enforcers.core.layout import Family
from enforcers.core.netlink.expressions import COMMENT_BYTES
from enforcers.core.netlink.messages import ACK, DUMP, REQUEST, attribute, fields, message, text

SUBSYSTEM: Final = 10 << 8
NEW_TABLE, GET_TABLE = SUBSYSTEM, SUBSYSTEM | 1
NEW_CHAIN, GET_CHAIN, DELETE_CHAIN = SUBSYSTEM | 3, SUBSYSTEM | 4, SUBSYSTEM | 5
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
HEAD_BYTES, LENGTH_BYTES = 4, 2
"""Of an attribute."""
COUNTER: Final = attribute(1, b"counter\0")
"""How that expression begins; its data follow."""
COMMENT: Final = attribute(1, b"comment\0") + attribute(2, bytes(4))
"""Name and revision of the match; its text follows."""


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


def as_transaction(messages: Iterable[bytes]) -> bytes:
    """*messages* as one datagram, of which the kernel does all or nothing."""
    frame = struct.pack(">BBH", 0, 0, SUBSYSTEM >> 8)
    return b"".join([message(BATCH_BEGIN, REQUEST, frame), *messages, message(BATCH_END, REQUEST, frame)])


def delete_rule(family: Family, table: str, chain: str, handle: int) -> bytes:
    """The transaction that takes out one rule; it is acknowledged."""
    place = attribute(1, table.encode() + b"\0") + attribute(2, chain.encode() + b"\0")
    body = _generic(FAMILY_NUMBERS[family]) + place + attribute(3, struct.pack(">Q", handle))
    return as_transaction([message(DELETE_RULE, REQUEST | ACK, body)])


def parse_generation(body: bytes) -> Generation:
    parts = fields(body, 4)
    return Generation(_number(parts.get(1)), text(parts.get(3)), _number(parts.get(2)))


def parse_table(body: bytes) -> tuple[str, int, int]:
    """Name, handle and flags of a table."""
    parts = fields(body, 4)
    return text(parts.get(1)), _number(parts.get(4)), _number(parts.get(2))


def parse_chain(body: bytes) -> tuple[str, NativeChain]:
    """Its table's name, and a chain."""
    parts = fields(body, 4)
    name, table = text(parts.get(3)), text(parts.get(1))
    if 4 not in parts:
        return table, NativeChain(name)
    hook = fields(parts[4])
    priority = struct.unpack(">i", hook[2])[0] if 2 in hook else 0
    return table, NativeChain(name, _number(hook.get(1)), priority, text(parts.get(7)))


def parse_rule(body: bytes, chains: Mapping[bytes, str]) -> NativeRule | None:
    """The rule, if its chain is one of *chains*: their names by the bytes that the kernel tells.

    All of a Pod's are read whenever one has changed, so nothing is taken apart that can be found: a few microseconds.
    Who puts the bytes of a comment elsewhere in a rule could as well give it that comment.
    """
    parts = fields(body, 4)
    chain = chains.get(parts.get(2, b""))
    if chain is None:
        return None
    does = parts.get(4, b"")
    comment = text(does.partition(COMMENT)[2][HEAD_BYTES : HEAD_BYTES + COMMENT_BYTES])
    return NativeRule(chain, _number(parts.get(3)), comment, _digest(does))


def _digest(does: bytes) -> bytes:
    """Of expressions, but for what the first counter among them has counted.

    Where it stands and how long it is, is told by what comes before: with equal digests nothing else can differ. A
    Pod may put these bytes anywhere, also at the very end.
    """
    before, counter, rest = does.partition(COUNTER)
    if counter:
        rest = rest[:HEAD_BYTES] + rest[int.from_bytes(rest[:LENGTH_BYTES], sys.byteorder) :]
    return hashlib.blake2b(before + counter + rest, digest_size=DIGEST_BYTES).digest()


def _generic(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")
