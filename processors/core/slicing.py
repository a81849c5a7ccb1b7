"""The state of a log at one of its offsets, as the records that say it: how an export begins."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from processors.core.reading import Reader, Record
from schemas.events import EPOCH, SYNC

R = TypeVar("R", bound=Record)


class StateAt(Generic[R]):
    """Feed it a log from the beginning; `records` then says what a fold of all that would know, and no more.

    These are, with their own offsets: per object the newest record that counts; one that cannot be read, where it is
    the newest of its key; the epoch; and which kinds were listed in it.
    """

    def __init__(self) -> None:
        self._reader = Reader()
        self._state: dict[str, R] = {}
        self._unreadable: dict[str, R] = {}
        self._control: dict[str, R] = {}

    def advance(self, records: Iterable[R]) -> None:
        """Take in *records*, which follow those before."""
        for record in records:  # one by one: a fact does not say by which of several records it came
            batch = self._reader.read((record,))
            if batch.poison:
                self._unreadable[record.key] = record
                continue
            for fact in batch.facts:
                self._unreadable.pop(fact.key, None)
                if fact.object is None:
                    self._state.pop(fact.key, None)
                else:
                    self._state[fact.key] = record
            kind = record.key.partition("/")[0]
            if kind == EPOCH and self._reader.epoch == record.offset:
                self._control = {record.key: record}
            elif kind == SYNC and record.value is not None:
                self._control[record.key] = record

    def records(self) -> list[R]:
        """In the order of their offsets."""
        found = (*self._state.values(), *self._unreadable.values(), *self._control.values())
        return sorted(found, key=lambda record: record.offset)
