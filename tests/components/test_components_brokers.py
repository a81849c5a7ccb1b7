"""The broker fixtures keep their promises: what tests build on is itself shown."""

import asyncio
from pathlib import Path

import nats as nats_client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.nats_server import NatsServer


@pytest.mark.nats
async def test_nats_keeps_its_address_and_store_over_a_kill_and_loses_them_only_when_wiped(nats: NatsServer):
    url = nats.url
    client = await nats_client.connect(url)
    await client.jetstream().add_stream(name="components", subjects=["components.>"])
    await client.jetstream().publish("components.one", b"kept")
    await client.close()

    await nats.kill()
    await nats.start()
    assert nats.url == url
    client = await nats_client.connect(url)
    assert (await client.jetstream().stream_info("components")).state.messages == 1
    await client.close()

    await nats.stop()
    await nats.wipe()
    await nats.start()
    client = await nats_client.connect(url)
    assert await client.jetstream().streams_info() == []
    await client.close()


@pytest.mark.kafka
async def test_kafka_keeps_its_address_and_what_was_acknowledged_over_a_kill(kafka: KafkaBroker):
    bootstrap = kafka.bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("components", num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait("components", b"kept")

    await kafka.kill()
    await kafka.start()

    assert kafka.bootstrap == bootstrap
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([TopicPartition("components", 0)])
        await consumer.seek_to_beginning()
        assert (await asyncio.wait_for(consumer.getone(), 20)).value == b"kept"


@pytest.mark.kafka
async def test_kafka_leaves_no_process_behind(kafka: KafkaBroker, tmp_path: Path):
    async with KafkaBroker(tmp_path / "another", kafka.jars) as another:
        process = another.process
        assert process.running
    assert not process.running
