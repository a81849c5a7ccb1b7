"""When a revision may be marked as complete: once everything it covers, and all before it, is acknowledged."""

from collections import deque

import msgspec

from schemas.policy import MARK_SUBJECTS, Mark


class Open(msgspec.Struct):
    """A revision that was sent and not marked yet."""

    revision: int
    time: str
    outstanding: int
    acknowledged: dict[str, int]
    """Sequence by subject."""


class Marking:
    """Counts acknowledgements by revision, and says which mark they have earned."""

    def __init__(self, last: Mark | None) -> None:
        self.last = last
        """The newest mark made, or found at the take-over."""
        self._open: deque[Open] = deque()

    @property
    def settled(self) -> bool:
        """Whether every revision sent is marked."""
        return not self._open

    def sent(self, revision: int, time: str, messages: int) -> Open:
        """*messages* of *revision* are on their way; hand what this returns to `acknowledge`. Revisions never fall."""
        found = Open(revision, time, messages, {})
        self._open.append(found)
        return found

    def acknowledge(self, opened: Open, subject: str, sequence: int) -> bool:
        """One message is stored; true when *opened* needs no more."""
        opened.acknowledged[subject] = max(sequence, opened.acknowledged.get(subject, 0))
        opened.outstanding -= 1
        return not opened.outstanding

    def earned(self) -> Mark | None:
        """One mark for all complete revisions at the front; `None` if there is none."""
        changed: dict[str, int] = {}
        newest: Open | None = None
        while self._open and not self._open[0].outstanding:
            newest = self._open.popleft()
            changed.update(newest.acknowledged)
        if newest is None:
            return None
        self.last = Mark(
            revision=newest.revision,
            changed=tuple(changed.items()) if len(changed) <= MARK_SUBJECTS else None,
            previous=self.last.revision if self.last else -1,
            time=newest.time or (self.last.time if self.last else ""),
        )
        return self.last

    def repeated(self) -> Mark | None:
        """The newest mark as a heartbeat: nothing changed since."""
        if self.last is None:
            return None
        return msgspec.structs.replace(self.last, changed=(), previous=self.last.revision)
