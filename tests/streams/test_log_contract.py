"""What every log promises (`streams.log`), on SQLite and on a real Kafka."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from streams.errors import EntryTooLarge, NoSuchTopic, OffsetOutOfRange, TopicMismatch
from streams.log import Entry, Log, Record, entry_size
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.streams.log_worlds import (
    KafkaWorld,
    SqliteWorld,
    World,
    everything,
    fresh_topic,
    numbered,
    numbers,
)


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | KafkaBroker:
    return tmp_path / "log.db" if request.param == "sqlite" else request.getfixturevalue("kafka")


@pytest.fixture
async def world(place: Path | KafkaBroker) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield SqliteWorld(stack, place) if isinstance(place, Path) else KafkaWorld(stack, place)


async def follow(log: Log, start: int, until_number: int) -> list[Record]:
    """Follow *log* until a record says *until_number*."""
    seen: list[Record] = []
    async with asyncio.timeout(30), aclosing(log.read(start, follow=True)) as batches:
        async for batch in batches:
            seen.extend(batch)
            if numbers(batch)[-1] >= until_number:
                break
    return seen


async def test_an_append_returns_the_offsets_at_which_its_entries_are_read_in_order(world: World) -> None:
    log = await world.open(fresh_topic())

    offsets = [*await log.append(numbered(3)), *await log.append(numbered(2, start=3))]

    assert offsets == sorted(set(offsets))
    records = await everything(log)
    assert [record.offset for record in records] == offsets
    assert numbers(records) == [0, 1, 2, 3, 4]
    assert await log.start() == offsets[0] == 0
    assert await log.end() == offsets[-1] + 1


async def test_a_log_that_is_only_read_is_not_created(world: World) -> None:
    topic = fresh_topic()
    with pytest.raises(NoSuchTopic, match=topic.name):
        await world.find(topic)
    with pytest.raises(NoSuchTopic):  # also not by having been asked for
        await world.find(topic)


async def test_who_only_reads_sees_what_the_writer_sees(world: World) -> None:
    topic = fresh_topic()
    log = await world.open(topic)
    await log.append(numbered(3))

    found = await world.find(topic)

    assert await everything(found) == await everything(log)
    assert (await found.start(), await found.end()) == (await log.start(), await log.end())
    assert await found.offset_at(0) == 0


async def test_an_empty_append_writes_nothing(world: World) -> None:
    log = await world.open(fresh_topic())

    assert await log.append([]) == []
    assert await log.end() == 0
    assert await everything(log) == []


async def test_a_record_comes_back_as_it_was_written(world: World) -> None:
    log = await world.open(fresh_topic())
    entries = [
        Entry("Pod/ns/ä", "straße".encode(), (("ce_type", b"x"), ("ce_type", b"again"), ("empty", b""))),
        Entry("Pod/ns/gone", None, (("why", b"deleted"),)),
        Entry("Pod/ns/empty", b""),
    ]

    await log.append(entries)

    records = await everything(log)
    assert [Entry(r.key, r.value, tuple(r.headers)) for r in records] == entries
    assert all(r.timestamp > 1_700_000_000_000 for r in records)


async def test_a_batch_larger_than_any_single_write_keeps_its_order(world: World) -> None:
    log = await world.open(fresh_topic())
    entries = [Entry(f"k{i}", b"%08d" % i * 128) for i in range(6000)]  # 6 MB

    offsets = await log.append(entries)

    records = await everything(log)
    assert [record.offset for record in records] == offsets == list(range(6000))
    assert [(record.key, record.value) for record in records] == [(entry.key, entry.value) for entry in entries]


async def test_appends_of_several_tasks_are_each_contiguous_and_in_the_order_of_their_calls(world: World) -> None:
    log = await world.open(fresh_topic())

    offsets = await asyncio.gather(*(log.append(numbered(50, start=50 * i)) for i in range(20)))

    assert [offset for batch in offsets for offset in batch] == list(range(1000))
    assert numbers(await everything(log)) == list(range(1000))


async def test_a_read_begins_at_its_offset_and_ends_before_its_end(world: World) -> None:
    log = await world.open(fresh_topic())
    await log.append(numbered(10))

    assert numbers(await everything(log, 7)) == [7, 8, 9]
    assert numbers(await everything(log, 2, 5)) == [2, 3, 4]
    assert numbers(await everything(log, 2, 99)) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert await everything(log, 10) == []


async def test_a_follower_gets_what_was_there_and_then_what_comes(world: World) -> None:
    log = await world.open(fresh_topic())
    await log.append(numbered(5))

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow(log, 2, until_number=29), name="follow")
        for i in range(5, 30):
            await log.append(numbered(1, start=i))

    assert numbers(following.result()) == list(range(2, 30))


async def test_a_follower_elsewhere_sees_what_this_writer_appends(world: World) -> None:
    topic = fresh_topic()
    log, elsewhere = await world.open(topic), await world.open(topic)

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow(elsewhere, 0, until_number=9), name="follow")
        for i in range(10):
            await log.append(numbered(1, start=i))

    assert numbers(following.result()) == list(range(10))


async def test_a_follower_with_an_end_waits_for_it_and_ends(world: World) -> None:
    log = await world.open(fresh_topic())

    async def follow_to_five() -> list[int]:
        async with asyncio.timeout(30):
            return [n async for batch in log.read(0, follow=True, end=5) for n in numbers(batch)]

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow_to_five(), name="follow")
        for i in range(8):
            await log.append(numbered(1, start=i))

    assert following.result() == [0, 1, 2, 3, 4]


async def test_two_writers_share_one_order_without_losing_anything(world: World) -> None:
    topic = fresh_topic()
    writers = [await world.open(topic), await world.open(topic)]

    async def write(writer: Log, start: int) -> None:
        for i in range(start, start + 20):
            await writer.append(numbered(5, start=5 * i))

    await asyncio.gather(write(writers[0], 0), write(writers[1], 100))

    found = numbers(await everything(writers[0]))
    assert [n for n in found if n < 500] == list(range(100))
    assert [n for n in found if n >= 500] == list(range(500, 600))


async def test_a_position_past_the_end_is_an_error_that_says_where_the_log_ends(world: World) -> None:
    log = await world.open(fresh_topic())
    await log.append(numbered(3))

    with pytest.raises(OffsetOutOfRange) as raised:
        await everything(log, 4)

    error = raised.value
    assert (error.topic, error.offset, error.start, error.end) == (log.topic.name, 4, 0, 3)
    assert not error.retriable


async def test_the_offset_for_a_time_is_that_of_the_first_record_at_or_after_it(world: World) -> None:
    log = await world.open(fresh_topic())
    assert await log.offset_at(0) == 0
    for i in range(3):
        await log.append(numbered(2, start=2 * i))
        await asyncio.sleep(0.005)  # so that the log's clock moves on

    stamps = [record.timestamp for record in await everything(log)]
    assert stamps[0] == stamps[1] < stamps[2] < stamps[4]
    assert await log.offset_at(stamps[0]) == 0
    assert await log.offset_at(stamps[2]) == 2
    assert await log.offset_at(stamps[2] + 1) == 4
    assert await log.offset_at(stamps[4] + 1) == 6


async def test_an_entry_above_the_limit_is_named_and_nothing_of_its_batch_is_written(world: World) -> None:
    log = await world.open(fresh_topic(max_message_bytes=100_000))
    limit = log.topic.max_entry_bytes
    large = Entry("Pod/ns/large", b"x" * limit)

    with pytest.raises(EntryTooLarge) as raised:
        await log.append([Entry("a", b"0"), large, Entry("b", b"1")])

    error = raised.value
    assert (error.key, error.size, error.limit) == ("Pod/ns/large", entry_size(large), limit)
    assert await log.end() == 0
    await log.append([Entry("a", b"0"), Entry("b", b"1")])
    assert numbers(await everything(log)) == [0, 1]


async def test_an_entry_at_the_limit_is_stored_with_its_tombstone(world: World) -> None:
    log = await world.open(fresh_topic(max_message_bytes=100_000))
    room = log.topic.max_entry_bytes - entry_size(Entry("k", b""))

    await log.append([Entry("a", b"0"), Entry("k", b"x" * room), Entry("k", None), Entry("b", b"1")])

    assert [record.key for record in await everything(log)] == ["a", "k", "k", "b"]


async def test_an_object_of_seven_megabytes_is_stored_among_small_ones(world: World) -> None:
    log = await world.open(fresh_topic())
    large = random.Random(7).randbytes(7_000_000)  # nothing that compression could make small

    await log.append([*numbered(2), Entry("large", large), *numbered(2, start=2)])

    async with asyncio.timeout(30):
        records = [record async for batch in log.read(0, follow=True, end=5) for record in batch]
    assert [record.key for record in records] == ["Pod/ns/p0", "Pod/ns/p1", "large", "Pod/ns/p2", "Pod/ns/p3"]
    assert records[2].value == large


async def test_compaction_keeps_offsets_and_the_newest_record_of_every_key(world: World) -> None:
    log = await world.compacting(fresh_topic())
    await log.append([Entry("a", b"1"), Entry("b", b"1"), Entry("a", b"2"), Entry("gone", b"1"), Entry("c", b"1")])
    await log.append([Entry("gone", None), Entry("a", b"3")])
    before = {record.offset: record for record in await everything(log)}

    await world.compact(log)

    left = await everything(log, end=7)
    assert {record.offset: record for record in left}.items() <= before.items()
    folded = {record.key: record.value for record in left if record.value is not None}
    assert folded == {"a": b"3", "b": b"1", "c": b"1"}
    assert [record.offset for record in left if record.key != "gone"] == [1, 4, 6]
    assert [record.key for record in await everything(log, 2, end=7) if record.key != "gone"] == ["c", "a"]
    assert await log.append([Entry("d", b"1")]) >= [7]


async def test_a_topic_that_exists_with_other_settings_is_refused_by_the_name_of_each(world: World) -> None:
    topic = fresh_topic(min_compaction_lag_ms=1000)
    await world.open(topic)

    with pytest.raises(TopicMismatch) as raised:
        await world.open(fresh_topic(name=topic.name, min_compaction_lag_ms=2000, max_message_bytes=1_000_000))

    differences = {name.replace(".", "_"): pair for name, pair in raised.value.differences.items()}
    assert differences.keys() == {"min_compaction_lag_ms", "max_message_bytes"}
    assert differences["min_compaction_lag_ms"] == ("2000", "1000")
    assert "2000" in str(raised.value)
    assert "1000" in str(raised.value)
