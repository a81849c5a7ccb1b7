"""The processor on a real Kafka and a real nats-server, which are killed and come back."""

import uuid
from collections.abc import AsyncIterator

import pytest

from schemas import names
from streams import topics
from streams.errors import ReadFailed
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.log import Entry
from streams.nats.nats_bus import NatsBus
from tests.components.waiting import until
from tests.processors.histories import pod
from tests.processors.live_cluster import World, running

pytestmark = [pytest.mark.nats, pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
async def world(nats, kafka) -> AsyncIterator[World]:
    cluster = f"k{uuid.uuid4().hex[:10]}"
    async with KafkaLogs(KafkaSettings(bootstrap=kafka.bootstrap)) as logs, NatsBus(nats.url) as bus:
        yield World(cluster, logs, await logs.open(topics.events(cluster)), bus, nats.url)


async def test_brokers_that_are_killed_and_come_back_cost_time_and_nothing_else(world, nats, kafka):
    revision = await world.begin()
    async with running(world, "one"), running(world, "two"):
        await world.marked(revision)
        await kafka.kill()
        await kafka.start()
        revision = await world.writer.put(pod("client-2", "10.0.0.3", app="client"))
        await world.marked(revision)
        await nats.kill()
        revision = await world.writer.put(pod("client-3", "10.0.0.4", app="client"))
        await nats.start()
        await world.marked(revision)
        assert await world.published() == await world.desired()


async def test_a_corrupt_record_is_set_aside_with_its_reason(world):
    await world.begin()
    (bad,) = await world.events.append([Entry("Pod/shop/web", b"\xff\xfe not an event")])
    revision = await world.writer.put(pod("late", "10.0.0.5", app="client"))
    dead = await world.logs.open(topics.dead(world.cluster))

    async def letters() -> list[tuple[str, bytes | None]]:
        return [(record.key, record.value) async for batch in dead.read(0) for record in batch]

    async with running(world, "one"):
        await world.marked(revision)
        assert await world.published() == await world.desired()
        found = await until("a dead letter", letters, ignoring=(ReadFailed,))
    assert found == [(f"{names.events_topic(world.cluster)}/{bad}", b"\xff\xfe not an event")]
