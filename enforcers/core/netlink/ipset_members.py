"""Members of ipsets as bytes that the kernel takes and lists, many at a time.

Members of one kind and family look alike but for their values. So a run of them is an empty one repeated, into which
each byte of the members goes as a column: some 20 ns per member, where packing each by itself takes a microsecond.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

import msgspec

from enforcers.core.layout import Family
from enforcers.core.netlink.messages import NESTED, attribute, attributes, fields
from schemas import addresses, sets
from schemas.sets import SetKind

DATA: Final = 7
IP, CIDR, PORT, PROTO, FLAGS = 1, 3, 4, 7, 8
BIG_ENDIAN: Final = 0x4000
ADDRESS_KINDS: Final[dict[Family, int]] = {4: 1, 6: 2}
NOMATCH: Final = 4
RUN_BYTES: Final = 0xFFFF - 4
"""The length of an attribute is 16 bits and counts its own header."""


def runs(which: SetKind, family: Family, members: Sequence[bytes]) -> Iterator[bytes]:
    """All *members*, as the contents of aggregates that are as large as an attribute may be.

    Raises `ValueError` where a member is not of that kind and family.
    """
    form = _form(which, family, listed=False)
    count = RUN_BYTES // len(form.blank)
    for start in range(0, len(members), count):
        yield form.pack(members[start : start + count])


def members_of(which: SetKind, family: Family, run: bytes) -> Sequence[bytes]:
    """The members in a *run* that the kernel lists. Raises `ValueError` for what we would never have written."""
    found = _form(which, family, listed=True).unpack(run)
    return found if found is not None else [_read(which, family, data) for kind, data in attributes(run)]


class _Form(msgspec.Struct, frozen=True):
    """How members of one kind and family lie in a run."""

    size: int
    """Bytes of a member."""
    blank: bytes
    """One member with nothing but zeros in it."""
    columns: tuple[tuple[int, int, int], ...]
    """Byte of the member, its place in *blank*, and what a one becomes there."""

    def pack(self, members: Sequence[bytes]) -> bytes:
        joined, stride = b"".join(members), len(self.blank)
        if len(joined) != self.size * len(members):
            raise ValueError(f"not all of {len(members)} members have {self.size} bytes")
        run = bytearray(self.blank * len(members))
        for byte, place, factor in self.columns:
            column = joined[byte :: self.size]
            run[place::stride] = column if factor == 1 else column.replace(b"\1", bytes((factor,)))
        return bytes(run)

    def unpack(self, run: bytes) -> list[bytes] | None:
        """``None`` where anything in it is of another form."""
        stride = len(self.blank)
        count, rest = divmod(len(run), stride)
        if rest:
            return None
        joined, emptied, zeros = bytearray(count * self.size), bytearray(run), bytes(count)
        for byte, place, _ in self.columns:
            joined[byte :: self.size] = run[place::stride]
            emptied[place::stride] = zeros
        if emptied != self.blank * count:
            return None
        found = bytes(joined)
        return [found[at : at + self.size] for at in range(0, len(found), self.size)]


@cache
def _form(which: SetKind, family: Family, *, listed: bool) -> _Form:
    """Found by packing members that have a single bit set. What is listed only where it is set is in no form."""
    size = sets.member_size(which, family)
    blank = _pack(which, family, bytes(size), listed=listed)
    columns = []
    for byte in range(size):
        one = _pack(which, family, bytes(byte) + b"\1" + bytes(size - byte - 1), listed=listed)
        if len(one) == len(blank):
            place = next(at for at, pair in enumerate(zip(one, blank, strict=True)) if pair[0] != pair[1])
            columns.append((byte, place, one[place]))
    return _Form(size, blank, tuple(columns))


def _pack(which: SetKind, family: Family, member: bytes, *, listed: bool) -> bytes:
    """One member as it is sent, or as it is listed."""
    width = addresses.WIDTHS[family]
    address, rest = member[:width], member[width:]
    # The kernel wants to be told of every number's byte order, and does not tell an address's itself.
    body = attribute(IP | NESTED, attribute(ADDRESS_KINDS[family] | (0 if listed else BIG_ENDIAN), address))
    if which is SetKind.TUPLES:
        body += attribute(PORT | BIG_ENDIAN, rest[1:]) + attribute(PROTO, rest[:1])
    elif which is SetKind.BLOCKS:
        body += attribute(CIDR, rest[:1])
        if rest[1] or not listed:
            body += attribute(FLAGS | BIG_ENDIAN, bytes((0, 0, 0, rest[1] * NOMATCH)))
    return attribute(DATA | NESTED, body)


def _read(which: SetKind, family: Family, data: bytes) -> bytes:
    """One listed member, whatever its form."""
    parts = fields(data)
    member = fields(parts.get(IP, b"")).get(ADDRESS_KINDS[family], b"")
    if which is SetKind.TUPLES:
        member += parts.get(PROTO, b"") + parts.get(PORT, b"")
    elif which is SetKind.BLOCKS:
        member += parts.get(CIDR, b"") + bytes((FLAGS in parts,))
    right_size = len(member) == sets.member_size(which, family)
    if not right_size or attribute(DATA | NESTED, data) != _pack(which, family, member, listed=True):
        raise ValueError(f"{data.hex()} is no {which.name.lower()} member of IPv{family} of ours")
    return member
