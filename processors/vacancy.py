"""Whether anyone owns a cluster's policy stream: what a standby watches."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import structlog

from schemas import names
from schemas.policy import Fence, decode_fence
from schemas.unreadable import UNREADABLE
from streams.errors import BusUnavailable, ReadFailed, Refused
from streams.nats.nats_bus import STREAM_NOT_FOUND, NatsBus

POLL_SECONDS: Final = 0.5
JITTER: Final = 0.2
"""Part of the limit: standbys do not all come at once."""

_log = structlog.get_logger("processors.vacancy")


class _Signs(msgspec.Struct, frozen=True):
    """What an owner leaves in the stream: it repeats the mark while it lives."""

    mark: int
    """Stream sequence of the newest; 0: none."""
    fence: int
    age_seconds: float
    """By the clocks of this machine and of the server: only for the first look."""
    holder: Fence | None


class Vacancy:
    """Watches the marks of one cluster on behalf of the processor *name*.

    What ages is measured here from when a mark was first seen, so clocks need not agree. Taking over too early harms
    nothing but the peace: only one can own the stream.
    """

    def __init__(
        self,
        bus: NatsBus,
        cluster: str,
        name: str,
        *,
        limit_seconds: float,
        uniform: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._stream = names.policy_stream(cluster)
        self._cluster = cluster
        self._name = name
        self._limit = limit_seconds
        self._uniform = uniform
        self._clock = clock
        self._signs: _Signs | None = None
        self._seen = 0.0
        self.token = ""
        """The token of this processor's newest ownership."""

    async def wait(self) -> None:
        """Return when the stream may be taken over.

        At once where there is no stream, where the newest ownership is this processor's own, and at the first look
        where it is of its predecessor of the same name; otherwise when no sign of its owner came for the limit.
        While NATS cannot say, nobody takes over.
        """
        limit = self._limit * self._uniform(1, 1 + JITTER)
        while True:
            try:
                signs = await self._look()
            except (BusUnavailable, ReadFailed, Refused) as error:
                _log.debug("cannot see who owns the stream", cluster=self._cluster, reason=str(error))
            else:
                if signs is None or (signs.holder is not None and signs.holder.owner == self.token):
                    return
                first, now = self._signs is None, asyncio.get_running_loop().time()
                if first and signs.holder is not None and signs.holder.name == self._name:
                    self._signs = signs
                    return
                # *first* holds whenever there are no signs yet, which a checker cannot know.
                if first or (signs.mark, signs.fence) != (self._signs.mark, self._signs.fence):  # type: ignore[union-attr]
                    self._seen = now - (signs.age_seconds if first else 0)
                self._signs = signs
                if now - self._seen >= limit:
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self) -> _Signs | None:
        """``None``: there is no stream."""
        try:
            await self._bus.call(f"STREAM.INFO.{self._stream}")
        except Refused as refusal:
            if refusal.error_code == STREAM_NOT_FOUND:
                return None
            raise
        fence = await self._bus.last_message(self._stream, names.fence_subject(self._cluster))
        mark = await self._bus.last_message(self._stream, names.mark_subject(self._cluster))
        headers = [message.headers or {} for message in (mark, fence) if message is not None]
        ages = [self._clock() - _seconds(found["Nats-Time-Stamp"]) for found in headers if "Nats-Time-Stamp" in found]
        return _Signs(
            mark=int((mark.headers or {})["Nats-Sequence"]) if mark else 0,
            fence=int((fence.headers or {})["Nats-Sequence"]) if fence else 0,
            age_seconds=max(0.0, min(ages, default=self._limit * 2)),
            holder=_holder(fence.data) if fence else None,
        )


def _holder(payload: bytes) -> Fence | None:
    try:
        return decode_fence(payload)
    except UNREADABLE:  # whoever wrote this does not repeat marks either: it ages
        return None


def _seconds(stamp: str) -> float:
    """RFC 3339 with nanoseconds as seconds since the Unix epoch."""
    return datetime.fromisoformat(f"{stamp[:19]}+00:00").timestamp()
