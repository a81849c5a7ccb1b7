"""The state of a log at one of its offsets, as the records that say it: how an export begins."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from processors.core.reading import Reader, Record
from processors.core.segmentation.policies import read_spec
from schemas.events import EPOCH, SYNC
from schemas.objects import NetworkPolicy

R = TypeVar("R", bound=Record)


class StateAt(Generic[R]):
    """Feed it a log from the beginning; `records` then says what a fold of all that would know, and no more.

    These are, with their own offsets: per object the newest record that counts; the version of a policy that stands,
    where the newest one's selector cannot be read; a record that cannot be read, where it is the newest of its key;
    the epoch; and which kinds were listed in it.
    """

    def __init__(self) -> None:
        self._reader = Reader()
        self._state: dict[str, R] = {}
        self._standing: dict[str, R] = {}
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
                    self._standing.pop(fact.key, None)
                else:
                    self._state[fact.key] = record
                    if (
                        isinstance(fact.object, NetworkPolicy)
                        and read_spec(bytes(fact.object.spec)).subject is not None
                    ):
                        self._standing[fact.key] = record
            kind = record.key.partition("/")[0]
            if kind == EPOCH and self._reader.epoch == record.offset:
                self._control = {record.key: record}
            elif kind == SYNC and record.value is not None:
                self._control[record.key] = record

    def records(self) -> list[R]:
        """In the order of their offsets."""
        parts = (self._state, self._standing, self._unreadable, self._control)
        found = {record.offset: record for part in parts for record in part.values()}
        return [found[offset] for offset in sorted(found)]
