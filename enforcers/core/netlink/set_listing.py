"""A listing of ipsets, taken apart by set and not read yet: what came as it came before is what it was."""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from enforcers.core.netlink.ipset import ADT, FAMILY, SETNAME, TYPENAME
from enforcers.core.netlink.messages import fields, text

DIGEST_BYTES: Final = 16


class ListedSet(msgspec.Struct, frozen=True):
    digest: bytes
    """Of its type, family and members in the order in which they came; not of its size or of who names it."""
    pieces: tuple[bytes, ...]
    """For `ipset.read_listing`."""


def by_name(bodies: Iterable[bytes]) -> dict[str, ListedSet]:
    """The sets of one listing. A long one comes in pieces."""
    pieces: dict[str, list[bytes]] = {}
    digests: dict[str, hashlib.blake2b] = {}
    for body in bodies:
        parts = fields(body, 4)
        name = text(parts.get(SETNAME))
        pieces.setdefault(name, []).append(body)
        digest = digests.setdefault(name, hashlib.blake2b(digest_size=DIGEST_BYTES))
        for kind in (TYPENAME, FAMILY, ADT):
            digest.update(parts.get(kind, b""))
    return {name: ListedSet(digests[name].digest(), tuple(each)) for name, each in pieces.items()}
