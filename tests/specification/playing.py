"""Plays cases through reader, fold and interpreter, in one process and without a log."""

from collections.abc import Iterator

from compose.checking.engines.judging import Judge
from compose.checking.suites.cases import Case, Cell
from compose.checking.suites.history import History
from processors.core.policy_fold import PolicyFold, PolicySettings, Step
from processors.core.reading import Reader
from schemas.verdict import Judgement
from streams.log import Entry, Record


class Stage:
    """One case on its way through a reader and a fold."""

    def __init__(self, case: Case) -> None:
        self.history = History(case)
        self.fold = PolicyFold(PolicySettings())
        self._reader = Reader()
        self._offset = 0
        self.write([self.history.opening()])
        self.write(self.history.initial())
        assert self._reader.complete

    def write(self, entries: list[Entry]) -> Step:
        """Fold *entries* as one batch."""
        records = [Record(at, 0, entry.key, entry.value) for at, entry in enumerate(entries, self._offset)]
        self._offset += len(records)
        batch = self._reader.read(records)
        assert not batch.poison, batch.poison
        return self.fold.fold(batch.facts)

    def judged(self) -> Iterator[tuple[str, Cell, Judgement]]:
        """Every step's cells with their verdicts."""
        for step in self.history.case.steps:
            self.write(self.history.entries(step.actions))
            judge = Judge(self.history.objects, self.fold.policy())
            for cell in step.cells:
                yield step.name, cell, judge.judge(cell)


def wrong(case: Case) -> list[str]:
    """The cells that came out otherwise than expected, each with what decided it."""
    return [
        f"{case.id}, {name}: {cell} should be {'allowed' if cell.allowed else 'blocked'}: "
        f"{judgement.reason} {judgement.policy or ', '.join(judgement.isolating)}"
        for name, cell, judgement in Stage(case).judged()
        if judgement.allowed != cell.allowed
    ]
