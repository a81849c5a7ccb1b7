"""What every row of the bench has in common: its figures, and how time is taken."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the table. All measured in one run, so that only their relation says something."""

    row: str
    unit: str
    ours: float | None
    limit: float | None
    """The least that anyone could take: the same input without the work, or the work without its surroundings."""
    alternative: float | None
    alternative_name: str
    """What a user would otherwise take."""
    ratio: float | None
    """Which one, the row's docstring says: how many times better than the alternative, or how many times the limit."""
    goal: str
    holds: bool | None
    """Whether the goal is reached; ``None``: the row did not run."""
    others: dict[str, float] = {}
    """Further alternatives, by name."""
    note: str = ""
    """Why it did not run."""


class Unavailable(Exception):
    """This machine cannot run a row; *reason* says what it lacks."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Row = Callable[[float], list[Figure]]
"""Measures its figures. Its argument scales its workload: 1.0 is the size that the goals are about."""


def absent(row: str, reason: str) -> Figure:
    """The figure of a *row* that did not run."""
    return Figure(
        row=row, unit="", ours=None, limit=None, alternative=None, alternative_name="", ratio=None, goal="",
        holds=None, note=reason,
    )  # fmt: skip


def best_of(action: Callable[[], object], *, repeats: int = 5, times: int = 1000) -> float:
    """Seconds of one call, the best of several runs: noise only ever adds."""
    best = float("inf")
    for _ in range(repeats):
        gc.collect()
        started = time.perf_counter()
        for _ in range(times):
            action()
        best = min(best, (time.perf_counter() - started) / times)
    return best


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """Its result, and the seconds that it took, once."""
    gc.collect()
    started = time.perf_counter()
    result = action()
    return result, time.perf_counter() - started


def each_timed(actions: Sequence[Callable[[], object]]) -> list[float]:
    """Seconds of each, one after the other."""
    gc.collect()
    seconds = []
    for action in actions:
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return seconds


@contextmanager
def settled_memory() -> Iterator[None]:
    """What is remembered now is not looked through again, as in a processor that has caught up."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """The garbage collector does not run."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def quantile(values: Sequence[float], share: float) -> float:
    """The value that *share* of *values* do not exceed. Raises `ValueError` where there are none."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def at_least(count: float, least: int = 1) -> int:
    """A scaled *count* that is still something."""
    return max(least, round(count))
