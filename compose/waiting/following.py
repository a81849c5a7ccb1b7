"""Following what is published and what the enforcers say, until a revision is realized or the time is up.

POLICY-<cluster>, its mark ──┐
                             ├─▶ Finding ─▶ again, until it is realized
STATUS-<cluster> ────────────┘
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from msgspec.structs import replace

from compose.reading.programs import read_policy
from compose.waiting.changes import Changed
from compose.waiting.judging import Finding, find
from compose.waiting.spans import Span, span_of
from schemas import names
from schemas.policy import decode_mark
from streams.channels.status import Heard, Place, watch_status
from streams.errors import BusUnavailable, ReadFailed
from streams.nats.nats_bus import NatsBus

LOOK_SECONDS: Final = 0.2
"""How often the mark is read until it is there, and ages are looked at."""
READ_SECONDS: Final = 5.0
"""Reading the status stream for the first time takes milliseconds, and where NATS is away, for ever."""
EVERYWHERE: Final = Span(reason="every node")


class Waiting:
    """Waits for *revision* of *cluster*: everywhere, or where it matters for what *changed*.

    Tells *progress* how far it is, whenever it looks.
    """

    def __init__(
        self,
        bus: NatsBus,
        cluster: str,
        revision: int,
        changed: Changed | None,
        progress: Callable[[Finding], None],
    ) -> None:
        self._bus = bus
        self._cluster = cluster
        self._revision = revision
        self._changed = changed
        self._progress = progress
        self._span = EVERYWHERE
        self._span_known = changed is None
        self._published = -1
        self._heard: dict[Place, Heard] = {}
        self._server_ahead = 0.0
        self._complete = False
        self._news = asyncio.Event()

    async def realized(self, seconds: float) -> Finding:
        """The finding once the revision is realized, or what it is after so many *seconds*: then at least all was read
        once, if it could be."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + seconds
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(), name="listen")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(limit + READ_SECONDS):
                    while not (await self._look()).realized and not (self._complete and loop.time() >= limit):
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(LOOK_SECONDS):
                                await self._news.wait()
            listening.cancel()
        return self._find()

    async def _look(self) -> Finding:
        self._news.clear()
        with contextlib.suppress(ReadFailed, BusUnavailable):  # away: what is known stands, and is looked at again
            await self._read_mark()
            await self._read_span()
        finding = self._find()
        if finding.published < self._revision or (self._span_known and self._complete):
            self._progress(finding)
        return finding

    async def _read_mark(self) -> None:
        if self._published >= self._revision:
            return
        message = await self._bus.last_message(names.policy_stream(self._cluster), names.mark_subject(self._cluster))
        if message is not None:
            self._published = decode_mark(message.data).revision

    async def _read_span(self) -> None:
        """Once the change is published: before, nobody can have been told of it."""
        if not self._span_known and self._changed is not None and self._published >= self._revision:
            self._span = span_of(self._changed, await read_policy(self._bus, self._cluster))
            self._span_known = True

    async def _listen(self) -> None:
        async with aclosing(watch_status(self._bus, self._cluster)) as changes:
            async for change in changes:
                self._heard |= change.heard
                self._complete = self._complete or change.complete
                if change.heard:
                    # Ages are by the server's clock. While anyone speaks, what was stored last was stored just now.
                    self._server_ahead = max(each.stored_at for each in change.heard.values()) - time.monotonic()
                self._news.set()

    def _find(self) -> Finding:
        found = find(self._span, self._revision, self._published, self._heard, time.monotonic() + self._server_ahead)
        known = self._span_known and self._complete
        return found if known else replace(found, realized=False)
