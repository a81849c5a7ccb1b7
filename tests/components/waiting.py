"""Waiting for a condition, with a deadline and in words; nothing in these tests sleeps for luck."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    what: str,
    condition: Callable[[], T | Awaitable[T]],
    *,
    within_seconds: float = 15.0,
    poll_seconds: float = 0.02,
    ignoring: tuple[type[Exception], ...] = (),
) -> T:
    """Return the first true value of *condition*; it may be a coroutine function.

    Raises AssertionError naming *what* was waited for, and the last value or ignored error, at the deadline.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        last: object
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value  # type: ignore[return-value]  # narrowed from T | Awaitable[T] above
            last = value
        except ignoring as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_seconds} s for: {what}; last: {last!r}")
        await asyncio.sleep(poll_seconds)
