"""Captures as a source: recorded watch streams, lists, and eastwest's own exports, played from their beginning."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from producers.core.captures import Capture
from producers.core.decoding import decode_object
from producers.core.observations import ClusterSeen, Observation, Observed, Trouble, Unreadable
from producers.errors import SourceInvalid
from producers.source import Deliver
from schemas.events import CLUSTER, EPOCH, KINDS, SYNC, Epochs, Event, decode_cluster_info
from schemas.records import read_record
from schemas.unreadable import UNREADABLE
from streams.errors import StreamError
from streams.sqlite.sqlite_log import SqliteLogs

BATCH_OBSERVATIONS: Final = 500
_SQLITE: Final = b"SQLite format 3\0"
_EVENTS: Final = ".events.v1"


class CaptureSource:
    """Plays the files in *paths* in this order, as one history; then it has ended. A folder means its files, sorted.

    *events_per_second* slows it down for whoever watches; 0 (the default) is as fast as the log takes it.
    """

    def __init__(
        self, paths: Sequence[Path], *, kinds: tuple[str, ...] = KINDS, events_per_second: float = 0.0
    ) -> None:
        self._paths = tuple(paths)
        self._kinds = kinds
        self._pause_seconds = 1 / events_per_second if events_per_second else 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        return self._kinds

    async def check(self) -> Sequence[Trouble]:
        """See `Source.check`. Raises `SourceInvalid` for a file that cannot be opened."""
        for path in await asyncio.to_thread(_files, self._paths):
            await asyncio.to_thread(_is_export, path)
        return ()

    async def observing(self, deliver: Deliver) -> None:
        """See `Source.observing`. Raises `SourceInvalid` for a file that cannot be opened."""
        capture = Capture(self._kinds)
        await deliver(capture.begin())
        for path in await asyncio.to_thread(_files, self._paths):
            if await asyncio.to_thread(_is_export, path):
                await self._play_export(path, capture, deliver)
            else:
                body = await asyncio.to_thread(_content, path)
                await self._play(capture.file(body, str(path)), deliver)
        await deliver(capture.end())

    async def _play(self, observations: Iterable[Observation], deliver: Deliver) -> None:
        ordered = iter(observations)
        size = 1 if self._pause_seconds else BATCH_OBSERVATIONS
        while batch := list(islice(ordered, size)):
            await deliver(batch)
            if self._pause_seconds:
                await asyncio.sleep(self._pause_seconds)

    async def _play_export(self, path: Path, capture: Capture, deliver: Deliver) -> None:
        try:
            async for batch in _events(path):
                await self._play([seen for event in batch for seen in _observe(event, capture, self._kinds)], deliver)
        except StreamError as error:
            raise SourceInvalid(str(path), str(error)) from error


async def _events(path: Path) -> AsyncIterator[list[Event]]:
    """The events that count, of the one events topic in the export *path*."""
    async with SqliteLogs(path) as logs:
        topics = [topic for topic in await logs.topics() if topic.name.endswith(_EVENTS)]
        if len(topics) != 1:
            raise SourceInvalid(str(path), f"holds {len(topics)} topics of events; one is played")
        log = await logs.open(topics[0])
        epochs = Epochs()
        async for records in log.read(0):
            counting = []
            for record in records:
                if record.value is None:
                    continue
                try:
                    event = read_record(record.key, record.value)
                    counts = epochs.admit(record.offset, event)
                except UNREADABLE:
                    continue  # every reader ignores it
                if counts:
                    counting.append(event)
            yield counting


def _observe(event: Event, capture: Capture, kinds: tuple[str, ...]) -> Iterable[Observation]:
    if event.kind == SYNC:
        return capture.synced(event.name)
    if event.kind == CLUSTER:
        return [ClusterSeen(decode_cluster_info(event.object))]
    if event.kind == EPOCH:
        return []
    if event.kind not in kinds:
        return [Trouble(event.key, "of a kind that is not played")]
    item = decode_object(event.kind, event.object)
    if isinstance(item, Unreadable):
        return [msgspec.structs.replace(item, namespace=event.namespace, name=event.name)]
    replace = msgspec.structs.replace
    return [
        Observed(event.type, replace(item, metadata=replace(item.metadata, resource_version=event.resource_version)))
    ]


def _files(paths: Iterable[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def _is_export(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise SourceInvalid(str(path), error.strerror or str(error)) from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceInvalid(str(path), error.strerror or str(error)) from error
