"""The reflector: from what a source observes to the entries that the log lacks.

    observations ──▶ compared with the ledger ──▶ changed objects, derived deletions, Sync marks ──▶ entries

It writes what differs and nothing else, so that a restart, a new list or a repeated observation costs no event.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from producers.core.entries import Scribe, minimal, split_key
from producers.core.ledger import Held, Ledger
from producers.core.observations import (
    ClusterSeen,
    ListBegun,
    ListComplete,
    Observation,
    Observed,
    Trouble,
    Unreadable,
)
from schemas import names
from schemas.events import CLUSTER, EPOCH, SYNC, EventType, encode_object
from schemas.objects import KubernetesObject
from streams.log import Entry, entry_size

EMPTY: Final = b"{}"
MAX_PROBLEMS: Final = 1000
"""Some problems, such as a line that was cut, are never over: the oldest make room for new ones."""


class Reflector:
    """Compares observations with *ledger*, which it advances by every entry that it returns.

    The entries must be appended in order before anything else is: where that fails for good, fold the log anew.
    """

    def __init__(self, ledger: Ledger, scribe: Scribe, *, max_entry_bytes: int) -> None:
        self.ledger = ledger
        self._scribe = scribe
        self._limit = max_entry_bytes
        self._listed: dict[str, set[str]] = {}
        """Kind → keys told since its list began; only while one is going on."""
        self._doubtful: set[str] = set()
        """Kinds whose current list has an object without a readable name."""
        self.problems: dict[str, str] = {}
        """What a person should know, by subject."""

    def reflect(self, observations: Iterable[Observation], observed_at: str) -> list[Entry]:
        """The entries for *observations*, in order; a deletion and its tombstone side by side."""
        entries: list[Entry] = []
        for observation in observations:
            if isinstance(observation, Observed):
                self._object(observation.type, observation.object, observed_at, entries)
            elif isinstance(observation, ListBegun):
                self._listed[observation.kind] = set()
                self._doubtful.discard(observation.kind)
            elif isinstance(observation, ListComplete):
                self._complete(observation.kind, observed_at, entries)
            elif isinstance(observation, Unreadable):
                self._unreadable(observation)
            elif isinstance(observation, ClusterSeen):
                self._control(CLUSTER, names.NO_NAMESPACE, encode_object(observation.info), observed_at, entries)
            else:
                self._trouble(observation)
        return entries

    def mend(self, observed_at: str) -> list[Entry]:
        """Write every unsound key again, of the kinds that are listed: those of the others come with their list."""
        entries: list[Entry] = []
        for kind, keys in self.ledger.unsound.items():
            if keys and kind != EPOCH and (kind in self.ledger.epochs.synced or kind in (SYNC, CLUSTER)):
                for key in sorted(keys):
                    self._mend(key, observed_at, entries)
        return entries

    def note(self, subject: str, reason: str) -> None:
        """Keep *reason* as the problem of *subject*."""
        self.problems[subject] = reason
        if len(self.problems) > MAX_PROBLEMS:
            self.problems.pop(next(iter(self.problems)))

    def _object(self, type_: EventType, item: KubernetesObject, observed_at: str, entries: list[Entry]) -> None:
        kind, meta = type(item).__name__, item.metadata
        key = names.key(kind, meta.namespace, meta.name)
        listed = self._listed.get(kind)
        held = self.ledger.objects[kind].get(key)
        if self.problems and type_ is not EventType.DELETED:
            self.problems.pop(key, None)
        if type_ is EventType.DELETED:
            if listed is not None:
                listed.discard(key)
            if held is not None and held.uid and meta.uid and held.uid != meta.uid:
                return  # a late word about a predecessor, whose end was written when its successor came
            self._delete(key, project(item) if meta.uid else held, observed_at, entries)
            return
        if listed is not None:
            listed.add(key)
        seen = project(item)
        if held is not None and held.uid != seen.uid:
            self._delete(key, held, observed_at, entries)
            held = None
        if held is not None and held.object == seen.object and key not in self.ledger.unsound[kind]:
            return
        entry = self._scribe.state(
            EventType.ADDED if held is None else EventType.MODIFIED,
            (kind, meta.namespace, meta.name),
            seen,
            observed_at,
        )
        if (size := entry_size(entry)) > self._limit:
            what = "its last good version stands" if held else "it is left out"
            self.note(key, f"its projection takes {size} bytes and the log at most {self._limit}: {what}")
            return
        self.ledger.keep(kind, key, seen)
        entries.append(entry)

    def _delete(self, key: str, last: Held | None, observed_at: str, entries: list[Entry]) -> None:
        """End *key*, if the log has it, or has something about it that readers ignore."""
        reference = kind, namespace, name = split_key(key)
        self.problems.pop(key, None)
        if key not in self.ledger.objects[kind] and key not in self.ledger.unsound[kind]:
            return
        pair = self._scribe.deletion(reference, last or minimal(namespace, name), observed_at)
        if entry_size(pair[0]) > self._limit:
            pair = self._scribe.deletion(reference, minimal(namespace, name), observed_at)
        self.ledger.drop(kind, key)
        entries.extend(pair)

    def _complete(self, kind: str, observed_at: str, entries: list[Entry]) -> None:
        """The list of *kind* is complete: what it did not tell is gone."""
        listed = self._listed.pop(kind, set())
        if kind in self._doubtful:
            self._doubtful.discard(kind)
        else:
            held = self.ledger.objects[kind]
            for key in sorted((held.keys() | self.ledger.unsound[kind]) - listed):
                self._delete(key, held.get(key), observed_at, entries)
        synced = self.ledger.epochs.synced
        if kind not in synced:
            self._control(SYNC, kind, EMPTY, observed_at, entries, always=True)
            synced.add(kind)

    def _unreadable(self, bad: Unreadable) -> None:
        if not bad.name:
            self._doubtful.add(bad.kind)
            self.note(bad.place or bad.kind, f"cannot be read: {bad.reason}")
            return
        key = names.key(bad.kind, bad.namespace, bad.name)
        if (listed := self._listed.get(bad.kind)) is not None:
            listed.add(key)
        where = f" ({bad.place})" if bad.place else ""
        self.note(key, f"cannot be read, its last good version stands{where}: {bad.reason}")

    def _trouble(self, trouble: Trouble) -> None:
        if trouble.reason:
            self.note(trouble.subject, trouble.reason)
        else:
            self.problems.pop(trouble.subject, None)

    def _control(
        self, kind: str, name: str, content: bytes, observed_at: str, entries: list[Entry], *, always: bool = False
    ) -> None:
        """A record about the log itself; written if it differs, or *always*."""
        key = names.key(kind, "", name)
        held = self.ledger.objects[kind].get(key)
        if not always and held is not None and held.object == content and key not in self.ledger.unsound[kind]:
            return
        now = Held("", "", content)
        type_ = EventType.ADDED if held is None else EventType.MODIFIED
        entries.append(self._scribe.state(type_, (kind, "", name), now, observed_at))
        self.ledger.keep(kind, key, now)

    def _mend(self, key: str, observed_at: str, entries: list[Entry]) -> None:
        kind, namespace, name = split_key(key)
        if kind == SYNC and name not in self.ledger.epochs.synced:
            return  # written when the list is complete
        held = self.ledger.objects[kind].get(key)
        if held is None:
            self._delete(key, None, observed_at, entries)
        else:
            entries.append(self._scribe.state(EventType.MODIFIED, (kind, namespace, name), held, observed_at))
            self.ledger.keep(kind, key, held)


def project(item: KubernetesObject) -> Held:
    """*item* as the log keeps it: without its resource version, which stands in the event and decides nothing.

    An object that changed only in what is not projected is then equal to what the log holds.
    """
    meta = item.metadata
    replace = msgspec.structs.replace
    return Held(
        meta.uid, meta.resource_version, encode_object(replace(item, metadata=replace(meta, resource_version="")))
    )


def problems_since(before: dict[str, str], now: dict[str, str]) -> Sequence[tuple[str, str]]:
    """Subjects whose problem is new or another one, with an empty reason where it is over."""
    new = [(subject, reason) for subject, reason in now.items() if before.get(subject) != reason]
    return [*new, *((subject, "") for subject in before if subject not in now)]
