"""Membership changes as the kernel takes them: many members per netlink message, packed as they travel.

Source: Linux ``uapi/linux/netfilter/ipset/ip_set.h``. A message without the EXCL flag says what should be: adding what
is there and deleting what is not are no errors. A message that fails midway may have been applied in part.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from enforcers.core.layout import Family, set_name
from enforcers.core.netlink.messages import ACK, NESTED, REQUEST, attribute, message
from enforcers.core.set_rendering import kind
from schemas import sets
from schemas.sets import SetKind

SUBSYSTEM: Final = 6 << 8
ADD, DELETE, DESTROY = SUBSYSTEM | 9, SUBSYSTEM | 10, SUBSYSTEM | 3
PROTOCOL_VERSION: Final = 6
"""The oldest that kernels in use still speak; what is used here did not change since."""
PROTOCOL, SETNAME, DATA, ADT, LINE = 1, 2, 7, 8, 9
IP, CIDR, PORT, FLAGS, PROTO = 1, 3, 4, 8, 7
BIG_ENDIAN: Final = 0x4000
NOMATCH: Final = 4
FAMILY_NUMBERS: Final[dict[Family, int]] = {4: 2, 6: 10}
"""NFPROTO_IPV4, NFPROTO_IPV6."""
MEMBERS_PER_MESSAGE: Final = 1000
"""An attribute's length is 16 bits, and no member takes more than 52 bytes."""
BUSY: Final = 4100
"""ipset's own error: something still names the set."""


def changes(identity: str, family: Family, members: Sequence[bytes], *, adding: bool) -> Iterator[bytes]:
    """Requests that add *members* to one family's ipset, or take them out; each asks for an acknowledgement."""
    which = kind(identity)
    head = _head(set_name(identity, family), family)
    for start in range(0, len(members), MEMBERS_PER_MESSAGE):
        packed = b"".join(
            attribute(DATA | NESTED, _member(which, family, member))
            for member in members[start : start + MEMBERS_PER_MESSAGE]
        )
        body = head + attribute(LINE, struct.pack("=I", 0)) + attribute(ADT | NESTED, packed)
        yield message(ADD if adding else DELETE, REQUEST | ACK, body)


def destroy(name: str) -> bytes:
    """The request that destroys the ipset *name*, which nothing may name any more."""
    return message(DESTROY, REQUEST | ACK, _head(name, 4))


def _head(name: str, family: Family) -> bytes:
    generic = struct.pack("=BBH", FAMILY_NUMBERS[family], 0, 0)
    return generic + attribute(PROTOCOL, bytes((PROTOCOL_VERSION,))) + attribute(SETNAME, name.encode() + b"\0")


def _member(which: SetKind, family: Family, member: bytes) -> bytes:
    if which is SetKind.ADDRESSES:
        return _address(family, member)
    if which is SetKind.TUPLES:
        address, protocol, port = sets.unpack_endpoint(member)
        ports = attribute(PORT | BIG_ENDIAN, struct.pack(">H", port)) + attribute(PROTO, bytes((protocol,)))
        return _address(family, address) + ports
    found = _address(family, member[:-2]) + attribute(CIDR, member[-2:-1])
    return found + attribute(FLAGS | BIG_ENDIAN, struct.pack(">I", NOMATCH)) if member[-1] else found


def _address(family: Family, address: bytes) -> bytes:
    return attribute(IP | NESTED, attribute((1 if family == 4 else 2) | BIG_ENDIAN, address))
