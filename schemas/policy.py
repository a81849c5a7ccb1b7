"""What travels between the PCE and the C-VENs: set snapshots and deltas, the mark, the fence; and a fold's output.

Programs travel as they are (`schemas.programs`); a program or set that is gone travels as an empty payload.
"""

from typing import Final

import msgspec

from schemas.programs import Program

PART_MEMBERS: Final = 32_768
"""Members per part of a set; a set that outgrows its parts doubles their number."""
MARK_SUBJECTS: Final = 1_000
"""A mark that covers more subjects names none: readers then check all they have."""


class SetSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot", gc=False, omit_defaults=True):
    """All members of one part of a set. Replaces whatever the part held; published with a rollup of its subject."""

    ipv4: bytes
    """Members as `schemas.sets.pack_members` joins them."""
    ipv6: bytes
    digest: bytes
    """`schemas.sets.digest` of the part's members, 16 bytes, big-endian."""
    released: bool = False
    """As in `SetDelta`, of what the part held before."""


class SetDelta(msgspec.Struct, frozen=True, kw_only=True, tag="delta", gc=False, omit_defaults=True):
    """What one part of a set gains and loses."""

    added_ipv4: bytes = b""
    added_ipv6: bytes = b""
    removed_ipv4: bytes = b""
    removed_ipv6: bytes = b""
    digest: bytes
    """Digest of the part *after* this delta."""
    released: bool = False
    """Whether all it removes goes because the Pods that owned these addresses gave them up: it is published before
    anything of its revision is added, and has to be written so, too."""


SetMessage = SetSnapshot | SetDelta


class Mark(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """*revision* is complete in the stream: everything it covers was acknowledged before the mark was sent."""

    revision: int
    """Newest log offset whose effects, and those of all before it, are published."""
    changed: tuple[tuple[str, int], ...] | None = None
    """(subject below ``policy.<cluster>.``, stream sequence) of everything published since the mark before;
    ``None`` beyond `MARK_SUBJECTS`."""
    previous: int = -1
    """Revision of the mark before, by the same owner or the one it replaced; -1 for none."""
    time: str = ""
    """``observed_at`` of the newest event it covers."""


class Fence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who owns the stream from here on. Readers forget all sequences and catch up."""

    owner: str
    name: str
    """Which processor, for people."""


class SetChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one fold step changes in one address set."""

    id: str
    added: frozenset[bytes] = frozenset()
    removed: frozenset[bytes] = frozenset()
    gone: bool = False
    """The set is no longer named by any program; *removed* is then not filled."""


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy fold returns for a batch of events: apply in this order.

    Sets lose what was released, sets gain members, programs change, programs go, sets lose other members, sets go: a
    Pod that moves between two allowed sets is never shut out in between, an address that changes owner is never in the
    sets of both, and nothing is named before it exists.
    """

    sets: tuple[SetChange, ...] = ()
    programs: tuple[Program, ...] = ()
    """New or changed, whole."""
    gone: tuple[tuple[str, str], ...] = ()
    """(node, uid) of programs that no longer exist."""
    released: frozenset[bytes] = frozenset()
    """Addresses that the Pod which owned them gave up, to another or to nobody."""

    def __bool__(self) -> bool:
        return bool(self.sets or self.programs or self.gone)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The whole desired policy of a cluster at one revision."""

    programs: dict[tuple[str, str], Program]
    """By (node, uid)."""
    sets: dict[str, frozenset[bytes]]
    """Members by set id; exactly the sets that some program names."""


class NodeUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What one node's policy reader learned. Apply in the order of `PolicyChange`: what was released is lost, gains,
    programs, gone, other losses."""

    sets: tuple[SetChange, ...] = ()
    """Changes of the sets' effective membership; a set not heard of before comes with all its members, maybe none."""
    programs: tuple[Program, ...] = ()
    """New or changed, whole. Every set they name is known by now."""
    gone: tuple[str, ...] = ()
    """Uids of programs that no longer exist."""
    released: frozenset[bytes] = frozenset()
    """Addresses that the Pod which owned them gave up, as far as sets of this node held them: whichever sets lost them
    by now, lost them to that. None are named of what had to be fetched: a set that was read whole does not say why."""
    mark: Mark | None = None
    """Everything that *mark* covers for this node has been handed over, with this update at the latest."""
    complete: bool = False
    """This update's programs are all there are, and each set's *added* is its whole membership: what is not named
    may be swept. Only ever with a mark."""


_encoder = msgspec.msgpack.Encoder()
encode_set_message = _encoder.encode
decode_set_message = msgspec.msgpack.Decoder(SetMessage).decode
encode_mark = _encoder.encode
decode_mark = msgspec.msgpack.Decoder(Mark).decode
encode_fence = _encoder.encode
decode_fence = msgspec.msgpack.Decoder(Fence).decode
