"""What is particular to the log in a file: what it is, who has it open, what is left when its writer is killed."""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from streams.errors import LogUnavailable, NotALog
from streams.log import Entry, Record
from streams.sqlite.sqlite_file import APPLICATION_ID, FORMAT
from streams.sqlite.sqlite_log import SqliteLogs
from streams.topics import Topic
from tests.components.waiting import until
from tests.streams.log_worlds import everything, fresh_topic, numbered, numbers

_WRITER = """
import asyncio, pathlib, sys
from streams.log import Entry
from streams.sqlite.sqlite_log import SqliteLogs
from streams.topics import Topic

async def main(path, name):
    async with SqliteLogs(pathlib.Path(path)) as logs:
        log = await logs.open(Topic(name=name, cleanup="compact"))
        while True:
            for offset in await log.append([Entry("k", b"%d" % i) for i in range(20)]):
                sys.stdout.write(f"{offset}\\n")
            sys.stdout.flush()

asyncio.run(main(*sys.argv[1:]))
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_a_killed_writer_was_told_is_written_is_there(tmp_path: Path) -> None:
    path, topic = tmp_path / "log.db", fresh_topic()
    told = tmp_path / "told"
    with told.open("wb") as output:
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(path), topic.name, stdout=output
        )
    try:
        await until("the writer to be well under way", lambda: told.stat().st_size > 20_000)
    finally:
        writer.kill()
        await writer.wait()

    acknowledged = [int(line) for line in told.read_text().rpartition("\n")[0].split()]
    async with SqliteLogs(path) as logs:
        log = await logs.open(topic)
        records = await everything(log)
        assert [record.offset for record in records][: len(acknowledged)] == acknowledged
        assert [record.offset for record in records] == list(range(await log.end()))
        assert len(records) % 20 == 0, "a batch was torn"
        assert await log.append([Entry("k", b"0")]) == [len(records)]


@pytest.mark.parametrize("content", [b"apiVersion: v1\nkind: List\n" * 50, b"SQLite format 3\0 and then nonsense" * 50])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "objects.yaml"
    path.write_bytes(content)

    with pytest.raises(NotALog) as raised:
        async with SqliteLogs(path):
            pass

    assert raised.value.path == str(path)
    assert path.read_bytes() == content


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE topics (name TEXT)")
    before = path.read_bytes()

    with pytest.raises(NotALog, match="another program"):
        async with SqliteLogs(path):
            pass

    assert path.read_bytes() == before


async def test_a_newer_format_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        newer.execute(f"PRAGMA user_version = {FORMAT + 1}")

    with pytest.raises(NotALog, match=f"format is {FORMAT + 1}"):
        async with SqliteLogs(path):
            pass


async def test_a_folder_that_does_not_exist_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "log.db"

    with pytest.raises(LogUnavailable) as raised:
        async with SqliteLogs(path):
            pass

    assert raised.value.where == str(path)


async def test_a_file_opened_again_goes_on_where_it_was(tmp_path: Path) -> None:
    topics = [fresh_topic(), fresh_topic(cleanup="delete", retention_ms=1000)]
    for start in (0, 3):
        async with SqliteLogs(tmp_path / "log.db") as logs:
            for topic in topics:
                assert await (await logs.open(topic)).append(numbered(3, start=start)) == list(range(start, start + 3))

    async with SqliteLogs(tmp_path / "log.db") as logs:
        assert await logs.topics() == sorted(topics, key=lambda topic: topic.name)
        assert numbers(await everything(await logs.open(topics[0]))) == [0, 1, 2, 3, 4, 5]
    assert names_in(tmp_path) == ["log.db"], "a closed log is one file"


class Clock:
    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


async def test_cleaning_keeps_what_is_young_and_the_state_at_the_edge_of_youth(tmp_path: Path) -> None:
    clock = Clock()
    async with SqliteLogs(tmp_path / "log.db", clock_ms=clock) as logs:
        log = await logs.open(fresh_topic(min_compaction_lag_ms=1000))
        await log.append([Entry("a", b"1"), Entry("a", b"2"), Entry("b", b"3"), Entry("b", None), Entry("c", b"4")])
        clock.now_ms += 500
        await log.append([Entry("a", b"5"), Entry("a", b"6"), Entry("c", None)])

        clock.now_ms += 501
        assert await log.clean(clock()) == 3
        assert [record.offset for record in await everything(log)] == [1, 4, 5, 6, 7]

        clock.now_ms += 500
        assert await log.clean(clock()) == 4
        assert [(record.offset, record.value) for record in await everything(log)] == [(6, b"6")]
        assert await log.append([Entry("d", b"7")]) == [8]
        assert await log.start() == 0


async def test_a_log_is_kept_clean_by_whoever_keeps_it_and_left_alone_by_whoever_reads_it(tmp_path: Path) -> None:
    topic = fresh_topic()
    async with SqliteLogs(tmp_path / "log.db") as logs:
        log = await logs.open(topic)
        await log.append(numbered(30_000, keys=10))
        async with SqliteLogs(tmp_path / "log.db", clean_every_seconds=0.05):

            async def cleaned() -> bool:
                return len(await everything(log)) <= 10

            appended = [offset for _ in range(20) for offset in await log.append(numbered(1, start=30_000))]
            await until("the log to be clean", cleaned)
        assert appended == list(range(30_000, 30_020))
        await log.append([Entry("a", b"1"), Entry("a", b"2")])
    async with SqliteLogs(tmp_path / "log.db") as logs:
        assert [record.value for record in await everything(await logs.open(topic))][-2:] == [b"1", b"2"]


async def test_retention_removes_the_oldest_and_moves_the_start(tmp_path: Path) -> None:
    clock = Clock()
    async with SqliteLogs(tmp_path / "log.db", clock_ms=clock) as logs:
        log = await logs.open(fresh_topic(cleanup="delete", retention_ms=1000))
        await log.append(numbered(3))
        clock.now_ms += 900
        await log.append(numbered(2, start=3))
        clock.now_ms += 101

        assert await log.clean(clock()) == 3
        assert (await log.start(), await log.end()) == (3, 5)
        assert numbers(await everything(log, 0)) == [3, 4]
        clock.now_ms += 1000
        assert await log.clean(clock()) == 2
        assert (await log.start(), await log.end()) == (5, 5)
        assert await everything(log, 0) == []


async def test_a_clock_that_steps_back_does_not_unsort_the_timestamps(tmp_path: Path) -> None:
    clock = Clock()
    async with SqliteLogs(tmp_path / "log.db", clock_ms=clock) as logs:
        log = await logs.open(fresh_topic())
        await log.append(numbered(1))
        clock.now_ms -= 5000
        await log.append(numbered(1, start=1))

        assert [record.timestamp for record in await everything(log)] == [1_000_000, 1_000_000]


async def test_loaded_records_keep_their_offsets_timestamps_and_gaps(tmp_path: Path) -> None:
    records = [Record(4, 40, "a", b"1"), Record(9, 90, "b", None, (("h", b"x"),)), Record(10, 91, "a", b"2")]
    async with SqliteLogs(tmp_path / "export.db") as logs:
        log = await logs.open(fresh_topic())
        await log.load(records[:1], 5)
        await log.load(records[1:], 20)

        assert await everything(log) == records
        assert await log.end() == 20
        assert await log.offset_at(41) == 9
        assert await log.offset_at(92) == 20
        with pytest.raises(ValueError, match="offset 19"):
            await log.load([Record(19, 99, "a", b"3")], 30)
        assert await everything(log) == records


async def test_offsets_for_times_are_found_across_gaps(tmp_path: Path) -> None:
    records = [Record(offset, offset * 10, "k", b"") for offset in (3, 4, 50, 51, 1000, 4711)]
    async with SqliteLogs(tmp_path / "export.db") as logs:
        log = await logs.open(fresh_topic())
        await log.load(records, 5000)

        for at in range(0, 48_000, 7):
            expected = next((record.offset for record in records if record.timestamp >= at), 5000)
            assert await log.offset_at(at) == expected, at


async def test_appends_that_wait_for_another_programs_commit_are_all_written_in_order(tmp_path: Path) -> None:
    topic = fresh_topic()
    async with SqliteLogs(tmp_path / "log.db") as logs:
        log = await logs.open(topic)
        other = await logs.open(Topic(name="other", cleanup="delete"))
        blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        with closing(blocker):
            blocker.execute("BEGIN IMMEDIATE")
            appends = [asyncio.create_task(log.append(numbered(1, start=i)), name=f"append {i}") for i in range(5)]
            appends.append(asyncio.create_task(other.append(numbered(1)), name="append elsewhere"))
            await asyncio.sleep(0)
            blocker.execute("ROLLBACK")
            assert await asyncio.gather(*appends) == [[0], [1], [2], [3], [4], [0]]


async def test_giving_up_on_an_append_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    async with SqliteLogs(tmp_path / "log.db") as logs:
        log = await logs.open(fresh_topic())
        appends = [asyncio.create_task(log.append(numbered(1, start=i)), name=f"append {i}") for i in range(3)]
        await asyncio.sleep(0)
        appends[0].cancel()

        results = await asyncio.gather(*appends, return_exceptions=True)

        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [[1], [2]]


async def test_a_follower_with_an_end_misses_nothing_that_is_committed_while_it_looks(tmp_path: Path) -> None:
    async with SqliteLogs(tmp_path / "log.db") as logs:
        log = await logs.open(fresh_topic())

        async def follow(end: int) -> list[int]:
            return [record.offset async for batch in log.read(end - 1, follow=True, end=end) for record in batch]

        for end in range(1, 400):
            found, _ = await asyncio.gather(follow(end), log.append(numbered(1)))
            assert found == [end - 1]


async def test_who_may_not_write_reads_and_changes_nothing(tmp_path: Path) -> None:
    topic, path = fresh_topic(), tmp_path / "log.db"
    async with SqliteLogs(path) as logs:
        await (await logs.open(topic)).append(numbered(3))
    before = path.read_bytes()

    async with SqliteLogs(path, read_only=True) as logs:
        assert numbers(await everything(await logs.find(topic))) == [0, 1, 2]
        with pytest.raises(LogUnavailable, match="readonly"):
            await (await logs.open(topic)).append(numbered(1))
    assert list(tmp_path.iterdir()) == [path]  # noqa: ASYNC240
    assert path.read_bytes() == before


async def test_who_may_not_write_follows_a_log_that_is_being_written(tmp_path: Path) -> None:
    topic, path = fresh_topic(), tmp_path / "log.db"
    async with SqliteLogs(path) as logs:
        log = await logs.open(topic)
        await log.append(numbered(1))
        async with SqliteLogs(path, read_only=True) as others:
            found = await others.find(topic)
            assert numbers(await everything(found)) == [0]
            await log.append(numbered(1, start=1))
            assert numbers(await everything(found)) == [0, 1]
