"""A component saying, again and again, how it is."""

import asyncio
import importlib.metadata
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import structlog

from schemas.status import Status
from streams.backoff import Backoff
from streams.channels.status import create_status_stream, publish_status
from streams.errors import StreamError
from streams.nats.nats_bus import NatsBus

VERSION: Final = importlib.metadata.version("eastwest")
REST_SECONDS: Final = 0.1
"""At least this long between two words: a component may have something new a thousand times a second."""

_log = structlog.get_logger("streams.channels.reporting")


def now() -> str:
    """This moment as RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def report_status(
    bus: NatsBus,
    cluster: str,
    describe: Callable[[], Iterable[Status]],
    changed: asyncio.Event,
    *,
    replicas: int = 1,
    seconds: float,
) -> None:
    """Say what *describe* returns every so many *seconds*, and soon after *changed* is set, for ever.

    A stream that cannot be reached, or was lost, costs heartbeats and nothing else.
    """
    backoff, made_for = Backoff(limit_seconds=seconds), -1
    while True:
        changed.clear()
        try:
            if made_for != bus.generation:  # the server may have come back without its store
                generation = bus.generation
                await create_status_stream(bus, cluster, replicas=replicas)
                made_for = generation
            for status in describe():
                await publish_status(bus, cluster, status)
        except StreamError as error:
            _log.debug("status not sent", cluster=cluster, reason=str(error))
            await backoff.wait()
            continue
        backoff.reset()
        await asyncio.sleep(REST_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            pass
