"""The inventory: a key-value bucket that any NATS client reads and only its owner writes.

reports ─▶ put ─▶ what changed, at most every 250 ms ─▶ own.<cluster>.<token>.inventory.<key> ─▶ $KV.<bucket>.<key>
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NoReturn

import msgspec

from schemas import names
from streams.errors import OutcomeUnknown, ReadFailed
from streams.lifecycle import happens
from streams.nats.nats_bus import NatsBus
from streams.nats.owned_stream import OwnedStream, Ownership, owned_options
from streams.nats.stream_reading import Batch, follow_stream, read_stream

DELETED: Final = {"KV-Operation": "DEL", "Nats-TTL": "1h"}
"""What key-value clients understand as deleted; the marker itself goes after an hour."""
FENCE: Final = "fence"
"""A key that is only ever deleted: no client sees it, and nothing of an earlier owner is stored behind it."""
_DIGEST_BYTES: Final = 16


class InventoryWriter:
    """Owns the bucket of *cluster* from `take_over` until `run` raises; then take over again, or give way.

    *name* says to people which processor it is.
    """

    def __init__(
        self,
        bus: NatsBus,
        cluster: str,
        name: str,
        *,
        replicas: int = 1,
        coalesce_seconds: float = 0.25,
    ) -> None:
        self._bus = bus
        self._cluster = cluster
        self._replicas = replicas
        self._coalesce = coalesce_seconds
        self._owned = OwnedStream(bus, Ownership(stream_name(cluster), self._prefix, self._options), name)
        self._published: dict[str, bytes] = {}
        """Digest of each key's value, as last published."""
        self._waiting: dict[str, bytes | None] = {}
        self._writing = False
        self._settled = asyncio.Event()

    def __repr__(self) -> str:
        return f"<inventory writer, {len(self._published)} keys, {len(self._waiting)} waiting, {self._owned}>"

    def _prefix(self, token: str) -> str:
        return f"own.{self._cluster}.{token}.inventory"

    def _options(self, token: str) -> dict[str, Any]:
        return owned_options(
            stream_name(self._cluster),
            description="eastwest: the five reports",
            inlet=f"{self._prefix(token)}.>",
            stored=f"{key_prefix(self._cluster)}>",
            replicas=self._replicas,
            more={"max_msgs_per_subject": 1},
        )

    async def take_over(self) -> frozenset[str]:
        """Become the owner, and return the keys that are published; what has not changed is not written again.

        Raises as `OwnedStream.take` does, and `ReadFailed`: try again.
        """
        self._waiting = {}
        self._settled = asyncio.Event()
        try:
            fence = await self._owned.take(FENCE, lambda _: b"", DELETED)
            published = await read_inventory(self._bus, self._cluster, self._replicas, fence)
        except BaseException:
            self._owned.fail(OutcomeUnknown(self._owned.stream, 0, "the take-over did not succeed"))
            raise
        self._published = {key: _digest(value) for key, value in published.items()}
        return frozenset(self._published)

    def put(self, key: str, value: bytes | None) -> None:
        """Have *value* (JSON) published as *key*, or *key* deleted, if that is not what is published already."""
        self._waiting[key] = value
        self._settled.clear()

    def replace(self, values: Mapping[str, bytes]) -> None:
        """Have exactly *values* published: every other key is deleted."""
        for key in self._published.keys() | self._waiting.keys():
            if key not in values:
                self.put(key, None)
        for key, value in values.items():
            self.put(key, value)

    async def settled(self) -> None:
        """Wait until all that was put is acknowledged; `run` must be running. Raises as `run` does."""
        await self._settled.wait()
        self._owned.check()

    async def run(self) -> NoReturn:
        """Publish what was put, coalesced, until ownership is lost. Raises as `PolicyWriter.run` does."""
        forget = self._bus.on_reconnect(self._owned.wake.set)
        try:
            while True:
                await happens(self._owned.wake, within_seconds=self._coalesce)
                self._owned.wake.clear()
                await self._owned.look_for_trouble()
                await self._publish_waiting()
        finally:
            forget()
            await self._owned.leave()
            self._settled.set()

    async def _publish_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._writing = True
        for key, value in waiting.items():
            if value is None:
                if self._published.pop(key, None) is not None:
                    await self._owned.publish(key, b"", DELETED, self._on_stored)
            elif self._published.get(key) != (digest := _digest(value)):
                self._published[key] = digest
                await self._owned.publish(key, value, None, self._on_stored)
        self._writing = False
        self._on_stored(0)

    def _on_stored(self, _: int) -> None:
        if not self._writing and not self._waiting and not self._owned.unacknowledged:
            self._settled.set()


async def read_inventory(bus: NatsBus, cluster: str, replicas: int = 1, include: int = 0) -> dict[str, bytes]:
    """Every key and its value, now. Raises `ReadFailed`, also where there is no bucket."""
    below = len(key_prefix(cluster))
    stored = await read_stream(
        bus, stream_name(cluster), f"{key_prefix(cluster)}>", last_only=True, include=include, proven=replicas > 1
    )
    if include and not any(message.sequence >= include for message in stored):
        raise ReadFailed(stream_name(cluster), key_prefix(cluster), "it does not include the fence")
    return {message.subject[below:]: message.payload for message in stored if message.payload}


class InventoryChange(msgspec.Struct, frozen=True):
    """What a watch hands over."""

    values: dict[str, bytes | None]
    """By key; ``None``: deleted."""
    complete: bool
    """These are all there are."""


async def watch_inventory(bus: NatsBus, cluster: str, keys: str = ">") -> AsyncGenerator[InventoryChange, None]:
    """All values under the filter *keys*, then each change; complete again after a loss. See `follow_stream`."""
    below = len(key_prefix(cluster))
    async with contextlib.aclosing(follow_stream(bus, stream_name(cluster), key_prefix(cluster) + keys)) as batches:
        async for batch in batches:
            yield InventoryChange(_values(batch, below), batch.complete)


def _values(batch: Batch, below: int) -> dict[str, bytes | None]:
    values: dict[str, bytes | None] = {}
    for message in batch.messages:
        if message.payload:
            values[message.subject[below:]] = message.payload
        elif not batch.complete:
            values[message.subject[below:]] = None
    return values


def stream_name(cluster: str) -> str:
    """The stream behind the bucket, as every key-value client knows it."""
    return f"KV_{names.inventory_bucket(cluster)}"


def key_prefix(cluster: str) -> str:
    return f"$KV.{names.inventory_bucket(cluster)}."


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()
