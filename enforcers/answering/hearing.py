"""Hearing what the other nodes say, while somebody asks for it.

STATUS-<cluster>, C-VENs only ──▶ Hearing ──▶ Neighbours ──▶ who lacks a revision

Who listened all the time would make every node hear every other's every word, for the few seconds in which Pods start.
"""

import asyncio
from contextlib import aclosing
from typing import Final

from enforcers.core.neighbours import Neighbours
from schemas.status import Component, CvenStatus
from streams.channels.status import watch_status
from streams.nats.nats_bus import NatsBus

LINGER_SECONDS: Final = 15.0
"""To go on after a question: Pods seldom start alone."""


class Hearing:
    """Listens to the enforcers of *cluster* but that of *node*."""

    def __init__(self, cluster: str, node: str) -> None:
        self._cluster = cluster
        self._neighbours = Neighbours(node)
        self._bus: NatsBus | None = None
        self._asked = asyncio.Event()

    async def run(self, connected: "asyncio.Future[NatsBus]") -> None:
        """Follow the status stream whenever somebody asks, until cancelled."""
        self._bus = await asyncio.shield(connected)  # whoever is cancelled takes it from nobody
        while True:
            await self._asked.wait()
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._follow(self._bus), name="hear other nodes")
                while self._asked.is_set():
                    self._asked.clear()
                    await asyncio.sleep(LINGER_SECONDS)
                following.cancel()
            self._neighbours.forget()

    async def _follow(self, bus: NatsBus) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(watch_status(bus, self._cluster, Component.CVEN)) as changes:
            async for change in changes:
                said = [(each.status, each.stored_at) for each in change.heard.values()]
                cvens = [(status, stored_at) for status, stored_at in said if isinstance(status, CvenStatus)]
                self._neighbours.take(cvens, loop.time(), complete=change.complete)

    def lacking(self, revision: int) -> tuple[str, ...]:
        """See `Neighbours.lacking`. Asking makes it listen."""
        self._asked.set()
        if self._bus is None or not self._bus.connected:
            return ("NATS is away: what other nodes have realized is not known",)
        return self._neighbours.lacking(revision, asyncio.get_running_loop().time())
