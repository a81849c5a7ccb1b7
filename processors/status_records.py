"""The status topic: what enforcers confirmed, kept for audit beyond the newest word that the bus has.

STATUS-<cluster> (newest word per component) ──▶ Confirmed ──▶ status topic (every change, for 30 days)
"""

import asyncio
from contextlib import aclosing
from typing import Final

import structlog

from processors.core.auditing import Confirmed
from schemas.status import encode_enforcement
from streams.backoff import Backoff
from streams.channels.status import watch_status
from streams.errors import StreamError
from streams.log import Entry, Log
from streams.nats.nats_bus import NatsBus

COALESCE_SECONDS: Final = 1.0
"""Enforcers speak up to ten times a second; an auditor asks which revision stood when, not for each on the way."""

_log = structlog.get_logger("processors.status_records")


class StatusRecords:
    """Copies what changes into *topic*; only the owner runs it, and remembers what it wrote before."""

    def __init__(self, bus: NatsBus, cluster: str, topic: Log) -> None:
        self._bus = bus
        self._cluster = cluster
        self._topic = topic
        self._confirmed = Confirmed()
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. What cannot be reached is waited for; meanwhile only the newest word of each is kept."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name=f"{self._cluster}: hearing enforcers")
            tasks.create_task(self._write_down(), name=f"{self._cluster}: status topic")

    async def _listen(self) -> None:
        async with aclosing(watch_status(self._bus, self._cluster)) as changes:
            async for change in changes:
                self._confirmed.hear(heard.status for heard in change.heard.values())
                self._heard.set()

    async def _write_down(self) -> None:
        backoff = Backoff()
        while True:
            await self._heard.wait()
            self._heard.clear()
            news = self._confirmed.news
            try:
                await self._topic.append([Entry(each.node, encode_enforcement(each)) for each in news])
            except StreamError as error:  # policy goes on without the record; written twice does no harm
                _log.warning("what enforcers confirm cannot be written down now", reason=str(error))
                self._heard.set()
                await backoff.wait()
                continue
            backoff.reset()
            self._confirmed.wrote(news)
            await asyncio.sleep(COALESCE_SECONDS)
