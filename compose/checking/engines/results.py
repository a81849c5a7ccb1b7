"""What became of cases: which cells came out wrong, and why; counted, and told apart from what cannot be judged."""

from collections.abc import Iterable

import msgspec

from compose.checking.suites.cases import Case


class WrongCell(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that came out otherwise than the case says."""

    step: str
    cell: str
    """``source -> destination port/protocol``."""
    expected: str
    found: str
    why: str
    """The deciding rule and its policy; for a block, the policies that isolate."""

    def __str__(self) -> str:
        return f"{self.step}: {self.cell} should be {self.expected}, is {self.found}: {self.why}"


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case, played to its end or to where it could not go on."""

    file: str
    id: str
    name: str
    steps: int = 0
    cells: int = 0
    """Judged ones, and those of a step that failed as a whole."""
    wrong: tuple[WrongCell, ...] = ()
    failed: str = ""
    """Why a step as a whole failed; its cells are wrong, and later steps are not counted."""
    failed_cells: int = 0
    unsupported: str = ""
    """Why it was not played."""
    notes: tuple[str, ...] = ()
    asked_again: int = 0
    """Packets only: cells whose silence was doubted, since the machine was busy."""
    seconds: float = 0.0

    @property
    def wrong_count(self) -> int:
        return len(self.wrong) + self.failed_cells


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run."""

    cases: int
    steps: int
    cells: int
    wrong: int
    unsupported: int
    """Cases that were not played; they are among *cases*, and have no steps and cells."""

    def __str__(self) -> str:
        return (
            f"cases {self.cases}, steps {self.steps}, cells {self.cells}, wrong {self.wrong}, "
            f"unsupported {self.unsupported}"
        )


class FileCase(msgspec.Struct, frozen=True):
    """A case and the file it is from."""

    file: str
    case: Case


def totals(results: Iterable[CaseResult]) -> Totals:
    """The sums of *results*."""
    found = list(results)
    return Totals(
        cases=len(found),
        steps=sum(result.steps for result in found),
        cells=sum(result.cells for result in found),
        wrong=sum(result.wrong_count for result in found),
        unsupported=sum(bool(result.unsupported) for result in found),
    )
