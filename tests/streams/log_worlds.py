"""The places a log can live in, for tests that must hold in all of them."""

import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.kafka.kafka_topics import topic_settings
from streams.log import Entry, Log, ReadableLog, Record
from streams.sqlite.sqlite_log import SqliteLogs, wall_clock_ms
from streams.topics import Topic
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.waiting import until


def fresh_topic(**settings: object) -> Topic:
    """A compacted topic that no other test uses, without a lag."""
    name = f"eastwest.test-{uuid.uuid4().hex[:12]}.events.v1"
    return msgspec.convert({"name": name, "cleanup": "compact", **settings}, Topic)


def numbered(count: int, *, start: int = 0, keys: int = 10) -> list[Entry]:
    """Entries that tell their own order."""
    return [Entry(f"Pod/ns/p{i % keys}", b"%d" % i) for i in range(start, start + count)]


def numbers(records: list[Record]) -> list[int]:
    return [int(record.value or b"-1") for record in records]


async def everything(log: ReadableLog, start: int = 0, end: int | None = None) -> list[Record]:
    """All records from *start* to the end as it is now."""
    return [record async for batch in log.read(start, end=end) for record in batch]


class World(Protocol):
    """A kind of log that tests can open, open again, and compact."""

    async def open(self, topic: Topic) -> Log: ...

    async def find(self, topic: Topic) -> ReadableLog: ...

    async def compacting(self, topic: Topic) -> Log:
        """Open *topic* so that `compact` works soon."""
        ...

    async def compact(self, log: Log) -> None: ...


class SqliteWorld:
    def __init__(self, stack: AsyncExitStack, path: Path) -> None:
        self._stack = stack
        self.path = path

    async def open(self, topic: Topic) -> Log:
        """Each time by a connection of its own, as another process would have."""
        return await (await self._stack.enter_async_context(SqliteLogs(self.path))).open(topic)

    async def find(self, topic: Topic) -> ReadableLog:
        return await (await self._stack.enter_async_context(SqliteLogs(self.path))).find(topic)

    async def compacting(self, topic: Topic) -> Log:
        return await self.open(topic)

    async def compact(self, log: Log) -> None:
        logs = await self._stack.enter_async_context(SqliteLogs(self.path))
        await (await logs.open(log.topic)).clean(wall_clock_ms() + 1)


class KafkaWorld:
    def __init__(self, stack: AsyncExitStack, broker: KafkaBroker) -> None:
        self._stack = stack
        self.broker = broker

    async def open(self, topic: Topic, **settings: float) -> Log:
        logs = KafkaLogs(KafkaSettings(bootstrap=self.broker.bootstrap, **settings))  # type: ignore[arg-type]
        return await (await self._stack.enter_async_context(logs)).open(topic)

    async def find(self, topic: Topic) -> ReadableLog:
        logs = KafkaLogs(KafkaSettings(bootstrap=self.broker.bootstrap))
        return await (await self._stack.enter_async_context(logs)).find(topic)

    async def compacting(self, topic: Topic) -> Log:
        quickly = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0"}
        await self.create(topic, quickly)
        return await self.open(topic)

    async def create(self, topic: Topic, more: dict[str, str], partitions: int = 1) -> None:
        """Make *topic* as someone else might: our settings, and *more*."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        try:
            await admin.start()
            settings = {**topic_settings(topic), **more}
            await admin.create_topics([NewTopic(topic.name, partitions, 1, topic_configs=settings)])
        finally:
            await admin.close()

    async def compact(self, log: Log) -> None:
        """Have the cleaner work off what was written so far; it spares the newest segment, so fillers are written."""
        before = await log.end()

        async def cleaned() -> bool:
            await log.append([Entry("filler", b"0")])
            old = await everything(log, end=before)
            keys = [record.key for record in old]
            return len(keys) == len(set(keys)) and "filler" not in keys

        await until("the cleaner to leave one record per key", cleaned, within_seconds=60, poll_seconds=0.3)
