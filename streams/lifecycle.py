"""The life of a service: a signal ends intake, the rest drains, and after a limit it is cancelled."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

Service = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set, then drains and returns."""


async def serve(service: Service, *, name: str, drain_seconds: float) -> bool:
    """Run *service* until SIGTERM or SIGINT, in two stages; return whether it ended by itself or drained in time.

    The first signal sets the service's stop event. What is not done *drain_seconds* later is cancelled, and so it is
    at a second signal: whoever presses Ctrl-C twice means it. What the service raises is raised.
    """
    stop, now = asyncio.Event(), asyncio.Event()
    async with _signals(stop, now), asyncio.TaskGroup() as tasks:
        work = tasks.create_task(service(stop), name=name)
        await first_of(work, stop)
        if await finished(work, within_seconds=drain_seconds, unless=now):
            return True
        work.cancel()
    return False


@asynccontextmanager
async def _signals(stop: asyncio.Event, now: asyncio.Event) -> AsyncGenerator[None]:
    def signalled() -> None:
        (now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, signalled)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def first_of(task: asyncio.Task[Any], event: asyncio.Event) -> bool:
    """Wait until *task* is done or *event* is set; return whether the event is. The task is not cancelled."""
    if event.is_set() or task.done():
        return event.is_set()
    waiting = asyncio.create_task(event.wait(), name=f"{task.get_name()}, or an event")
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return event.is_set()


async def finished(task: asyncio.Task[Any], *, within_seconds: float, unless: asyncio.Event | None = None) -> bool:
    """Whether *task* is done within the limit, and before *unless* is set. It is neither cancelled nor awaited."""
    try:
        async with asyncio.timeout(within_seconds):
            await first_of(task, unless or asyncio.Event())
    except TimeoutError:
        pass
    return task.done()


async def happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    """Whether *event* is set within the limit: a sleep that a stop ends early."""
    try:
        async with asyncio.timeout(within_seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


async def until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event, *, name: str) -> None:
    """Run *work* until it ends or *stop* is set, which cancels it: for work that has nothing to drain."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work, name=name)
        await first_of(task, stop)
        task.cancel()


def leaves(error: BaseException) -> list[BaseException]:
    """What went wrong, without the groups that task groups put around it."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]
