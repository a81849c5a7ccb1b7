"""What one node knows of its cluster's policy: a state machine over messages, in whatever order they come.

    live messages ─┐                       ┌─▶ take(): what the enforcer must apply, marks that are earned
    fetched parts ─┼─▶ NodeView (no I/O) ──┤
    catch-up reads ┘                       └─▶ what to fetch: programs, set parts, everything

Whole messages (programs, snapshots) replace what was there, so a gap before one does not matter. A delta counts only
behind the message it follows, and only if the part then has the delta's digest; otherwise the part is fetched.
A mark is handed over when every subject that it lists for this node is in, at that sequence or later.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

import msgspec

from schemas.names import from_token, token
from schemas.policy import Mark, NodeUpdate, SetChange, decode_mark
from schemas.programs import Program, decode_program
from schemas.unreadable import UNREADABLE
from streams.core.parts import Stored
from streams.core.set_view import EVERY_PART, SetView


class CatchUp(msgspec.Struct, frozen=True):
    """A complete read: first fence and mark, then the programs, so these are at least as new."""

    fence: int
    """Stream sequence; 0: nobody ever owned the stream."""
    mark: Mark | None
    mark_sequence: int
    programs: Sequence[Stored]
    """The newest message of every program subject of this node."""


class _Awaited(msgspec.Struct):
    mark: Mark
    missing: dict[str, int]
    """What of it concerns this node and is not in yet: least sequence by subject below ``policy.<cluster>.``."""


class NodeView:
    """Programs of one node, the sets they name, and how far both are proven complete."""

    def __init__(self, node: str) -> None:
        self._prefix = f"pod.{token(node)}."
        self.sets: dict[str, SetView] = {}
        """Exactly those that a program names, the newest or the one handed over."""
        self.must_catch_up = True
        """Nothing is proven until everything has been read."""
        self.unproven: set[str] = set()
        """Uids of programs to fetch."""
        self.unreadable: dict[str, str] = {}
        """Why a program cannot be read, by uid. What stands of it stands; no mark that covers it, and no complete
        update, is handed over: that could take rules away from a Pod that must have some."""
        self.newest = 0
        """Highest stream sequence heard of: a fetch must be as new."""
        self._programs: dict[str, Program] = {}
        self._handed: dict[str, Program] = {}
        self._named: Counter[str] = Counter()
        """How many of *_programs* name a set."""
        self._kept: Counter[str] = Counter()
        """How many of *_handed* do."""
        self._sequences: dict[str, int] = {}
        self._released: set[bytes] = set()
        self._dirty: set[str] = set()
        self._suspects: set[str] = set()
        """Uids that the last complete read did not show; gone as soon as a mark proves that the read was of all."""
        self._fence = 0
        self._mark_sequence = 0
        self._awaited: deque[_Awaited] = deque()
        self._owes_complete = True

    def __repr__(self) -> str:
        state = "must catch up" if self.must_catch_up else "in step"
        return f"<view of {self._prefix}* {state}: {len(self._programs)} programs, {len(self.sets)} sets>"

    # what arrives

    def forget(self) -> None:
        """The connection was lost, or the stream has a new owner: sequences count no more, everything is read again."""
        self._sequences.clear()
        for known in self.sets.values():
            known.forget()
        self._fence = self._mark_sequence = self.newest = 0
        self._read_again()

    def _read_again(self) -> None:
        self.must_catch_up = self._owes_complete = True
        self._awaited.clear()

    def live(self, tail: str, sequence: int, last: int, payload: bytes) -> None:
        """Take in the message *tail* (subject below ``policy.<cluster>.``) as it arrives.

        *last*: sequence of the message before on the same subject. Raises `UNREADABLE` for a mark that cannot
        be read; the next one then follows on a gap.
        """
        self.newest = max(self.newest, sequence)
        head, _, rest = tail.partition(".")
        if tail.startswith(self._prefix):
            self._program(tail.removeprefix(self._prefix), sequence, payload)
        elif head == "set":
            identity, _, part = rest.partition(".")
            if known := self.sets.get(identity):
                known.live(part, sequence, last, payload)
                self._released |= known.released
                known.released.clear()
        elif head == "fence" and sequence > self._fence:
            self.forget()
            self._fence = self.newest = sequence
        elif head == "mark":
            self._mark(sequence, last, payload)

    def _program(self, uid_token: str, sequence: int, payload: bytes) -> None:
        uid = from_token(uid_token)
        if sequence <= self._sequences.get(uid, 0):
            return
        self.unproven.discard(uid)
        try:
            program: Program | None = decode_program(payload) if payload else None
        except UNREADABLE as error:
            self.unreadable[uid] = str(error)
            self._suspects.discard(uid)
            return
        self._sequences[uid] = sequence
        self.unreadable.pop(uid, None)
        self._suspects.discard(uid)
        if program == self._programs.get(uid):
            return
        self._replace(uid, program)

    def _replace(self, uid: str, program: Program | None) -> None:
        """A set that is named for the first time is unknown, and must be fetched."""
        _assign(self._programs, self._named, uid, program)
        self._dirty.add(uid)
        for identity in program.sets if program else ():
            if identity not in self.sets:
                self.sets[identity] = SetView(identity)

    def _mark(self, sequence: int, last: int, payload: bytes) -> None:
        if self.must_catch_up or sequence <= self._mark_sequence:
            return
        mark: Mark = decode_mark(payload)
        if last != self._mark_sequence or mark.changed is None:
            self._read_again()
            return
        self._mark_sequence = sequence
        self._awaited.append(_Awaited(mark, {tail: least for tail, least in mark.changed if self._concerns(tail)}))

    def _concerns(self, tail: str) -> bool:
        return tail.startswith((self._prefix, "set."))

    # what was fetched

    def caught_up(self, read: CatchUp) -> None:
        """Everything was read but the sets, which are all to be fetched now."""
        self.must_catch_up = False
        self._awaited.clear()
        self._fence = read.fence
        self._mark_sequence = read.mark_sequence
        self.newest = max(self.newest, read.fence, read.mark_sequence)
        found = set()
        self.unreadable.clear()
        for message in read.programs:
            self.newest = max(self.newest, message.sequence)
            uid_token = message.subject.rpartition(".")[2]
            if message.payload:
                found.add(from_token(uid_token))
            self._program(uid_token, message.sequence, message.payload)
        self._suspects = self._programs.keys() - found
        self.unproven.clear()
        for known in self.sets.values():
            known.broken.add(EVERY_PART)
        # A mark from before the fence says nothing about what the new owner has begun to change.
        if read.mark is not None and read.mark_sequence > read.fence:
            self._awaited.append(_Awaited(read.mark, {}))

    def fetched_program(self, uid: str, message: Stored | None) -> None:
        """The newest message of one program's subject; `None` (expired, or lost with its stream): read everything."""
        if message is None:
            self._read_again()
        else:
            self._program(token(uid), message.sequence, message.payload)

    # what is missing

    def missing_parts(self) -> list[tuple[str, str]]:
        """(set id, part or `EVERY_PART`) to fetch, of the sets that the newest programs name."""
        return [
            (identity, part)
            for identity, known in self.sets.items()
            if known.broken and identity in self._named
            for part in ([EVERY_PART] if EVERY_PART in known.broken else sorted(known.broken))
        ]

    def blocked(self) -> bool:
        """Whether a mark waits for something to come in."""
        return bool(self._awaited) and not self._satisfied(self._awaited[0])

    def doubt_missing(self) -> None:
        """What the oldest mark waits for is late: it must be fetched."""
        if not self._awaited:
            return
        for tail in self._awaited[0].missing:
            if tail.startswith(self._prefix):
                self.unproven.add(from_token(tail.removeprefix(self._prefix)))
                continue
            _, identity, part = tail.split(".", 2)
            self.sets[identity].broken.add(part)

    def _satisfied(self, awaited: _Awaited) -> bool:
        awaited.missing = {tail: least for tail, least in awaited.missing.items() if not self._is_in(tail, least)}
        return not awaited.missing

    def _is_in(self, tail: str, least: int) -> bool:
        if tail.startswith(self._prefix):
            uid = from_token(tail.removeprefix(self._prefix))
            return self._sequences.get(uid, 0) >= least and (uid not in self._dirty or self._ready(uid))
        _, identity, part = tail.split(".", 2)
        known = self.sets.get(identity)
        return known is None or known.has(part, least)

    def _ready(self, uid: str) -> bool:
        program = self._programs.get(uid)
        return program is None or all(self.sets[identity].known for identity in program.sets)

    def _proven(self) -> bool:
        """Whether all that the last read showed is here."""
        if self.must_catch_up or self.unproven or self.unreadable:
            return False
        live = [program for uid, program in self._programs.items() if uid not in self._suspects]
        return not any(self.sets[identity].broken for program in live for identity in program.sets)

    # what the receiver gets

    def take(self) -> NodeUpdate | None:
        """Everything that may be applied by now and was not handed over yet; `None` if there is nothing."""
        mark = self._earned_mark()
        complete = mark is not None and self._owes_complete
        if complete:
            self._owes_complete = False
            for uid in self._suspects:
                self._replace(uid, None)
            self._suspects = set()
        dirty = {uid for uid in self._dirty if self._ready(uid)}
        self._dirty -= dirty
        gone = sorted(uid for uid in dirty if uid not in self._programs and uid in self._handed)
        for uid in dirty:
            _assign(self._handed, self._kept, uid, self._programs.get(uid))
        changed = sorted(self._handed if complete else dirty & self._handed.keys())
        programs = tuple(self._handed[uid] for uid in changed)
        sets = (*self._changed_sets(everything=complete), *self._unnamed_sets())
        released, self._released = frozenset(self._released), set()
        if not (sets or programs or gone or mark or released):
            return None
        return NodeUpdate(
            sets=sets, programs=programs, gone=tuple(gone), released=released, mark=mark, complete=complete
        )

    def _earned_mark(self) -> Mark | None:
        """The newest of the marks in front that lack nothing; none while completeness is owed and not proven."""
        if self._owes_complete and not self._proven():
            return None
        mark = None
        while self._awaited and self._satisfied(self._awaited[0]):
            mark = self._awaited.popleft().mark
        return mark

    def _changed_sets(self, *, everything: bool) -> Iterable[SetChange]:
        for known in self.sets.values():
            if self._in_use(known.identity) and (change := known.take(everything=everything)):
                yield change

    def _unnamed_sets(self) -> Iterable[SetChange]:
        for identity in [identity for identity in self.sets if not self._in_use(identity)]:
            if self.sets.pop(identity).handed:
                yield SetChange(id=identity, gone=True)

    def _in_use(self, identity: str) -> bool:
        return identity in self._named or identity in self._kept


def _assign(programs: dict[str, Program], named: Counter[str], uid: str, program: Program | None) -> None:
    """Put *program*, or nothing, at *uid*, and keep count of who names which set."""
    if before := programs.pop(uid, None):
        for identity in before.sets:
            named[identity] -= 1
            if not named[identity]:
                del named[identity]
    if program is not None:
        programs[uid] = program
        named.update(program.sets)
