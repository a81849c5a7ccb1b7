"""Everything done to ipsets, as the kernel is asked for it, and its listing of them.

Source: Linux ``uapi/linux/netfilter/ipset/ip_set.h``. A message without the EXCL flag says what should be: adding what
is there and deleting what is not are no errors. A message that fails midway may have been applied in part.
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from enforcers.core import layout
from enforcers.core.layout import Family, set_name
from enforcers.core.netlink.ipset_members import BIG_ENDIAN, members_of, runs
from enforcers.core.netlink.messages import ACK, DUMP, NESTED, REQUEST, attribute, fields, message, text
from enforcers.core.observation import ObservedSets
from enforcers.core.set_rendering import MAX_MEMBERS, TYPES, hash_size, kind

SUBSYSTEM: Final = 6 << 8
CREATE, DESTROY, RENAME, SWAP, LIST, ADD, DELETE, TYPE = (SUBSYSTEM | each for each in (2, 3, 5, 6, 7, 9, 10, 13))
NUMBERING_VERSION: Final = 7
"""The first protocol version in which a set's number is told."""
INDEX: Final = 11
FLAGS, HEADERS_ONLY = 6, 4
"""IPSET_ATTR_FLAGS, IPSET_FLAG_LIST_HEADER."""
EXCLUSIVE: Final = 0x200 | 0x400
"""Without it creating one that exists is no error, even where the existing one is of another family."""
PROTOCOL_VERSION: Final = 6
"""The oldest that kernels in use still speak; what is used here did not change since."""
PROTOCOL, SETNAME, TYPENAME, REVISION, FAMILY, DATA, ADT, LINE = 1, 2, 3, 4, 5, 7, 8, 9
SETNAME2: Final = 3
INITVAL, HASHSIZE, MAXELEM, BUCKETSIZE, ELEMENTS, REFERENCES, MEMSIZE = 17, 18, 19, 21, 24, 25, 26
PLAIN: Final = {INITVAL, HASHSIZE, MAXELEM, BUCKETSIZE, ELEMENTS, REFERENCES, MEMSIZE}
"""What is told of any set. Whatever else is told (a timeout, a mask, counters) we did not ask for."""
HEADERS: Final = attribute(FLAGS | BIG_ENDIAN, struct.pack(">I", HEADERS_ONLY))
FAMILY_NUMBERS: Final[dict[Family, int]] = {4: 2, 6: 10}
"""NFPROTO_IPV4, NFPROTO_IPV6."""

BUSY, SECOND_NAME, TYPE_MISMATCH, FULL = 4100, 4101, 4102, 4352
REASONS: Final = {
    errno.EEXIST: "there is one of that name",
    errno.ENOENT: "there is none of that name",
    4097: "the kernel does not understand the message",
    4098: "the kernel has no such set type",
    4099: "the namespace has as many sets as it can",
    BUSY: "something still names it",
    SECOND_NAME: "there is none of the second name to swap with, or there is one and it cannot be taken",
    TYPE_MISMATCH: "the types differ",
    FULL: "it is full",
    4353: "a member is null",
}
"""What errors mean here; those from 4096 on are ipset's own."""


def revision_query(identity: str, family: Family) -> bytes:
    """Ask which revisions of the set's type the kernel speaks; loads its module."""
    body = _head(family) + attribute(TYPENAME, _typename(identity)) + _family(family)
    return message(TYPE, REQUEST | ACK, body)


def revision(answer: bytes) -> int:
    """The newest one in the *answer*."""
    return fields(answer, 4)[REVISION][0]


def create(identity: str, family: Family, expected: int, revision: int, *, name: str = "") -> bytes:
    """The request that creates the set, which must not exist, with room for *expected* members."""
    options = _number(HASHSIZE, hash_size(expected)) + _number(MAXELEM, MAX_MEMBERS)
    body = _head(family, name or set_name(identity, family)) + attribute(TYPENAME, _typename(identity))
    body += attribute(REVISION, bytes((revision,))) + _family(family) + attribute(DATA | NESTED, options)
    return message(CREATE, REQUEST | ACK | EXCLUSIVE, body)


def changes(
    identity: str, family: Family, members: Sequence[bytes], *, adding: bool, name: str = ""
) -> Iterator[bytes]:
    """Requests that add *members* to one family's ipset, or take them out; each asks for an acknowledgement."""
    head = _head(family, name or set_name(identity, family)) + attribute(LINE, bytes(4))
    for run in runs(kind(identity), family, members):
        yield message(ADD if adding else DELETE, REQUEST | ACK, head + attribute(ADT | NESTED, run))


def swap(first: str, second: str) -> bytes:
    """The request that has two ipsets change names, whoever names them; both exist, of one type and family."""
    return message(SWAP, REQUEST | ACK, _head(4, first) + attribute(SETNAME2, second.encode() + b"\0"))


def rename(name: str, to: str) -> bytes:
    """The request that renames an ipset, which nothing names, to a name that is free."""
    return message(RENAME, REQUEST | ACK, _head(4, name) + attribute(SETNAME2, to.encode() + b"\0"))


def destroy(name: str) -> bytes:
    """The request that destroys the ipset *name*, which nothing may name any more."""
    return message(DESTROY, REQUEST | ACK, _head(4, name))


def numbers_query() -> bytes:
    """Ask for all sets without their members."""
    head = struct.pack("=BBH", FAMILY_NUMBERS[4], 0, 0) + attribute(PROTOCOL, bytes((NUMBERING_VERSION,)))
    return message(LIST, REQUEST | DUMP, head + HEADERS)


def read_numbers(bodies: Iterable[bytes]) -> dict[str, int]:
    """By name, the number by which rules name each set; none where the kernel does not tell them."""
    told = (fields(body, 4) for body in bodies)
    return {text(parts[SETNAME]): int.from_bytes(parts[INDEX], "big") for parts in told if INDEX in parts}


def headers_query() -> bytes:
    """Ask for all sets: what they are and how many members they have."""
    return message(LIST, REQUEST | DUMP, _head(4) + HEADERS)


def listing_query(name: str) -> bytes:
    """Ask for one set with its members."""
    return message(LIST, REQUEST | DUMP, _head(4, name))


def headers_of_ours(bodies: Iterable[bytes], limits: Mapping[str, int] | None = None) -> dict[str, tuple[bytes, bool]]:
    """Of what is listed, by name what is ours, and whether to read it.

    It is read if it is as we create it, and has no more members than *limits* allow it; by default any number.
    """
    found: dict[str, tuple[bytes, bool]] = {}
    for body in bodies:
        parts = fields(body, 4)
        if layout.is_set_name(name := text(parts.get(SETNAME))):
            key = layout.parse_set_name(name)
            most = MAX_MEMBERS if limits is None else limits.get(name, -1)
            found[name] = body, key is not None and _is_sound(*key, parts) and _elements(parts) <= most
    return found


def read_listing(bodies: Iterable[bytes]) -> ObservedSets:
    """What of the listed sets is ours. A long one is listed in pieces, of which only the first describes it.

    Of those that are not given whole, that they are there.
    """
    members: dict[tuple[str, Family], set[bytes]] = {}
    told: dict[tuple[str, Family], int] = {}
    misshapen: set[tuple[str, Family]] = set()
    leftovers: list[str] = []
    for body in bodies:
        parts = fields(body, 4)
        name = text(parts.get(SETNAME))
        if not layout.is_set_name(name):
            continue
        key = layout.parse_set_name(name)
        if key is None:
            if TYPENAME in parts:
                leftovers.append(name)
            continue
        found = members.setdefault(key, set())
        try:
            if TYPENAME in parts:
                told[key] = _elements(parts)
                if not _is_ours(*key, parts):
                    misshapen.add(key)
            if ADT in parts and key not in misshapen:
                found.update(members_of(kind(key[0]), key[1], parts[ADT]))
        except ValueError:  # no kind of ours, or no member of ours
            misshapen.add(key)
    misshapen.update(key for key, number in told.items() if len(members[key]) < number)
    return ObservedSets.of(members, misshapen, leftovers)


def _is_sound(identity: str, family: Family, header: dict[int, bytes]) -> bool:
    try:
        return _is_ours(identity, family, header)
    except ValueError:  # no kind of ours
        return False


def _is_ours(identity: str, family: Family, header: dict[int, bytes]) -> bool:
    """Whether the set is one as we create it, but for its size."""
    options = fields(header.get(DATA, b""))
    return (
        header[TYPENAME] == _typename(identity)
        and header.get(FAMILY) == bytes((FAMILY_NUMBERS[family],))
        and options.get(MAXELEM) == struct.pack(">I", MAX_MEMBERS)
        and options.keys() <= PLAIN
    )


def _elements(header: dict[int, bytes]) -> int:
    """How many members it has; 0 also where an old kernel does not tell."""
    return int.from_bytes(fields(header.get(DATA, b"")).get(ELEMENTS, b""), "big")


def _head(family: Family, name: str = "") -> bytes:
    head = struct.pack("=BBH", FAMILY_NUMBERS[family], 0, 0) + attribute(PROTOCOL, bytes((PROTOCOL_VERSION,)))
    return head + attribute(SETNAME, name.encode() + b"\0") if name else head


def _typename(identity: str) -> bytes:
    return TYPES[kind(identity)].encode() + b"\0"


def _family(family: Family) -> bytes:
    return attribute(FAMILY, bytes((FAMILY_NUMBERS[family],)))


def _number(which: int, value: int) -> bytes:
    return attribute(which | BIG_ENDIAN, struct.pack(">I", value))
