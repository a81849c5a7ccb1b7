"""What only a server can do to a log: go away, come back, be someone else's, be damaged."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from streams.errors import LogCorrupt, LogRefused, LogUnavailable, OutcomeUnknown, ServerTooOld, TopicMismatch
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.kafka.kafka_producer import BATCH_BYTES, chunks
from streams.kafka.kafka_reader import KafkaReader
from streams.log import Entry, Log, Record, entry_size
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.ports import free_ports
from tests.components.waiting import until
from tests.streams.log_worlds import KafkaWorld, everything, fresh_topic, numbered, numbers

pytestmark = pytest.mark.kafka


@pytest.fixture
async def world(kafka: KafkaBroker) -> AsyncIterator[KafkaWorld]:
    async with AsyncExitStack() as stack:
        yield KafkaWorld(stack, kafka)


async def follow_into(log: Log, seen: list[Record]) -> None:
    async with aclosing(log.read(0, follow=True)) as batches:
        async for batch in batches:
            seen.extend(batch)


async def pause(broker: KafkaBroker) -> None:
    os.kill(broker.process.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{broker.process.pid}/task")

    def stands_still() -> bool:
        return all((thread / "stat").read_text().rpartition(") ")[2][0] == "T" for thread in tasks.iterdir())

    await until("every thread of the broker to stand still", stands_still)


async def kill_and_start(broker: KafkaBroker) -> None:
    await broker.kill()
    await broker.start()


async def stop_and_start(broker: KafkaBroker) -> None:
    await broker.stop()
    await broker.start()


async def hang_past_the_request_timeout(broker: KafkaBroker) -> None:
    """So that requests are repeated which the broker has taken and answers later."""
    await pause(broker)
    try:
        await asyncio.sleep(1.5)
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("disturb", [kill_and_start, stop_and_start, hang_past_the_request_timeout])
async def test_a_broker_disturbed_amid_writes_and_reads_loses_repeats_and_reorders_nothing(
    world: KafkaWorld, disturb: Callable[[KafkaBroker], Awaitable[None]]
) -> None:
    topic = fresh_topic()
    log = await world.open(topic, append_seconds=60, request_seconds=1.0)
    elsewhere = await world.open(topic)
    acknowledged: list[int] = []
    seen: list[Record] = []

    async def write() -> None:
        for i in range(400):
            acknowledged.extend(await log.append(numbered(25, start=25 * i)))

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow_into(elsewhere, seen), name="follow")
        writing = tasks.create_task(write(), name="write")
        for disturb_at in (2000, 5000):
            await until(f"{disturb_at} records", lambda at=disturb_at: len(acknowledged) >= at, poll_seconds=0.001)
            assert not writing.done()
            await disturb(world.broker)
        await asyncio.wait_for(writing, 60)
        await until("the follower to see the last record", lambda: len(seen) >= 10_000)
        following.cancel()

    assert numbers(seen) == list(range(10_000))
    assert [record.offset for record in seen] == acknowledged == list(range(10_000))
    assert await everything(elsewhere) == seen


async def test_an_append_without_an_answer_is_unknown_and_is_not_delivered_later(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic(), append_seconds=1.0)
    await log.append(numbered(5))
    await world.broker.kill()

    with pytest.raises(OutcomeUnknown) as raised:
        await log.append(numbered(5, start=5))
    assert (raised.value.topic, raised.value.entries, raised.value.retriable) == (log.topic.name, 5, False)

    with pytest.raises(LogUnavailable) as unavailable:
        await log.append(numbered(5, start=10))
    assert unavailable.value.retriable

    await world.broker.start()
    await log.append(numbered(5, start=15))
    assert numbers(await everything(log)) == [*range(5), *range(15, 20)]


async def test_an_append_to_a_broker_that_hangs_is_stored_wholly_or_not_at_all(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic(), append_seconds=1.0)
    await log.append(numbered(5))
    await pause(world.broker)
    try:
        with pytest.raises(OutcomeUnknown):
            await log.append(numbered(5, start=5))
    finally:
        os.kill(world.broker.process.pid, signal.SIGCONT)

    async def appended() -> bool:
        return bool(await log.append(numbered(1, start=10)))

    await until("the broker to take appends again", appended, ignoring=(LogUnavailable,))
    found = numbers(await everything(log))
    assert found in ([*range(5), 10], [*range(11)], [*range(5), 10, *range(5, 10)])


async def test_a_cancelled_append_leaves_the_log_usable(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic())
    await log.append(numbered(5))
    await pause(world.broker)
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(log.append(numbered(5, start=5)), 0.2)
    finally:
        os.kill(world.broker.process.pid, signal.SIGCONT)

    await log.append([Entry("last", b"99")])
    assert 99 in numbers(await everything(log))


async def test_a_read_that_begins_while_the_broker_is_away_waits_for_it(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic())
    await log.append(numbered(5))
    await world.broker.kill()

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(everything(log), name="read")
        await world.broker.start()

    assert numbers(reading.result()) == [0, 1, 2, 3, 4]


async def test_a_follower_says_once_that_the_broker_is_away_and_once_that_it_is_back(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic())
    await log.append(numbered(5))
    hours = itertools.count(step=3600.0)  # every look at the clock finds that nothing was heard for long
    reader = KafkaReader(world.broker.bootstrap, log.topic, request_seconds=0.3, clock=lambda: next(hours))
    seen: list[Record] = []

    async def follow() -> None:
        async with aclosing(reader.read(0, follow=True, end=None)) as batches:
            async for batch in batches:
                seen.extend(batch)

    with structlog.testing.capture_logs() as lines:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow(), name="follow")
            await until("the first records", lambda: len(seen) == 5)
            await world.broker.kill()
            await until("a line about the broker", lambda: any("not reachable" in line["event"] for line in lines))
            await world.broker.start()
            await log.append(numbered(5, start=5))
            await until("the other records", lambda: len(seen) == 10)
            following.cancel()

    assert numbers(seen) == list(range(10))
    events = [line["event"] for line in lines if line["event"].startswith("log is")]
    assert events == ["log is not reachable, retrying", "log is reachable again"]


async def test_a_question_to_a_broker_that_is_away_is_an_error_that_may_be_retried(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic(), request_seconds=0.5)
    await log.append(numbered(5))
    await world.broker.kill()

    for question in (log.end, log.start, lambda: log.offset_at(0), lambda: world.open(log.topic, connect_seconds=0)):
        with pytest.raises(LogUnavailable):
            await question()

    await world.broker.start()
    assert await log.end() == 5


async def test_a_broker_that_never_answers_is_an_error_that_names_it() -> None:
    [port] = free_ports(1)

    with pytest.raises(LogUnavailable) as raised:
        async with KafkaLogs(KafkaSettings(bootstrap=f"127.0.0.1:{port}", connect_seconds=0.3)):
            pass

    assert raised.value.where == f"127.0.0.1:{port}"
    assert raised.value.retriable


async def test_a_server_without_the_requests_we_need_is_called_too_old() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Know nothing but ApiVersions (key 18, version 0), as its answer says."""
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4))
                request = await reader.readexactly(size)
                body = request[4:8] + b"\0\0" + b"\0\0\0\1" + b"\0\x12\0\0\0\0"  # correlation, no error, one range
                writer.write(len(body).to_bytes(4) + body)
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()
            ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ServerTooOld) as raised:
            async with KafkaLogs(KafkaSettings(bootstrap=f"127.0.0.1:{port}", connect_seconds=5)):
                pass
        await asyncio.wait_for(ended.wait(), 5)

    assert raised.value.where == f"127.0.0.1:{port}"
    assert "InitProducerId" in str(raised.value)


async def test_a_topic_with_several_partitions_or_the_writers_clock_is_refused(world: KafkaWorld) -> None:
    topic = fresh_topic()
    await world.create(topic, {"message.timestamp.type": "CreateTime"}, partitions=2)

    with pytest.raises(TopicMismatch) as raised:
        await world.open(topic)

    assert raised.value.differences == {
        "partitions": ("1", "2"),
        "message.timestamp.type": ("LogAppendTime", "CreateTime"),
    }


async def test_a_topic_that_the_broker_will_not_make_is_refused_with_its_reason(world: KafkaWorld) -> None:
    with pytest.raises(LogRefused, match="replication factor") as raised:
        await world.open(fresh_topic(), replication=3)

    assert not raised.value.retriable


async def test_a_start_before_the_earliest_record_begins_there(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic(cleanup="delete"))
    await log.append(numbered(10))
    admin = AIOKafkaAdminClient(bootstrap_servers=world.broker.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(log.topic.name, 0): RecordsToDelete(before_offset=4)})
    await admin.close()

    assert await log.start() == 4
    assert numbers(await everything(log, 0)) == [4, 5, 6, 7, 8, 9]


async def test_foreign_records_without_a_key_or_with_a_broken_one_are_read(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic(cleanup="delete"))
    async with AIOKafkaProducer(bootstrap_servers=world.broker.bootstrap, compression_type="lz4") as producer:
        await producer.send_and_wait(log.topic.name, b"no key")
        await producer.send_and_wait(log.topic.name, b"broken key", key=b"\xff\xfe")

    assert [(record.key, record.value) for record in await everything(log)] == [
        ("", b"no key"),
        ("��", b"broken key"),
    ]


async def test_offsets_without_records_are_passed_over_also_at_the_end(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic(cleanup="delete"))
    async with AIOKafkaProducer(bootstrap_servers=world.broker.bootstrap, transactional_id=log.topic.name) as producer:
        for number in (b"0", b"2"):  # each commit takes an offset of its own
            async with producer.transaction():
                await producer.send(log.topic.name, number, key=b"k")

    assert await log.end() == 4
    async with asyncio.timeout(10):
        assert [record.offset for record in await everything(log)] == [0, 2]
        assert await everything(log, 3) == []
    assert await log.append(numbered(1, start=4)) == [4]


async def test_a_batch_damaged_on_the_brokers_disk_is_named_by_its_offset(world: KafkaWorld) -> None:
    log = await world.open(fresh_topic())
    await log.append([Entry("a", b"intact")])
    await log.append([Entry("b", b"soon damaged")])
    await world.broker.stop()
    [segment] = (world.broker.folder / "logs" / f"{log.topic.name}-0").glob("*.log")
    segment.write_bytes(segment.read_bytes().replace(b"soon damaged", b"Soon damaged"))
    await world.broker.start()

    seen: list[Record] = []

    async def read_all() -> None:
        async for batch in log.read(0):
            seen.extend(batch)

    with pytest.raises(LogCorrupt) as raised:
        await read_all()

    assert [record.key for record in seen] == ["a"]
    assert (raised.value.topic, raised.value.offset) == (log.topic.name, 1)


def test_batches_never_part_a_deletion_from_its_tombstone() -> None:
    large = b"x" * (BATCH_BYTES // 3)
    entries = [Entry("a", large), Entry("b", large), Entry("gone", large), Entry("gone", None), Entry("c", large)]
    sizes = [entry_size(entry) for entry in entries]

    assert list(chunks(entries, sizes, limit=8 * BATCH_BYTES)) == [range(2), range(2, 5)]
    assert list(chunks([], [], limit=8 * BATCH_BYTES)) == []
