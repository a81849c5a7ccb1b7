"""The log on Apache Kafka: `streams.log.Log` over one partition of one topic.

append ──▶ KafkaProducer ──▶ topic ──▶ KafkaReader ──▶ read (each with a consumer of its own)
                               ▲
                 ensure_topic ─┘  created with our settings, verified; who only reads needs no more than `require_topic`
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal, Self

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.backoff import Backoff
from streams.errors import LogUnavailable
from streams.kafka.kafka_border import check_version, stop_consumer, translating
from streams.kafka.kafka_producer import KafkaProducer
from streams.kafka.kafka_reader import KafkaReader
from streams.kafka.kafka_topics import ensure_topic, require_topic
from streams.log import Entry, Record, entry_sizes
from streams.topics import Topic

_log = structlog.get_logger(__name__)


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach Kafka, and how patient to be."""

    bootstrap: str
    """``host:port``, several separated by commas."""
    replication: int = 1
    """Replicas of a topic that is created here."""
    compression: Literal["lz4", "zstd"] | None = "lz4"
    """How batches are compressed. lz4 costs a writer a third more work, and saves readers a quarter of theirs."""
    connect_seconds: float = 60.0
    """How long to wait for a broker at the start."""
    request_seconds: float = 10.0
    """How long a broker may take to answer one request before it is asked again."""
    append_seconds: float = 30.0
    """How long an append may take, over all tries, before its outcome counts as unknown."""


class KafkaLogs:
    """The logs of one Kafka cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._inquiries: AIOKafkaConsumer
        self._open = AsyncExitStack()

    def __repr__(self) -> str:
        return f"KafkaLogs({self._settings.bootstrap!r})"

    async def __aenter__(self) -> Self:
        """Connect; raises `LogUnavailable` if no broker answers within ``connect_seconds``, `ServerTooOld`."""
        self._inquiries = await self._connected()
        self._open.push_async_callback(stop_consumer, self._inquiries)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def open(self, topic: Topic) -> "KafkaLog":
        """See `streams.log.Logs.open`. Also raises `LogRefused`, `AccessDenied`, `ServerTooOld`."""
        settings = self._settings
        await ensure_topic(settings.bootstrap, topic, replication=settings.replication)
        producer = KafkaProducer(
            settings.bootstrap,
            topic,
            append_seconds=settings.append_seconds,
            request_seconds=settings.request_seconds,
            compression=settings.compression,
        )
        await self._open.enter_async_context(producer)
        return KafkaLog(settings, topic, self._inquiries, producer)

    async def find(self, topic: Topic) -> "ReadableKafkaLog":
        """See `streams.log.Logs.find`. Also raises `AccessDenied`."""
        await require_topic(self._settings.bootstrap, topic)
        return ReadableKafkaLog(self._settings, topic, self._inquiries)

    async def _connected(self) -> AIOKafkaConsumer:
        settings = self._settings
        backoff = Backoff()
        deadline = asyncio.get_running_loop().time() + settings.connect_seconds
        while True:
            try:
                await check_version(settings.bootstrap, request_seconds=settings.request_seconds)
                return await self._started()
            except LogUnavailable as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                if backoff.attempts == 0:
                    _log.warning("waiting for Kafka", where=settings.bootstrap, reason=error.reason)
                await backoff.wait()

    async def _started(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.bootstrap,
            enable_auto_commit=False,
            request_timeout_ms=int(self._settings.request_seconds * 1000),
        )
        try:
            with translating(self._settings.bootstrap):
                await consumer.start()
        except BaseException:
            await stop_consumer(consumer)
            raise
        return consumer


class ReadableKafkaLog:
    """One topic, without a producer."""

    def __init__(self, settings: KafkaSettings, topic: Topic, inquiries: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._topic = topic
        self._inquiries = inquiries
        self._partition = TopicPartition(topic.name, 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._topic.name!r}, {self._settings.bootstrap!r})"

    @property
    def topic(self) -> Topic:
        return self._topic

    def read(self, start: int, *, follow: bool = False, end: int | None = None) -> AsyncGenerator[list[Record], None]:
        """See `streams.log.Log.read`."""
        reader = KafkaReader(self._settings.bootstrap, self._topic, request_seconds=self._settings.request_seconds)
        return reader.read(start, follow=follow, end=end)

    async def start(self) -> int:
        with translating(self._settings.bootstrap):
            return int((await self._inquiries.beginning_offsets([self._partition]))[self._partition])

    async def end(self) -> int:
        with translating(self._settings.bootstrap):
            return int((await self._inquiries.end_offsets([self._partition]))[self._partition])

    async def offset_at(self, timestamp_ms: int) -> int:
        with translating(self._settings.bootstrap):
            found = (await self._inquiries.offsets_for_times({self._partition: timestamp_ms}))[self._partition]
        return await self.end() if found is None else int(found.offset)


class KafkaLog(ReadableKafkaLog):
    """One topic."""

    def __init__(
        self, settings: KafkaSettings, topic: Topic, inquiries: AIOKafkaConsumer, producer: KafkaProducer
    ) -> None:
        super().__init__(settings, topic, inquiries)
        self._producer = producer

    async def append(self, entries: Sequence[Entry]) -> list[int]:
        """See `streams.log.Log.append`."""
        if not entries:
            return []
        return await self._producer.append(entries, entry_sizes(self._topic, entries))
