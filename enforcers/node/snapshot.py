"""The last complete state on disk: what a node enforces after a reboot, until it hears from NATS again."""

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from schemas import sets
from schemas.policy import NodeUpdate, SetChange
from schemas.programs import Program

MAGIC: Final = b"eastwest snapshot 1\n"
DIGEST_BYTES: Final = 32


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    programs: tuple[Program, ...]
    sets: dict[str, tuple[bytes, bytes]]
    """Members by id, packed per family as `schemas.sets.pack_members` joins them."""

    def update(self) -> NodeUpdate:
        """As if a policy reader had told it. Not *complete*: nothing may be swept on the word of a file."""
        return NodeUpdate(
            programs=self.programs,
            sets=tuple(
                SetChange(
                    id=identity,
                    added=frozenset(
                        member
                        for family, packed in zip((4, 6), families, strict=True)
                        for member in sets.unpack_members(sets.kind_of(identity), family, packed)
                    ),
                )
                for identity, families in self.sets.items()
            ),
        )


class SnapshotUnreadable(Exception):
    """The file *path* is not a snapshot that was written whole."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.retriable = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


def save(path: Path, kept: Kept) -> None:
    """Replace the snapshot at *path*: whoever reads it, also after a crash, finds the old one or the new. Blocks."""
    body = _encode(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(MAGIC + hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() + body)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path: Path) -> Kept | None:
    """The snapshot at *path*; ``None``: there is none. Raises `SnapshotUnreadable`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    start = len(MAGIC) + DIGEST_BYTES
    if not data.startswith(MAGIC):
        raise SnapshotUnreadable(path, "not a snapshot of this version")
    body = data[start:]
    if hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() != data[len(MAGIC) : start]:
        raise SnapshotUnreadable(path, "its checksum does not fit")
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise SnapshotUnreadable(path, str(error)) from error
