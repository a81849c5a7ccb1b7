"""Captures: what was recorded, played into a log."""

from pathlib import Path

import pytest

from producers.capture_source import CaptureSource
from producers.errors import SourceInvalid
from producers.writing import feed
from schemas.events import EventType
from streams.log import Log
from streams.sqlite.sqlite_log import SqliteLogs
from streams.topics import events
from tests.components.presence import require
from tests.producers.objects import bookmark, error, line, pod
from tests.producers.reading import fold, history, known, records
from tests.producers.running import complete, kubelink

RECORDED = Path(__file__).parents[2].parent / "shared" / "conformance" / "data" / "watch"


def write(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(b"\n".join(lines) + end)
    return path


async def test_a_recorded_stream_becomes_the_history_it_was(log: Log, tmp_path: Path):
    path = write(
        tmp_path / "watch.jsonl",
        line("ADDED", pod("a")),
        line("ADDED", pod("b")),
        bookmark("9", list_complete=True),
        line("MODIFIED", pod("a", version="10", app="x")),
        line("DELETED", pod("b", version="11")),
    )
    await feed(log, CaptureSource([path]), cluster="test")
    pods = [(event.type, event.name, event.resource_version) for event in await history(log) if event.kind == "Pod"]
    assert pods == [
        (EventType.ADDED, "a", "1"),
        (EventType.ADDED, "b", "1"),
        (EventType.MODIFIED, "a", "10"),
        (EventType.DELETED, "b", "11"),
    ]
    assert fold(await records(log))[1].complete


async def test_a_capture_is_a_whole_cluster_what_it_does_not_tell_is_gone(log: Log, tmp_path: Path):
    await feed(
        log, CaptureSource([write(tmp_path / "1", line("ADDED", pod("a")), line("ADDED", pod("b")))]), cluster="test"
    )
    await feed(log, CaptureSource([write(tmp_path / "2", line("ADDED", pod("a")))]), cluster="test")
    assert set(await known(log)) == {"Pod/shop/a"}


async def test_bad_lines_are_named_by_file_and_line_and_the_rest_is_played(log: Log, tmp_path: Path):
    path = write(
        tmp_path / "watch.jsonl",
        line("ADDED", pod("a")),
        b"garbage",
        line("ADDED", {"kind": "Secret", "metadata": {"name": "s"}}),
        error(410, "Expired", "too old"),
        line("ADDED", pod("b")),
        line("ADDED", pod("c"))[:60],
        end=b"",
    )
    writer = await feed(log, CaptureSource([path]), cluster="test")
    assert set(await known(log)) == {"Pod/shop/a", "Pod/shop/b"}
    problems = writer.reflector.problems
    assert "no watch line" in problems[f"{path}, line 2"]
    assert "Secret" in problems[f"{path}, line 3"]
    assert "410 Expired" in problems[f"{path}, line 4"]
    assert "cut off" in problems[f"{path}, line 6"]


async def test_an_export_played_again_ends_as_the_original(log: Log, logs: SqliteLogs, tmp_path: Path):
    path = write(
        tmp_path / "w", line("ADDED", pod("a")), line("ADDED", pod("b")), line("DELETED", pod("b", version="2"))
    )
    async with SqliteLogs(tmp_path / "export.ewlog") as export:
        await feed(await export.open(events("original")), CaptureSource([path]), cluster="original")
        original = await known(await export.open(events("original")))
    writer = await feed(log, CaptureSource([tmp_path / "export.ewlog"]), cluster="test")
    assert await known(log) == original
    assert writer.ledger.epochs.complete


async def test_real_recordings_are_played_whole(log: Log):
    require(RECORDED.is_dir(), "the recorded streams are not here", "they come with the conformance data")
    writer = await feed(log, CaptureSource(sorted(RECORDED.glob("*v1-36*"))), cluster="test")
    assert writer.reflector.problems == {}
    assert len(await known(log)) >= 8
    stored = b"".join(record.value or b"" for record in await records(log))
    assert b"--etcd-servers" not in stored
    assert b"managedFields" not in stored


async def test_a_kubelink_stays_up_after_its_capture_has_ended(log: Log, tmp_path: Path):
    path = write(tmp_path / "w", line("ADDED", pod("a")))
    async with kubelink(log, CaptureSource([path], events_per_second=100)) as link:
        await complete(link)
        await link.source_ended.wait()
        assert set(await known(log)) == {"Pod/shop/a"}


async def test_a_file_that_is_not_there_is_named(log: Log, tmp_path: Path):
    with pytest.raises(SourceInvalid, match=r"missing\.jsonl"):
        await feed(log, CaptureSource([tmp_path / "missing.jsonl"]), cluster="test")
