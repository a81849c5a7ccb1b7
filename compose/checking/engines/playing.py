"""Playing cases: an engine says what each step's connections do, and what it says is compared with the case."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from compose.checking.engines.chain import Diverged, NotArrived
from compose.checking.engines.judging import Unknown
from compose.checking.engines.results import CaseResult, FileCase, WrongCell
from compose.checking.suites.cases import Case, CaseError, Cell, Step


class Finding(msgspec.Struct, frozen=True):
    """What one connection did, or would do."""

    allowed: bool
    verdict: str
    """As a person says it: ``allowed``, ``blocked``, ``refused``…"""
    why: str
    right: bool
    """Whether it is what the case expects."""
    doubted: bool = False


class Stage(Protocol):
    """One case, under way."""

    async def play(self, step: Step) -> list[tuple[Cell, Finding]]:
        """Do the step's actions, wait until they have taken effect everywhere, and find out about its cells.

        Raises `NotArrived`, `Diverged`, `NotRealized` where the system failed, and `Unknown` or `ValueError` where
        the case says what cannot be.
        """
        ...


class Engine(Protocol):
    """Plays one case at a time."""

    def stage(self, case: Case) -> AbstractAsyncContextManager[Stage]: ...


class NotRealized(Exception):
    """The step's rules are not in every Pod's namespace."""


FAILURES = (NotArrived, Diverged, NotRealized)


async def play(engine: Engine, given: FileCase) -> CaseResult:
    """Play one case. Raises `CaseError` where it says what cannot be."""
    case = given.case
    if case.unsupported:
        return CaseResult(file=given.file, id=case.id, name=case.name, unsupported=case.unsupported, notes=case.notes)
    began = time.monotonic()
    steps = cells = again = failed_cells = 0
    wrong: list[WrongCell] = []
    failed = ""
    mistake: Exception | None = None
    async with engine.stage(case) as stage:
        for step in case.steps:
            steps += 1
            cells += len(step.cells)
            try:
                found = await stage.play(step)
            except FAILURES as error:
                failed, failed_cells = f"{step.name}: {error}", len(step.cells) or 1
                break
            except (Unknown, ValueError) as error:
                mistake = error  # raised outside: the stage's tasks would wrap it in a group
                break
            again += sum(finding.doubted for _, finding in found)
            wrong += (_wrong(step, cell, finding) for cell, finding in found if not finding.right)
    if mistake is not None:
        raise CaseError(given.file, f"{case.id}, {case.steps[steps - 1].name}", str(mistake)) from mistake
    return CaseResult(
        file=given.file,
        id=case.id,
        name=case.name,
        steps=steps,
        cells=cells,
        wrong=tuple(wrong),
        failed=failed,
        failed_cells=failed_cells,
        notes=case.notes,
        asked_again=again,
        seconds=time.monotonic() - began,
    )


def _wrong(step: Step, cell: Cell, finding: Finding) -> WrongCell:
    return WrongCell(
        step=step.name,
        cell=str(cell),
        expected="allowed" if cell.allowed else "blocked",
        found=finding.verdict,
        why=finding.why,
    )


async def play_all(
    engines: Sequence[Engine], cases: Sequence[FileCase], told: Callable[[CaseResult], None]
) -> list[CaseResult]:
    """Play *cases*, as many at a time as there are *engines*. Returns the results in the order of the cases, and in
    that order *told* hears of each as soon as it and all before it are done. The first `CaseError` ends it.
    """
    results: dict[int, CaseResult] = {}
    waiting = iter(enumerate(cases))
    untold = iter(range(len(cases)))
    upcoming = next(untold, None)

    async def work(engine: Engine) -> None:
        nonlocal upcoming
        for index, given in waiting:
            results[index] = await play(engine, given)
            while upcoming in results:
                told(results[upcoming])
                upcoming = next(untold, None)

    try:
        async with asyncio.TaskGroup() as tasks:
            for number, engine in enumerate(engines, 1):
                tasks.create_task(work(engine), name=f"play cases {number}")
    except* CaseError as group:
        raise group.exceptions[0] from None
    return [results[index] for index in range(len(cases))]
