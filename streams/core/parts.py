"""Parts of address sets: how a set is cut, and how messages build a part up again.

A part is named ``<bits>-<index>``: it holds the members whose hash begins with the *bits* bits of *index*. A small set
is the single part ``0-0``. A set that outgrows its parts gets new ones with more bits, published before the old ones
go; meanwhile both hold the same members, so a set is the union of its parts, and it is *whole* while the parts of any
one number of bits are all there.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.policy import SetDelta, SetMessage, SetSnapshot, decode_set_message
from schemas.sets import SetKind, digest, digest_after, member_hash, pack_members, unpack_members
from schemas.unreadable import UNREADABLE

HASH_BITS: Final = 128
DIGEST_BYTES: Final = 16
LEAST_ROLLED_UP: Final = 64
"""Changed members since the snapshot; below that, deltas are cheap whatever the part's size."""
MOST_BITS: Final = 16
"""65,536 parts hold two thousand million members; a name with more is not ours."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as the stream holds it."""

    subject: str
    sequence: int
    payload: bytes
    stored_at: float = 0.0
    """Seconds since the Unix epoch, by the server's clock."""


class PartName(msgspec.Struct, frozen=True, order=True, gc=False):
    bits: int
    index: int

    def __str__(self) -> str:
        return f"{self.bits}-{self.index}"

    @classmethod
    def parse(cls, token: str) -> "PartName":
        """Raises `ValueError` for what no writer of ours names so."""
        bits, _, index = token.partition("-")
        name = cls(int(bits), int(index))
        if not (0 <= name.bits <= MOST_BITS and 0 <= name.index < 1 << name.bits):
            raise ValueError(f"{token!r} is not the name of a part")
        return name


class Unreadable(ValueError):
    """A set message that cannot be decoded, or whose digest is not that of the part after it."""


class Part:
    """One part's members, and the digest that proves them."""

    __slots__ = ("changed", "digest", "members", "sequence")

    def __init__(self, members: Iterable[bytes] = ()) -> None:
        self.members = set(members)
        self.digest = digest(self.members)
        self.sequence = 0
        """Stream sequence of the newest message taken in; 0: forgotten, or none."""
        self.changed = 0
        """Members that deltas since the snapshot added or removed."""

    def __repr__(self) -> str:
        return f"<part of {len(self.members)} at {self.sequence}, {self.changed} changed>"


def change_of(part: Part, kind: SetKind, message: SetMessage) -> tuple[set[bytes], set[bytes]]:
    """What *message* adds to and removes from *part*, verified by its digest. Raises `Unreadable`.

    A snapshot with the part's own digest changes nothing, and its members are not even looked at.
    """
    wanted = int.from_bytes(message.digest, "big")
    try:
        if isinstance(message, SetSnapshot):
            if wanted == part.digest:
                return set(), set()
            members = {*unpack_members(kind, 4, message.ipv4), *unpack_members(kind, 6, message.ipv6)}
            if digest(members) != wanted:
                raise Unreadable("the snapshot's members do not have its digest")
            return members - part.members, part.members - members
        added = {*unpack_members(kind, 4, message.added_ipv4), *unpack_members(kind, 6, message.added_ipv6)}
        removed = {*unpack_members(kind, 4, message.removed_ipv4), *unpack_members(kind, 6, message.removed_ipv6)}
    except ValueError as error:
        raise Unreadable(str(error)) from error
    added -= part.members
    removed &= part.members
    if digest_after(part.digest, added, removed) != wanted:
        raise Unreadable("the part after the delta does not have its digest")
    return added, removed


def apply(part: Part, message: SetMessage, added: set[bytes], removed: set[bytes]) -> None:
    """Bring *part* to where `change_of` has shown *message* to lead."""
    part.members |= added
    part.members -= removed
    part.digest = int.from_bytes(message.digest, "big")
    part.changed = 0 if isinstance(message, SetSnapshot) else part.changed + len(added) + len(removed)


def fold(parts: dict[PartName, Part], name: PartName, message: Stored, kind: SetKind) -> None:
    """Take a stored message, read in stream order, into *parts*. Raises `Unreadable`."""
    if not message.payload:
        parts.pop(name, None)
        return
    content = read_message(message.payload)
    if isinstance(content, SetDelta) and name not in parts:
        raise Unreadable("a delta without a snapshot before it")
    part = parts.setdefault(name, Part())
    apply(part, content, *change_of(part, kind, content))
    part.sequence = message.sequence


def read_message(payload: bytes) -> SetMessage:
    """Raises `Unreadable`."""
    try:
        message: SetMessage = decode_set_message(payload)
    except UNREADABLE as error:
        raise Unreadable(str(error)) from error
    return message


def whole(parts: Iterable[PartName]) -> bool:
    """Whether the parts of some number of bits are all there."""
    count: dict[int, int] = {}
    for name in parts:
        count[name.bits] = count.get(name.bits, 0) + 1
    return any(number == 1 << bits for bits, number in count.items())


def snapshot(part: Part, *, released: bool = False) -> SetSnapshot:
    return SetSnapshot(
        ipv4=pack_members(part.members, 4),
        ipv6=pack_members(part.members, 6),
        digest=part.digest.to_bytes(DIGEST_BYTES, "big"),
        released=released,
    )


def advance(part: Part, added: set[bytes], removed: set[bytes], *, released: bool = False) -> SetMessage:
    """Change *part* and return the message that says so: a delta, or a snapshot where its deltas outweigh it.

    *added* is not in the part yet, *removed* is; *released* as in `SetDelta`.
    """
    part.members |= added
    part.members -= removed
    part.digest = digest_after(part.digest, added, removed)
    part.changed += len(added) + len(removed)
    if part.changed >= LEAST_ROLLED_UP and part.changed > len(part.members):
        part.changed = 0
        return snapshot(part, released=released)
    return SetDelta(
        added_ipv4=pack_members(added, 4),
        added_ipv6=pack_members(added, 6),
        removed_ipv4=pack_members(removed, 4),
        removed_ipv6=pack_members(removed, 6),
        digest=part.digest.to_bytes(DIGEST_BYTES, "big"),
        released=released,
    )


def cut(members: Iterable[bytes], bits: int) -> dict[int, set[bytes]]:
    """*members* by the index of the part that holds them."""
    if not bits:
        return {0: set(members)}
    found: dict[int, set[bytes]] = {}
    for member in members:
        found.setdefault(member_hash(member) >> (HASH_BITS - bits), set()).add(member)
    return found
