"""What becomes of a case when the system, or the case itself, cannot go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from compose.checking.engines.chain import NotArrived
from compose.checking.engines.judging import Unknown
from compose.checking.engines.playing import Finding, play, play_all
from compose.checking.engines.results import FileCase, totals
from compose.checking.suites.cases import Case, CaseError, Cell, Step
from schemas.addresses import TCP

CELL = Cell("x/a", "x/b", TCP, 80, allowed=True)


def a_case(name: str = "c", steps: int = 2) -> FileCase:
    return FileCase("f.yaml", Case(name, name, (), tuple(Step(f"step {n}", (), (CELL, CELL)) for n in range(steps))))


class Answering:
    """An engine that finds every cell as expected, except that a step may raise."""

    def __init__(self, raising: dict[str, Exception] | None = None, turns: dict[str, asyncio.Event] | None = None):
        self._raising = raising or {}
        self._turns = turns or {}

    @asynccontextmanager
    async def stage(self, case: Case) -> AsyncIterator["Answering"]:
        if turn := self._turns.get(case.id):
            await turn.wait()
        yield self

    async def play(self, step: Step) -> list[tuple[Cell, Finding]]:
        if error := self._raising.get(step.name):
            raise error
        return [(cell, Finding(allowed=True, verdict="allowed", why="", right=cell.allowed)) for cell in step.cells]


async def test_a_step_that_does_not_arrive_is_wrong_in_all_its_cells_and_ends_the_case() -> None:
    engine = Answering({"step 1": NotArrived(7, 60, ["node-2 is at revision 5"])})
    result = await play(engine, a_case(steps=4))
    assert result.failed == "step 1: revision 7 did not arrive within 60 s: node-2 is at revision 5"
    assert str(totals([result])) == "cases 1, steps 2, cells 4, wrong 2, unsupported 0"


async def test_a_failed_step_without_cells_is_wrong_all_the_same() -> None:
    given = FileCase("f.yaml", Case("c", "c", (), (Step("step 0", (), ()),)))
    assert (await play(Answering({"step 0": NotArrived(7, 60, [])}), given)).wrong_count == 1


@pytest.mark.parametrize("mistake", [Unknown("x/nobody does not exist"), ValueError("cannot be deleted")])
async def test_a_case_that_says_what_cannot_be_is_unreadable_where_it_says_so(mistake: Exception) -> None:
    with pytest.raises(CaseError) as caught:
        await play_all([Answering({"step 1": mistake})], [a_case()], lambda _: None)
    assert (caught.value.path, caught.value.where, caught.value.why) == ("f.yaml", "c, step 1", str(mistake))


async def test_results_are_told_in_the_order_of_the_cases_whatever_ends_first() -> None:
    told: list[str] = []
    others_done = asyncio.Event()

    class Other(Answering):
        async def play(self, step: Step) -> list[tuple[Cell, Finding]]:
            others_done.set()
            return await super().play(step)

    cases = [a_case("one", 1), a_case("two", 1), a_case("three", 1)]
    engines = [Answering(turns={"one": others_done}), Other()]
    results = await play_all(engines, cases, lambda result: told.append(result.id))
    assert [result.id for result in results] == told == ["one", "two", "three"]
