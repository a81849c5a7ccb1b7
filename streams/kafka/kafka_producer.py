"""Writing to one Kafka topic in order, or saying that the outcome is unknown.

One append is under way at a time; its batches are pipelined: while one is in flight the next is built, and aiokafka
keeps their order over retries by the idempotent producer's sequence numbers. A producer whose append did not end well
is thrown away with everything it still holds: it could otherwise deliver later what was reported as unknown.
"""

import asyncio
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.errors import OutcomeUnknown
from streams.kafka.kafka_border import DENIALS, translated, translating
from streams.log import Entry
from streams.topics import Topic

_log = structlog.get_logger(__name__)

BATCH_BYTES: Final = 1024 * 1024
"""Records are sent in batches of about this size; a larger entry makes a larger batch."""
_BATCH_HEADER: Final = 61
"""Bytes of a record batch's header (KIP-98)."""


class KafkaProducer:
    """Appends to one topic. Connects at the first append: whoever only reads needs no right to write."""

    def __init__(
        self, bootstrap: str, topic: Topic, *, append_seconds: float, request_seconds: float, compression: str | None
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._append_seconds = append_seconds
        self._request_ms = int(request_seconds * 1000)
        self._compression = compression
        self._turn = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._discard()

    async def append(self, entries: Sequence[Entry], sizes: Sequence[int]) -> list[int]:
        """Write *entries*, whose sizes are *sizes*; see `streams.log.Log.append`."""
        async with self._turn:
            producer = await self._started()
            sending = _Sending(producer, self._topic.name)
            try:
                async with asyncio.timeout(self._append_seconds):
                    offsets = await sending.send(entries, list(chunks(entries, sizes, self._topic.max_message_bytes)))
            except (KafkaError, TimeoutError) as error:
                await self._discard()
                if isinstance(error, DENIALS) or not sending.handed_over:
                    raise translated(self._bootstrap, error) from error
                reason = f"no answer within {self._append_seconds} s" if isinstance(error, TimeoutError) else str(error)
                _log.warning("append outcome unknown", topic=self._topic.name, entries=len(entries), reason=reason)
                raise OutcomeUnknown(self._topic.name, len(entries), reason) from error
            except BaseException:
                await self._discard()
                raise
        return offsets

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                enable_idempotence=True,
                acks="all",
                compression_type=self._compression,
                max_batch_size=self._topic.max_message_bytes,
                request_timeout_ms=self._request_ms,
            )
            # It fails a batch that has had no leader for one request timeout (a broker that restarts tidily), although
            # it would deliver it in the end; there is no setting for it. Ours is the only deadline.
            producer._message_accumulator._batch_ttl = self._append_seconds
            self._producer = producer
            try:
                with translating(self._bootstrap):
                    async with asyncio.timeout(self._append_seconds):
                        await producer.start()
            except BaseException:
                await self._discard()
                raise
        return self._producer

    async def _discard(self) -> None:
        """Stop the producer without waiting for what it still holds.

        aiokafka's own ``stop`` first delivers everything, which takes for ever while the broker is away; there is no
        public way to give up. So its sender is cancelled and its connections are closed.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer._closed = True
        sender = producer._sender.sender_task
        # The first cancellation makes the sender wait for its request, the next one cancels that.
        while sender is not None and not sender.done():
            sender.cancel()
            await asyncio.wait([sender], timeout=0.01)
        await producer.client.close()


class _Sending:
    """One append under way."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self.handed_over = False
        """Whether aiokafka has taken something: from then on a failure says nothing about what was written."""

    async def send(self, entries: Sequence[Entry], ranges: Sequence[range]) -> list[int]:
        acknowledgements = []
        for chunk in ranges:
            batch = self._producer.create_batch()
            for index in chunk:
                entry = entries[index]
                batch.append(key=entry.key.encode(), value=entry.value, timestamp=None, headers=list(entry.headers))
            if batch.record_count() != len(chunk):
                raise AssertionError(f"{len(chunk)} entries were measured to fit into a batch, but do not")
            batch.close()
            # Waits while one batch is in flight and another queued: memory is bounded by two batches.
            acknowledgements.append(await self._producer.send_batch(batch, self._topic, partition=0))
            self.handed_over = True
        offsets: list[int] = []
        for chunk, acknowledged in zip(ranges, await asyncio.gather(*acknowledgements), strict=True):
            if acknowledged.offset < 0:
                # The broker has the batch already, from a try whose answer was lost, and forgot where.
                raise KafkaError("the broker has the batch, but does not say where")
            offsets.extend(range(acknowledged.offset, acknowledged.offset + len(chunk)))
        return offsets


def chunks(entries: Sequence[Entry], sizes: Sequence[int], limit: int) -> Iterator[range]:
    """Cut *entries* into batches of about `BATCH_BYTES`, at most *limit* bytes each.

    No cut falls between neighbours with the same key, so that a deletion and its tombstone are stored together or
    not at all; unless they exceed *limit*.
    """
    first, size = 0, _BATCH_HEADER
    for index, more in enumerate(sizes):
        full = size + more > BATCH_BYTES and entries[index].key != entries[index - 1].key
        if index > first and (full or size + more > limit):
            yield range(first, index)
            first, size = index, _BATCH_HEADER
        size += more
    if first < len(entries):
        yield range(first, len(entries))
