"""Status: each component's newest word, kept by a stream, so that whoever asks later still hears it.

StatusWriter ─▶ status.<cluster>.<component>.<name> ─▶ STATUS-<cluster> ─▶ read_status, watch_status
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
import structlog

from schemas import names
from schemas.status import Component, Connectivity, Status, component_of, connectivity, decode_status, encode_status
from schemas.unreadable import UNREADABLE
from streams.core.parts import Stored
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import follow_stream, read_newest

KEPT_SECONDS: Final = 7 * 24 * 3600
"""A component that is silent for so long is forgotten."""

_log = structlog.get_logger("streams.channels.status")


def status_stream_options(cluster: str, replicas: int) -> dict[str, Any]:
    """In JetStream's JSON terms."""
    return {
        "name": names.status_stream(cluster),
        "description": "eastwest: what each component says of itself",
        "subjects": [f"status.{cluster}.>"],
        "max_msgs_per_subject": 1,
        "max_age": KEPT_SECONDS * 1_000_000_000,
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
    }


async def create_status_stream(bus: NatsBus, cluster: str, *, replicas: int = 1) -> None:
    """Create or update it; any component may. Raises as `NatsBus.apply_stream` does."""
    await bus.apply_stream(status_stream_options(cluster, replicas))


async def publish_status(bus: NatsBus, cluster: str, status: Status) -> None:
    """Say *status*, without waiting for an acknowledgement: the next heartbeat makes good for a lost one.

    Raises `BusUnavailable` only when the connection is closed, or has been away for very long.
    """
    component, name = component_of(status)
    await bus.publish(names.status_subject(cluster, component, name), encode_status(status))


class Heard(msgspec.Struct, frozen=True):
    """A component's newest status, and when the stream stored it."""

    status: Status
    stored_at: float
    """Seconds since the Unix epoch, by the server's clock: senders' clocks may be wrong."""

    def connectivity(self, now: float) -> Connectivity:
        """*now*: seconds since the Unix epoch."""
        return connectivity(now - self.stored_at)


Place = tuple[Component, str]


class StatusChange(msgspec.Struct, frozen=True):
    """What a watch hands over."""

    heard: dict[Place, Heard]
    complete: bool
    """These are all there are."""


async def read_status(bus: NatsBus, cluster: str) -> dict[Place, Heard]:
    """All components, now. Raises `ReadFailed`, also where there is no status stream yet."""
    return _heard(await read_newest(bus, names.status_stream(cluster), f"status.{cluster}.>"))


async def watch_status(
    bus: NatsBus, cluster: str, component: Component | None = None
) -> AsyncGenerator[StatusChange, None]:
    """All components, or all of one kind, at once, then each word as it comes; complete again after a loss.

    See `follow_stream`.
    """
    subject = f"status.{cluster}.>" if component is None else names.status_subject(cluster, component, "*")
    following = follow_stream(bus, names.status_stream(cluster), subject)
    async with contextlib.aclosing(following) as batches:
        async for batch in batches:
            yield StatusChange(_heard(batch.messages), batch.complete)


def _heard(stored: list[Stored]) -> dict[Place, Heard]:
    found: dict[Place, Heard] = {}
    for message in stored:
        try:
            status: Status = decode_status(message.payload)
        except UNREADABLE as error:  # a component of another version; its neighbours are still heard
            _log.warning("unreadable status", subject=message.subject, error=str(error))
            continue
        found[component_of(status)] = Heard(status, message.stored_at)
    return found
