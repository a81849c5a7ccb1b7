"""What the owner of a policy stream has published, and the messages that a change of it takes.

change ──▶ Publication.plan ──▶ messages, in order ──▶ stream
stream ──▶ Publication.read ──▶ the same state, as a later owner finds it
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.names import from_token, token
from schemas.policy import PART_MEMBERS, Policy, PolicyChange, SetChange, SetMessage, SetSnapshot, encode_set_message
from schemas.programs import Program, decode_program, encode_program
from schemas.sets import address_of, kind_of
from schemas.unreadable import UNREADABLE
from streams.core.parts import (
    Part,
    PartName,
    Stored,
    advance,
    cut,
    fold,
    snapshot,
    whole,
)
from streams.errors import ProgramTooLarge

ROLLUP: Final = {"Nats-Rollup": "sub"}
GONE: Final = {"Nats-Rollup": "sub", "Nats-TTL": "1h"}
"""With an empty payload. An hour is far longer than anyone who missed it live takes to catch up."""
LARGEST_MEMBER: Final = 19
"""Bytes; an IPv6 tuple."""
OVERHEAD: Final = 1024
"""Bytes of a message that are not members or program: headers, keys, digest."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message to publish."""

    subject: str
    """Below ``policy.<cluster>.``."""
    payload: bytes = b""
    headers: dict[str, str] | None = None


class PublishedSet:
    """One set's current parts, all of the same number of bits, and the older ones that must still go."""

    __slots__ = ("bits", "identity", "limit", "old", "parts")

    def __init__(self, identity: str, limit: int, parts: dict[PartName, Part] | None = None) -> None:
        self.identity = identity
        self.limit = limit
        """Members per part."""
        self.old: list[PartName] = []
        self.bits = 0
        self.parts: dict[int, Part] = {0: Part()}
        if parts:
            self.bits = max(name.bits for name in parts if whole(other for other in parts if other.bits == name.bits))
            self.parts = {name.index: part for name, part in parts.items() if name.bits == self.bits}
            self.old = sorted(name for name in parts if name.bits != self.bits)

    @property
    def members(self) -> frozenset[bytes]:
        return frozenset().union(*(part.members for part in self.parts.values()))

    def create(self, members: Iterable[bytes]) -> list[Outgoing]:
        """Cut *members* into as few parts as hold them, from the present number of bits up: a snapshot of each."""
        by_index = cut(members, self.bits)
        while any(len(found) > self.limit for found in by_index.values()):
            self.bits += 1
            by_index = cut(members, self.bits)
        self.parts = {index: Part(by_index.get(index, ())) for index in range(1 << self.bits)}
        # An owner that died while it grew this set may have left some parts of the number of bits chosen now.
        self.old = [name for name in self.old if name.bits != self.bits]
        return [self._message(index, snapshot(part)) for index, part in self.parts.items()]

    def add(self, members: frozenset[bytes]) -> list[Outgoing]:
        """One message for each part that gains; all parts anew where one of them would outgrow its limit."""
        gains = {
            index: gained
            for index, found in sorted(cut(members, self.bits).items())
            if (gained := found - self.parts[index].members)
        }
        if any(len(self.parts[index].members) + len(gained) > self.limit for index, gained in gains.items()):
            self.old.extend(PartName(self.bits, index) for index in self.parts)
            return self.create(self.members | members)
        return [self._message(index, advance(self.parts[index], gained, set())) for index, gained in gains.items()]

    def remove(self, members: frozenset[bytes], *, released: bool = False) -> list[Outgoing]:
        """One message for each part that loses; *released* as in `SetDelta`."""
        return [
            self._message(index, advance(self.parts[index], set(), lost, released=released))
            for index, found in sorted(cut(members, self.bits).items())
            if (lost := found & self.parts[index].members)
        ]

    def withdraw_old(self) -> list[Outgoing]:
        """Parts that newer ones have replaced go."""
        names, self.old = self.old, []
        return [Outgoing(f"set.{self.identity}.{name}", headers=GONE) for name in names]

    def withdraw(self) -> list[Outgoing]:
        """The whole set goes."""
        self.old.extend(PartName(self.bits, index) for index in self.parts)
        return self.withdraw_old()

    def _message(self, index: int, message: SetMessage) -> Outgoing:
        headers = ROLLUP if isinstance(message, SetSnapshot) else None
        return Outgoing(f"set.{self.identity}.{PartName(self.bits, index)}", encode_set_message(message), headers)


class Publication:
    """The stream's content as its owner knows it."""

    def __init__(self, *, max_payload: int) -> None:
        self.max_payload = max_payload
        self.part_members = min(PART_MEMBERS, (max_payload - OVERHEAD) // LARGEST_MEMBER)
        self.sets: dict[str, PublishedSet] = {}
        self.debris: set[str] = set()
        """Subjects whose content nobody can use; what is not overwritten must go."""

    def plan(self, change: PolicyChange, revision: int = -1) -> list[Outgoing]:
        """The messages that publish *change*, in the order that `PolicyChange` promises; remembers them as published.

        *revision* is what they and all before make complete. Raises `ProgramTooLarge` before it changes anything.
        """
        programs = [self._program_message(program, revision) for program in change.programs]
        out: list[Outgoing] = []
        for wanted in change.sets if change.released else ():  # few changes release anything
            out += self._release(wanted, change.released)
        for wanted in change.sets:
            if wanted.gone:
                continue
            known = self.sets.get(wanted.id)
            if known is None:
                known = self.sets[wanted.id] = PublishedSet(wanted.id, self.part_members)
                out += known.create(wanted.added)
            elif wanted.added:
                out += known.add(wanted.added)
        out += programs
        out += (Outgoing(program_tail(node, uid), headers=GONE) for node, uid in change.gone)
        for wanted in change.sets:
            if wanted.gone:
                if known := self.sets.pop(wanted.id, None):
                    out += known.withdraw()
                continue
            known = self.sets[wanted.id]
            if wanted.removed:
                out += known.remove(wanted.removed)
            if known.old:
                out += known.withdraw_old()
        if self.debris:
            written = {message.subject for message in out}
            out += (Outgoing(subject, headers=GONE) for subject in sorted(self.debris - written))
            self.debris.clear()
        return out

    def _release(self, wanted: SetChange, released: frozenset[bytes]) -> list[Outgoing]:
        """What a set loses of the addresses *released*."""
        known, kind = self.sets.get(wanted.id), kind_of(wanted.id)
        lost = frozenset(member for member in wanted.removed if address_of(kind, member) in released)
        return known.remove(lost, released=True) if known and lost else []

    def _program_message(self, program: Program, revision: int) -> Outgoing:
        payload = encode_program(msgspec.structs.replace(program, revision=revision))
        if len(payload) + OVERHEAD > self.max_payload:
            raise ProgramTooLarge(program.node, program.uid, len(payload), self.max_payload - OVERHEAD)
        return Outgoing(program_tail(program.node, program.uid), payload, ROLLUP)

    def read(self, stored: Iterable[tuple[str, Stored]]) -> Policy:
        """Take over what *stored*, (subject below ``policy.<cluster>.``, message) in stream order, amounts to.

        What cannot be read, or does not add up to its digest, counts as not published: it will be written again,
        or removed if nothing is to be there.
        """
        programs: dict[tuple[str, str], Program] = {}
        parts: dict[str, dict[PartName, Part]] = {}
        for tail, message in stored:
            head, *rest = tail.split(".")
            if head == "pod" and len(rest) == 2:
                self._read_program(programs, tail, message.payload)
            elif head == "set" and len(rest) == 2:
                self._read_part(parts.setdefault(rest[0], {}), rest[0], rest[1], message)
        for identity, found in parts.items():
            self._read_set(identity, found)
        sets = {identity: known.members for identity, known in self.sets.items()}
        return Policy(programs=programs, sets=sets)

    def _read_program(self, programs: dict[tuple[str, str], Program], tail: str, payload: bytes) -> None:
        _, node, uid = tail.split(".")
        if not payload:
            return
        try:
            # When it was published is no part of what it says: an owner publishes nothing anew for that.
            programs[from_token(node), from_token(uid)] = msgspec.structs.replace(decode_program(payload), revision=-1)
        except UNREADABLE:
            self.debris.add(tail)

    def _read_part(self, parts: dict[PartName, Part], identity: str, token: str, message: Stored) -> None:
        subject = f"set.{identity}.{token}"
        try:
            fold(parts, PartName.parse(token), message, kind_of(identity))
        except ValueError:  # no part of ours, no set of ours, or unreadable: so is what follows until a snapshot
            self.debris.add(subject)
        else:
            self.debris.discard(subject)

    def _read_set(self, identity: str, parts: dict[PartName, Part]) -> None:
        """A set counts if the parts of some number of bits are all sound, else all of it is debris."""
        sound = {name: part for name, part in parts.items() if f"set.{identity}.{name}" not in self.debris}
        if whole(sound):
            self.sets[identity] = PublishedSet(identity, self.part_members, sound)
        else:
            self.debris.update(f"set.{identity}.{name}" for name in parts)


def program_tail(node: str, uid: str) -> str:
    """`schemas.names.program_subject` below ``policy.<cluster>.``."""
    return f"pod.{token(node)}.{token(uid)}"
