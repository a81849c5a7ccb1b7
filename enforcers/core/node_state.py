"""What a node must enforce, as its policy reader tells: programs, sets, and who names which.

Members live once per node, however many Pods name a set.
"""

from enforcers.core.tracked_sets import Releases, TrackedSet, TupleSet
from schemas import sets
from schemas.policy import NodeUpdate, SetChange
from schemas.programs import Program
from schemas.sets import SetKind


class NodeState:
    """Everything one node was told."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        """By the uid that the runtime knows: a static Pod's mirror id, else the API's uid."""
        self.sets: dict[str, TrackedSet] = {}
        self.complete = False
        """Whether all there is has been told once; before, nothing may be written."""
        self._releases = Releases()
        self._naming: dict[str, set[str]] = {}  # set id → uids of programs
        self._addresses: frozenset[bytes] = frozenset()
        self._created = 0
        self._runtime_ids: dict[str, str] = {}  # API uid → the runtime's

    def apply(self, update: NodeUpdate) -> set[str]:
        """Take in *update*; return the uids of Pods whose kernel may have to change."""
        dirty: set[str] = set()
        self._releases.tell(update.released)
        if update.complete:
            told = {_runtime_id(program) for program in update.programs}
            for uid in self.programs.keys() - told:
                dirty.add(uid)
                self._forget(uid)
            self._runtime_ids = {program.uid: uid for uid, program in self.programs.items()}
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

    def take_addresses(self, found: frozenset[bytes]) -> None:
        """The node has the addresses *found*; which concerns every Pod."""
        self._addresses = found
        for tracked in self.sets.values():
            if isinstance(tracked, TupleSet):
                tracked.move(found)

    def _change_set(self, change: SetChange, *, whole: bool) -> bool:
        tracked = self.sets.get(change.id)
        if tracked is None:
            tracked = self._create(change.id)
        removed = tracked.told - change.added if whole else change.removed
        return tracked.change(change.added, removed)

    def _create(self, identity: str) -> TrackedSet:
        """Numbers begin far behind those of a set of the same name before: a Pod that lags never mistakes them."""
        self._created += 1
        version = self._created << 32
        tracked = (
            TupleSet(self._addresses, first_version=version, releases=self._releases)
            if sets.kind_of(identity) is SetKind.TUPLES
            else TrackedSet(first_version=version, releases=self._releases)
        )
        self.sets[identity] = tracked
        return tracked

    def _forget(self, uid: str) -> None:
        program = self.programs.pop(uid, None)
        for identity in program.sets if program else ():
            self._naming[identity].discard(uid)
            if not self._naming[identity]:
                del self._naming[identity]


def _runtime_id(program: Program) -> str:
    return program.mirror or program.uid
