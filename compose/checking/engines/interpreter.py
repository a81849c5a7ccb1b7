"""The engine *interpreter*: what the programs and sets that reached the nodes say of each connection."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from compose.checking.engines.chain import Chain, Feed, Listening
from compose.checking.engines.explaining import explain
from compose.checking.engines.judging import Judge
from compose.checking.engines.playing import Finding
from compose.checking.suites.cases import Case, Cell, Step


class Interpreter:
    """Plays cases through *chain*."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    @asynccontextmanager
    async def stage(self, case: Case) -> AsyncGenerator["InterpreterStage"]:
        async with self._chain.feed(case, Listening()) as feed:
            yield InterpreterStage(feed)


class InterpreterStage:
    """One case, under way."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def play(self, step: Step) -> list[tuple[Cell, Finding]]:
        await self._feed.write(step.actions)
        await self._feed.arrived()
        find = finder(self._feed)
        return [(cell, find(cell)) for cell in step.cells]


def finder(feed: Feed) -> Callable[[Cell], Finding]:
    """What can be said of connections now. Raises `Diverged`; the function returned raises `Unknown`."""
    judge = Judge(feed.history.objects, feed.policy())

    def find(cell: Cell) -> Finding:
        judgement = judge.judge(cell)
        right = judgement.allowed == cell.allowed
        why = "" if right else explain(judgement)
        return Finding(judgement.allowed, judgement.verdict.value, why, right)

    return find
