"""Input of ``iptables-nft-restore --noflush`` as one transaction of nftables, for both families at once.

The tool needs one per family, so that for a moment one is newer than the other; this does not. Chains that hooks lead
from are only made where they are missing: nothing of them is set, above all no policy.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from enforcers.core.layout import CHAIN_PREFIX, TABLE, Family
from enforcers.core.netlink.messages import ACK, NESTED, REQUEST, attribute, message
from enforcers.core.netlink.nftables import (
    DELETE_CHAIN,
    DELETE_RULE,
    FAMILY_NUMBERS,
    NEW_CHAIN,
    NEW_RULE,
    NEW_TABLE,
    as_transaction,
)
from enforcers.core.netlink.rules import Encoded, Unencodable, encode
from enforcers.core.observation import HOOK_NUMBERS, PRIORITY

CREATE, APPEND = 0x400, 0x800
CHAIN, RULES_CHAIN = 3, 2
"""What names a chain: NFTA_CHAIN_NAME, and NFTA_RULE_CHAIN where a rule in it is meant."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One message of the transaction, and the line that asked for it."""

    line: str
    kind: int
    flags: int
    place: bytes
    """Family, table, and chain if any."""
    rule: Encoded | None = None

    def encode(self, indices: Mapping[str, int], sequence: int, *, last: bool) -> bytes:
        body = self.place if self.rule is None else self.place + self.rule.body(indices)
        return message(self.kind, REQUEST | self.flags | (ACK if last else 0), body, sequence)


def steps(tables: Mapping[Family, str]) -> list[Step]:
    """What *tables*, the tool's input by family, ask for. Raises `Unencodable`."""
    return [step for family, text in tables.items() for step in _steps(family, text)]


def batch(transaction: Sequence[Step], indices: Mapping[str, int]) -> bytes:
    """All of it as one datagram; step n has the sequence number n + 1, and the last one is acknowledged.

    *indices*: the number of each ipset in the namespace. Raises `KeyError` for one that is named and has none.
    """
    return as_transaction(
        step.encode(indices, number, last=number == len(transaction)) for number, step in enumerate(transaction, 1)
    )


def _steps(family: Family, text: str) -> Iterator[Step]:
    begin, *lines, end = text.splitlines()
    for line, wanted in ((begin, f"*{TABLE}"), (end, "COMMIT")):
        if line != wanted:
            raise Unencodable(line, line)
    yield Step(begin, NEW_TABLE, CREATE, _place(family))
    for line in lines:
        command, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        if command == "-A" and chain.startswith(CHAIN_PREFIX):
            yield Step(line, NEW_RULE, CREATE | APPEND, _place(family, RULES_CHAIN, chain), encode(rule))
        elif command.startswith(f":{CHAIN_PREFIX}"):
            yield Step(line, NEW_CHAIN, CREATE, _place(family, CHAIN, command[1:]))
            yield Step(line, DELETE_RULE, 0, _place(family, RULES_CHAIN, command[1:]))
        elif command == "-I" and chain in HOOK_NUMBERS:
            hook = attribute(1, struct.pack(">I", HOOK_NUMBERS[chain])) + attribute(2, struct.pack(">i", PRIORITY))
            base = _place(family, CHAIN, chain) + attribute(4 | NESTED, hook) + attribute(7, b"filter\0")
            yield Step(line, NEW_CHAIN, CREATE, base)
            yield Step(line, NEW_RULE, CREATE, _place(family, RULES_CHAIN, chain), encode(rule))
        elif command == "-X" and chain.startswith(CHAIN_PREFIX):
            yield Step(line, DELETE_CHAIN, 0, _place(family, CHAIN, chain))
        else:
            raise Unencodable(line, command)


@lru_cache
def _place(family: Family, kind: int = CHAIN, chain: str = "") -> bytes:
    table = struct.pack("=BBH", FAMILY_NUMBERS[family], 0, 0) + attribute(1, TABLE.encode() + b"\0")
    return table + attribute(kind, chain.encode() + b"\0") if chain else table
