"""What a reader knows of one address set, and what of it must be fetched again."""

from collections.abc import Iterable
from typing import Final

from schemas.policy import SetChange, SetDelta
from schemas.sets import address_of, kind_of
from streams.core.parts import Part, PartName, Stored, Unreadable, apply, change_of, fold, read_message, whole

EVERY_PART: Final = "*"


class SetView:
    """The union of a set's parts, kept by messages; *broken* names the parts that messages could not keep."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.kind = kind_of(identity)
        self.parts: dict[PartName, Part] = {}
        self.sequences: dict[str, int] = {}
        """Newest message taken in, by part token, gone parts included; 0 or absent: forgotten."""
        self.broken: set[str] = {EVERY_PART}
        """Part tokens to fetch, or `EVERY_PART`."""
        self.known = False
        """Whole at least once; from then on *parts* is what stands."""
        self.handed = False
        """The receiver has heard of this set."""
        self.released: set[bytes] = set()
        """Addresses that messages said to be given up, until someone takes them away."""
        self._gained: set[bytes] = set()
        self._lost: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<set {self.identity}, {len(self.parts)} parts, broken {sorted(self.broken)}>"

    @property
    def members(self) -> frozenset[bytes]:
        return frozenset().union(*(part.members for part in self.parts.values()))

    def forget(self) -> None:
        """Sequences count no more (another stream may be behind them); what stands, stands."""
        self.sequences.clear()
        for part in self.parts.values():
            part.sequence = 0

    def has(self, token: str, sequence: int) -> bool:
        """Whether part *token* is in at *sequence* or later."""
        return not self.broken & {token, EVERY_PART} and self.sequences.get(token, 0) >= sequence

    def live(self, token: str, sequence: int, last: int, payload: bytes) -> None:
        """Take in a message as it arrives; *last* is the sequence of the one before on its subject."""
        if sequence <= self.sequences.get(token, 0) or EVERY_PART in self.broken:
            return
        try:
            name = PartName.parse(token)
            if not payload:
                self._drop(name)
            else:
                self._take(name, sequence, last, payload)
        except Unreadable:
            self.broken.add(token)
            return
        except ValueError:  # a part name that no writer of ours gives
            return
        self.sequences[token] = sequence
        self.broken.discard(token)

    def _take(self, name: PartName, sequence: int, last: int, payload: bytes) -> None:
        message = read_message(payload)
        part = self.parts.get(name) or Part()
        if isinstance(message, SetDelta):
            if str(name) in self.broken or name not in self.parts:
                raise Unreadable("there is nothing that the delta could follow")
            if part.sequence and last != part.sequence:
                raise Unreadable("the message before the delta has not come")
        added, removed = change_of(part, self.kind, message)
        apply(part, message, added, removed)
        part.sequence = sequence
        self.parts[name] = part
        if message.released:  # of a snapshot behind a gap too much may count: rather shut than open to two owners
            self.released.update(address_of(self.kind, member) for member in removed)
        self._note(part, added, removed)

    def _drop(self, name: PartName) -> None:
        """A part goes because newer ones hold its members; if they do not yet, the set is read again."""
        if not whole(other for other in self.parts if other != name):
            raise Unreadable("no other parts hold its members")
        part = self.parts.pop(name, None)
        if part is not None:
            self._note(part, set(), part.members)

    def _note(self, part: Part, added: set[bytes], removed: set[bytes]) -> None:
        """Remember what *part*'s change means for the union of all parts."""
        for other in self.parts.values():
            if other is not part:
                added = added - other.members
                removed = removed - other.members
        self._net(added, removed)

    def _net(self, added: set[bytes], removed: set[bytes]) -> None:
        """Fold a change of the union into what the receiver must still hear; coming and going again is nothing."""
        gained, lost = self._gained, self._lost
        self._gained = (gained - removed) | (added - lost)
        self._lost = (lost - added) | (removed - gained)

    def fetched(self, token: str, stored: Iterable[Stored]) -> None:
        """Replace part *token*, or all of them, by what was read. What does not add up stays broken."""
        found: dict[PartName, Part] = {}
        sequences: dict[str, int] = {}
        unreadable: set[PartName] = set()
        for message in stored:
            part_token = message.subject.rpartition(".")[2]
            try:
                name = PartName.parse(part_token)
            except ValueError:
                continue
            sequences[part_token] = message.sequence
            try:
                fold(found, name, message, self.kind)
                unreadable.discard(name)
            except Unreadable:
                unreadable.add(name)
        if any(sequence < self.sequences.get(known, 0) for known, sequence in sequences.items()):
            return  # older than what is here already: read again
        sound = {name: part for name, part in found.items() if name not in unreadable}
        parts = sound if token == EVERY_PART else {**self._except(token), **sound}
        if not whole(parts):
            self.broken.add(EVERY_PART)  # nothing of it there, or not all: what stands, stands
            return
        before, self.parts = self.members, parts
        after = self.members
        self._net(set(after - before), set(before - after))
        self.sequences.update(sequences)
        self.known = True
        if token == EVERY_PART:
            self.broken.clear()
        self.broken.discard(token)

    def _except(self, token: str) -> dict[PartName, Part]:
        return {name: part for name, part in self.parts.items() if str(name) != token}

    def take(self, *, everything: bool) -> SetChange | None:
        """What the receiver does not know yet; with *everything*, all members as *added*. `None`: nothing to say."""
        if not self.known or not (everything or self._gained or self._lost or not self.handed):
            return None
        added = self.members if everything or not self.handed else frozenset(self._gained)
        change = SetChange(id=self.identity, added=added, removed=frozenset(self._lost) if self.handed else frozenset())
        self.handed = True
        self._gained, self._lost = set(), set()
        return change
