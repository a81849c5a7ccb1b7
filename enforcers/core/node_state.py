"""What a node must enforce, as its policy reader tells: programs, sets, and who names which.

Members live once per node, however many Pods name a set. Each set numbers its changes, so that a Pod whose kernel is
at number 41 needs only the changes since, not a comparison of everything.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from schemas.policy import NodeUpdate, SetChange
from schemas.programs import Program

REMEMBERED: Final = 64
"""Changes per set that can be applied one after the other; a Pod further behind is compared as a whole."""


class Step(msgspec.Struct, frozen=True):
    added: frozenset[bytes]
    removed: frozenset[bytes]


class TrackedSet:
    """The members of one set, and how they came to be what they are."""

    def __init__(self, members: Iterable[bytes] = (), *, first_version: int = 0) -> None:
        self.members = set(members)
        self.version = first_version
        """Number of the newest change."""
        self._steps: deque[Step] = deque(maxlen=REMEMBERED)

    def change(self, added: Iterable[bytes], removed: Iterable[bytes]) -> bool:
        """Apply a change; return whether there was any."""
        gains = frozenset(added) - self.members
        losses = (frozenset(removed) & self.members) - frozenset(added)
        if not gains and not losses:
            return False
        self.members |= gains
        self.members -= losses
        self._steps.append(Step(gains, losses))
        self.version += 1
        return True

    def since(self, version: int) -> Step | None:
        """The net change since *version*; ``None``: too long ago to know."""
        count = self.version - version
        if not 0 <= count <= len(self._steps):
            return None
        return _net(list(self._steps)[len(self._steps) - count :])

    def at(self, version: int) -> frozenset[bytes] | None:
        """The members as they were at *version*; ``None``: too long ago to know."""
        step = self.since(version)
        return None if step is None else frozenset((self.members - step.added) | step.removed)


def _net(steps: Iterable[Step]) -> Step:
    """What several changes come to: the last word about each member, where it differs from the first state."""
    first: dict[bytes, bool] = {}
    last: dict[bytes, bool] = {}
    for step in steps:
        for member in step.added:
            first.setdefault(member, False)
            last[member] = True
        for member in step.removed:
            first.setdefault(member, True)
            last[member] = False
    return Step(
        added=frozenset(member for member, present in last.items() if present and not first[member]),
        removed=frozenset(member for member, present in last.items() if not present and first[member]),
    )


class NodeState:
    """Everything one node was told."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        """By the uid that the runtime knows: a static Pod's mirror id, else the API's uid."""
        self.sets: dict[str, TrackedSet] = {}
        self.complete = False
        """Whether all there is has been told once; before, nothing may be written."""
        self._naming: dict[str, set[str]] = {}  # set id → uids of programs
        self._created = 0
        self._runtime_ids: dict[str, str] = {}  # API uid → the runtime's

    def apply(self, update: NodeUpdate) -> set[str]:
        """Take in *update*; return the uids of Pods whose kernel may have to change."""
        dirty: set[str] = set()
        if update.complete:
            told = {_runtime_id(program) for program in update.programs}
            for uid in self.programs.keys() - told:
                dirty.add(uid)
                self._forget(uid)
            self.complete = True
        for change in update.sets:
            if self._change_set(change, whole=update.complete):
                dirty |= self._naming.get(change.id, set())
        for program in update.programs:
            uid = _runtime_id(program)
            before = self._runtime_ids.get(program.uid, uid)
            self._runtime_ids[program.uid] = uid
            if before != uid and before in self.programs:
                self._forget(before)
                dirty.add(before)
            if self.programs.get(uid) != program:
                self._forget(uid)
                self.programs[uid] = program
                for identity in program.sets:
                    self._naming.setdefault(identity, set()).add(uid)
                dirty.add(uid)
        for uid in update.gone:
            known = self._runtime_ids.pop(uid, uid)
            # A static Pod's next mirror has another uid and the same id at the runtime: its program may be here by now.
            if known in self.programs and self.programs[known].uid == uid:
                self._forget(known)
                dirty.add(known)
        for identity in self.sets.keys() - self._naming.keys():  # named again, it comes whole again
            del self.sets[identity]
        return dirty

    def _change_set(self, change: SetChange, *, whole: bool) -> bool:
        tracked = self.sets.get(change.id)
        if tracked is None:
            tracked = self._create(change.id)
        removed = tracked.members - change.added if whole else change.removed
        return tracked.change(change.added, removed)

    def _create(self, identity: str) -> TrackedSet:
        """Numbers begin far behind those of a set of the same name before: a Pod that lags never mistakes them."""
        self._created += 1
        tracked = self.sets[identity] = TrackedSet(first_version=self._created << 32)
        return tracked

    def _forget(self, uid: str) -> None:
        program = self.programs.pop(uid, None)
        for identity in program.sets if program else ():
            self._naming[identity].discard(uid)
            if not self._naming[identity]:
                del self._naming[identity]


def _runtime_id(program: Program) -> str:
    return program.mirror or program.uid
