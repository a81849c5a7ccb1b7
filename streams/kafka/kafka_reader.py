"""Reading one Kafka topic from an offset, whatever happens to the broker meanwhile."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, OffsetOutOfRangeError

from streams.backoff import Backoff
from streams.errors import AccessDenied, LogCorrupt, LogUnavailable, OffsetOutOfRange
from streams.kafka.kafka_border import DENIALS, stop_consumer, translated
from streams.log import Record
from streams.topics import Topic

_log = structlog.get_logger(__name__)

BATCH_RECORDS: Final = 1000
"""One fetch may unpack to tens of thousands; making records of them all would hold up the event loop, and takes a
third longer than making them in batches that fit into the processor's cache."""
_WAIT_MS: Final = 500
"""Milliseconds after which a read that got nothing looks where it stands."""
_PROBE_SECONDS: Final = 5.0
"""After so long without records, ask the broker whether there should be some."""
_CORRUPT_TRIES: Final = 3
"""A batch damaged on its way is intact at the next fetch; one damaged on the disk is not."""


class KafkaReader:
    """One pass over a topic: knows the next offset to deliver, and survives its consumers."""

    def __init__(
        self, bootstrap: str, topic: Topic, *, request_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._partition = TopicPartition(topic.name, 0)
        self._request_seconds = request_seconds
        self._clock = clock
        self._position = 0
        self._quiet_since = 0.0
        self._reachable = True
        self._damaged = False

    async def read(self, start: int, *, follow: bool, end: int | None) -> AsyncGenerator[list[Record], None]:
        """See `streams.log.Log.read`."""
        self._position = start
        stop = end
        settled = False
        backoff = Backoff()
        while stop is None or self._position < stop:
            try:
                async with self._consumer() as consumer:
                    last = await self._seek(consumer)
                    if not settled and not follow:
                        stop = last if end is None else min(last, end)
                    settled = True
                    backoff.reset()
                    while stop is None or self._position < stop:
                        records = await self._fetch(consumer, stop)
                        if records:
                            yield records
                        elif await self._is_stuck(consumer):
                            break
            except DENIALS as error:
                raise AccessDenied(self._bootstrap, str(error)) from error
            except (KafkaError, OSError, TimeoutError, NotImplementedError) as error:
                translation = translated(self._bootstrap, error)
                if not isinstance(translation, LogUnavailable):
                    raise translation from error
                self._report(translation.reason)
                await backoff.wait()

    @asynccontextmanager
    async def _consumer(self) -> AsyncGenerator[AIOKafkaConsumer, None]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",  # anything else jumps silently
            request_timeout_ms=int(self._request_seconds * 1000),
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        try:
            await consumer.start()
            consumer.assign([self._partition])
            yield consumer
        finally:
            await stop_consumer(consumer)

    async def _seek(self, consumer: AIOKafkaConsumer) -> int:
        """Point *consumer* at the position, or at the earliest record left; return the end of the log."""
        first = (await consumer.beginning_offsets([self._partition]))[self._partition]
        last = (await consumer.end_offsets([self._partition]))[self._partition]
        if self._position > last:
            raise OffsetOutOfRange(self._topic.name, self._position, first, last)
        self._position = max(self._position, first)
        consumer.seek(self._partition, self._position)
        self._heard()
        return int(last)

    async def _fetch(self, consumer: AIOKafkaConsumer, stop: int | None) -> list[Record]:
        """The next records below *stop*; empty when there are none for a while."""
        tries = 0
        while True:
            try:
                # What stands in front of damage is delivered record by record: aiokafka drops it with the fetch.
                limit = 1 if self._damaged else BATCH_RECORDS
                fetched = await consumer.getmany(self._partition, timeout_ms=_WAIT_MS, max_records=limit)
                break
            except OffsetOutOfRangeError:
                await self._seek(consumer)
            except CorruptRecordException as error:
                self._damaged = True
                tries += 1
                if tries == _CORRUPT_TRIES:
                    raise LogCorrupt(self._topic.name, self._position, str(error)) from error
        records = [_record(record) for record in fetched.get(self._partition, ())]
        # Behind the last record there may be offsets without one: control records, and what compaction removed.
        self._position = await consumer.position(self._partition)
        if records:
            self._heard()
        else:
            self._damaged = False
        if stop is not None and records and records[-1].offset >= stop:
            return [record for record in records if record.offset < stop]
        return records

    async def _is_stuck(self, consumer: AIOKafkaConsumer) -> bool:
        """Whether there are records that *consumer* does not deliver. Raises when the broker does not answer."""
        if self._clock() - self._quiet_since < _PROBE_SECONDS:
            return False
        async with asyncio.timeout(self._request_seconds):
            last = (await consumer.end_offsets([self._partition]))[self._partition]
        if last > await consumer.position(self._partition):
            _log.warning("reading again: records are there but do not come", topic=self._topic.name, end=last)
            return True
        self._heard()
        return False

    def _heard(self) -> None:
        self._quiet_since = self._clock()
        if not self._reachable:
            self._reachable = True
            _log.info("log is reachable again", topic=self._topic.name, where=self._bootstrap)

    def _report(self, reason: str) -> None:
        """One line when the broker goes, not one per try."""
        if self._reachable:
            self._reachable = False
            _log.warning("log is not reachable, retrying", topic=self._topic.name, where=self._bootstrap, reason=reason)


def _record(record: "ConsumerRecord[bytes, bytes]") -> Record:
    key = record.key.decode(errors="replace") if record.key is not None else ""
    return Record(record.offset, record.timestamp, key, record.value, tuple(record.headers))
