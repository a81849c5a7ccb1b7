"""Kubelinks that run for the length of a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from producers.kubelink import Kubelink, Phase
from producers.source import Source
from streams.log import Log
from tests.components.waiting import until


@asynccontextmanager
async def kubelink(log: Log, source: Source, **options: Any) -> AsyncIterator[Kubelink]:
    """A Kubelink that runs inside the block and is stopped after it."""
    link = Kubelink(log, source, cluster="test", look_seconds=0.05, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(link.run(stop), name="kubelink under test")
    try:
        yield link
    finally:
        stop.set()
        await task


async def complete(link: Kubelink, *, epoch_after: int = -1) -> None:
    await until(
        "every kind to be listed",
        lambda: link.state.phase is Phase.COMPLETE and link.state.epoch > epoch_after,
        within_seconds=30,
    )
