"""The broker fixtures keep their promises: what tests build on is itself shown."""

import asyncio
import os
import sys
from pathlib import Path

import nats as nats_client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.nats_child import NatsChild
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.nats_server import NatsServer
from tests.components.waiting import until


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


@pytest.mark.nats
async def test_nats_is_closed_to_whom_it_gave_no_token(nats: NatsServer):
    reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    answer = await asyncio.wait_for(reader.read(), 10)  # until the server hangs up
    writer.close()
    assert b"Authorization Violation" in answer
    assert b"PONG" not in answer


@pytest.mark.nats
async def test_a_nats_child_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    os.kill(child, 0)

    parent.kill()
    await parent.wait()
    await until("the orphan to be gone", lambda: not Path(f"/proc/{child}/exe").exists())


_PARENT = """
import asyncio, pathlib, sys
from streams.nats_child import NatsChild
async def main():
    async with NatsChild(pathlib.Path(sys.argv[1])) as child:
        print(child.process.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.nats
async def test_a_nats_child_that_cannot_start_says_why(tmp_path: Path, nats: NatsServer):
    with pytest.raises(Exception, match="address already in use"):
        await NatsChild(tmp_path, port=nats.port).start()


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
