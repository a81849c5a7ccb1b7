"""Two `eastwest kubelink` processes, a real API server, a real Kafka: who was paused may write, and nobody listens."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from schemas.events import EPOCH, decode_epoch_start, decode_event
from streams.child_process import ChildProcess
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.log import Log, Record
from streams.topics import events
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.kubernetes.control_plane import ControlPlane
from tests.components.waiting import until
from tests.producers.reading import compacted, fold, records
from tests.producers.test_api_server import create, delete, namespace

pytestmark = [pytest.mark.apiserver, pytest.mark.kafka, pytest.mark.timeout(400)]

CLUSTER = "kl-paused"
TURNS = 30
"""Sleepers that may wake, four seconds each, until one writes before it hears that it was replaced: the first, mostly;
on a busy machine none of eight did."""


@asynccontextmanager
async def process(server: ControlPlane, kafka: KafkaBroker, folder: Path, name: str) -> AsyncIterator[ChildProcess]:
    command = [
        Path(sys.executable).with_name("eastwest"), "kubelink", "--cluster", CLUSTER, "--kafka", kafka.bootstrap,
        "--kubeconfig", server.kubeconfig, "--lease", "default/kl-paused", "--lease-seconds", "2",
    ]  # fmt: skip
    child = ChildProcess.spawn(name, command, log=folder / f"{name}.log")
    try:
        yield child
    finally:
        os.kill(child.pid, signal.SIGCONT)
        await child.kill()


def newest_epoch(stored: list[Record]) -> tuple[int, int]:
    """The newest epoch and the process that began it; -1 and 0: none yet."""
    for record in reversed(stored):
        if record.key == f"{EPOCH}/-/-" and record.value is not None:
            return record.offset, int(decode_epoch_start(decode_event(record.value).object).writer.rpartition("/")[2])
    return -1, 0


def late_writes(stored: list[Record]) -> list[str]:
    """Keys of the records that a replaced writer wrote behind its successor's epoch."""
    late, newest = [], -1
    for record in stored:
        if record.value is not None:
            event = decode_event(record.value)
            if event.kind == EPOCH:
                newest = record.offset
            elif event.epoch < newest:
                late.append(record.key)
    return late


async def test_what_a_paused_kubelink_writes_when_it_wakes_is_ignored_and_it_stands_by(
    apiserver: ControlPlane, kafka: KafkaBroker, tmp_path: Path
):
    space = await namespace(apiserver)
    async with AsyncExitStack() as stack:
        logs = await stack.enter_async_context(KafkaLogs(KafkaSettings(bootstrap=kafka.bootstrap)))
        log = await logs.open(events(CLUSTER))
        both = [await stack.enter_async_context(process(apiserver, kafka, tmp_path, name)) for name in ("one", "two")]
        expected: set[str] = set()
        for turn in range(TURNS):
            epoch, leader = await until("a complete epoch", lambda: led(log))
            paused = next(child for child in both if child.pid == leader)
            paused.signal(signal.SIGSTOP)
            # The kernel takes in for the sleeper what the API server tells: it has it at hand when it wakes.
            await create(apiserver, space, f"a{turn}", f"b{turn}")
            await delete(apiserver, space, f"a{turn}")
            expected.add(f"b{turn}")

            async def taken_over(since: int = epoch) -> bool:
                found = await led(log)
                return found is not None and found[0] > since

            await until("the other one to take over", taken_over, within_seconds=30)
            before = paused.log.read_text().count("standby")
            paused.signal(signal.SIGCONT)
            await until("the sleeper to stand by", lambda p=paused, n=before: p.log.read_text().count("standby") > n)

            async def known(space: str = space) -> bool:
                return all(pods(stored, space) == expected for stored in await ways(log))

            await until("every reader to know what exists", known, within_seconds=30)
            assert (await led(log) or (0, 0))[1] != paused.pid
            if late_writes(await records(log)):
                break
        assert late_writes(await records(log)), "no sleeper was quick enough to write anything"


async def led(log: Log) -> tuple[int, int] | None:
    """The newest epoch and its process, once every kind is listed in it."""
    stored = await records(log)
    return newest_epoch(stored) if fold(stored)[1].complete else None


async def ways(log: Log) -> tuple[list[Record], list[Record]]:
    stored = await records(log)
    return stored, compacted(stored)


def pods(stored: list[Record], space: str) -> set[str]:
    return {key.rpartition("/")[2] for key in fold(stored)[0] if key.startswith(f"Pod/{space}/")}
