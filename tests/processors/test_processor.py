"""The processor, on a real nats-server and a real log: owning, standing by, taking over, and bad records."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from processors import processor
from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from schemas import names
from schemas.policy import Mark, Policy, decode_fence, decode_mark
from schemas.reports import decode_report
from streams import topics
from streams.child_process import ChildProcess
from streams.core.publication import Publication
from streams.errors import ReadFailed
from streams.inventory_bucket import read_inventory
from streams.log import Entry, Log
from streams.nats_bus import NatsBus
from streams.sqlite_log import SqliteLogs
from streams.status import read_status
from streams.stream_reading import read_stream
from streams.telemetry import Health
from tests.components.waiting import until
from tests.processors.histories import Writer, allow, namespace, node, pod

pytestmark = [pytest.mark.nats, pytest.mark.timeout(60)]


class World:
    """One cluster: its log, its bus, and what is published of it."""

    def __init__(self, cluster: str, logs: SqliteLogs, events: Log, bus: NatsBus, url: str) -> None:
        self.cluster = cluster
        self.logs = logs
        self.events = events
        self.bus = bus
        self.url = url
        self.writer = Writer(events)

    async def begin(self) -> int:
        """A shop with a policy, completely listed."""
        await self.writer.begin()
        revision = await self.writer.put(
            namespace("shop"),
            node("n1", "192.0.2.1"),
            pod("web", "10.0.0.1", app="web"),
            pod("client", "10.0.0.2", app="client"),
            allow("web", {"app": "web"}, {"app": "client"}),
        )
        await self.writer.sync()
        return revision

    async def mark(self) -> Mark | None:
        message = await self.bus.last_message(names.policy_stream(self.cluster), names.mark_subject(self.cluster))
        return decode_mark(message.data) if message else None

    async def mark_sequence(self) -> int:
        return await self._last(names.mark_subject(self.cluster))

    async def fence_sequence(self) -> int:
        return await self._last(names.fence_subject(self.cluster))

    async def _last(self, subject: str) -> int:
        message = await self.bus.last_message(names.policy_stream(self.cluster), subject)
        return int(message.headers["Nats-Sequence"]) if message and message.headers else 0

    async def holder(self) -> str:
        message = await self.bus.last_message(names.policy_stream(self.cluster), names.fence_subject(self.cluster))
        return decode_fence(message.data).name if message else ""

    async def published(self) -> Policy:
        stored = await read_stream(
            self.bus, names.policy_stream(self.cluster), names.policy_subjects(self.cluster), last_only=False
        )
        below = len(names.policy_subjects(self.cluster)) - 1
        return Publication(max_payload=self.bus.max_payload).read((one.subject[below:], one) for one in stored)

    async def sequence(self) -> int:
        """Messages ever stored in the policy stream, marks left out: nothing is said about them in a difference."""
        stored = await read_stream(
            self.bus, names.policy_stream(self.cluster), names.policy_subjects(self.cluster), last_only=False
        )
        return max(one.sequence for one in stored if not one.subject.endswith((".mark", ".fence")))

    async def desired(self) -> Policy:
        """What a fold of the log says."""
        fold = ClusterFold(self.cluster, ProcessorSettings().policy)
        async for records in self.events.read(0):
            fold.advance(records)
        return fold.policy()

    async def marked(self, revision: int) -> None:
        async def there() -> bool:
            mark = await self.mark()
            return mark is not None and mark.revision >= revision

        await until(f"a mark at revision {revision}", there, ignoring=(ReadFailed,))

    async def held_by(self, name: str) -> None:
        async def holds() -> bool:
            return await self.holder() == name

        await until(f"{name} to own the stream", holds, ignoring=(ReadFailed,))


@pytest.fixture
async def world(nats, tmp_path: Path) -> AsyncIterator[World]:
    cluster = f"c{uuid.uuid4().hex[:10]}"
    async with SqliteLogs(tmp_path / "log.db") as logs, NatsBus(nats.url) as bus:
        yield World(cluster, logs, await logs.open(topics.events(cluster)), bus, nats.url)


@asynccontextmanager
async def running(world: World, name: str, **changes: object) -> AsyncIterator[asyncio.Task[None]]:
    """A processor with its own connection; drained at the end, unless the test killed it."""
    settings = ProcessorSettings(
        name=name,
        cluster=world.cluster,
        **{"take_over_seconds": 1.0, "inventory_seconds": 0.05, "status_seconds": 0.5} | changes,
    )
    stop = asyncio.Event()
    async with NatsBus(world.url) as bus:
        task = asyncio.create_task(
            processor.run(settings, world.logs, bus, stop, health=Health(), registry=CollectorRegistry()), name=name
        )
        try:
            yield task
            stop.set()
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def kill(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_log_becomes_programs_sets_and_reports(world):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        assert await world.published() == await world.desired()
        assert {program.name for program in (await world.published()).programs.values()} >= {"web"}

        async def inventory() -> dict[str, bytes]:
            found = await read_inventory(world.bus, world.cluster)
            return found if "summary" in found and "profile.shop" in found else {}

        values = await until("the inventory", inventory, ignoring=(ReadFailed,))
        web = decode_report("container-workload.shop.web", values["container-workload.shop.web"])
        assert web.policies == ("NetworkPolicy/shop/web",)
        assert decode_report("summary", values["summary"]).synced

        revision = await world.writer.delete(pod("web", "10.0.0.1", app="web"))
        await world.marked(revision)
        assert await world.published() == await world.desired()

        async def gone() -> bool:
            return "container-workload.shop.web" not in await read_inventory(world.bus, world.cluster)

        await until("the report to be gone", gone, ignoring=(ReadFailed,))


async def test_a_processor_says_whether_it_owns_and_how_far_it_is(world):
    revision = await world.begin()
    async with running(world, "one"), running(world, "two"):
        await world.marked(revision)

        async def roles() -> dict[str, bool]:
            heard = (found.status for found in (await read_status(world.bus, world.cluster)).values())
            found = {status.name: status.owner for status in heard if status.revision >= revision}
            return found if sorted(found.values()) == [False, True] else {}

        assert sorted(await until("both to speak", roles, ignoring=(ReadFailed,))) == ["one", "two"]


async def test_nothing_is_published_before_every_kind_is_listed(world):
    await world.writer.begin()
    revision = await world.writer.put(namespace("shop"), pod("web", "10.0.0.1", app="web"))
    await world.writer.sync(["Namespace", "Pod"])
    async with running(world, "one") as task:
        with pytest.raises(AssertionError, match="a mark"):
            await asyncio.wait_for(until("a mark", world.mark, within_seconds=1.0, ignoring=(ReadFailed,)), timeout=10)
        assert not task.done()
        await world.writer.sync(["Node", "NetworkPolicy", "Service", "EndpointSlice"])
        await world.marked(revision)


async def test_a_standby_takes_over_when_the_owner_is_killed_and_publishes_only_what_differs(world):
    revision = await world.begin()
    async with running(world, "one") as one:
        await world.marked(revision)
        async with running(world, "two"):
            before = await world.sequence()
            await kill(one)
            await world.held_by("two")
            await world.marked(revision)
            assert await world.sequence() == before

            revision = await world.writer.put(pod("client-2", "10.0.0.3", app="client"))
            await world.marked(revision)
            assert await world.published() == await world.desired()


async def test_a_paused_owner_wakes_and_can_write_nothing_and_then_stands_by(world, tmp_path):
    revision = await world.begin()
    async with process(world, tmp_path, "one") as one:
        await world.held_by("one")
        await world.marked(revision)
        async with process(world, tmp_path, "two") as two:
            await until("the second to have folded", lambda: "folded" in two.log.read_text())
            one.signal(signal.SIGSTOP)
            revision = await world.writer.put(pod("client-2", "10.0.0.3", app="client"))
            await world.held_by("two")
            await world.marked(revision)
            fence = await world.fence_sequence()

            one.signal(signal.SIGCONT)
            revision = await world.writer.put(pod("client-3", "10.0.0.4", app="client"))
            await until("the first to notice", lambda: "another processor took over" in one.log.read_text())
            await world.marked(revision)
            assert await world.published() == await world.desired()
            assert await world.fence_sequence() == fence

            await two.end()
            await world.held_by("one")
            assert await world.published() == await world.desired()


@asynccontextmanager
async def process(world: World, folder: Path, name: str) -> AsyncIterator[ChildProcess]:
    """`eastwest processor` on the world's log."""
    command = [
        Path(sys.executable).with_name("eastwest"), "processor", "--name", name, "--cluster", world.cluster,
        "--data", folder, "--nats", world.url, "--take-over-seconds", "1",
    ]  # fmt: skip
    child = ChildProcess.spawn(name, command, log=folder / f"{name}.log")
    try:
        yield child
    finally:
        await child.kill()


async def test_what_happened_while_nobody_owned_is_published_as_a_difference(world):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
    revision = await world.writer.put(pod("client-2", "10.0.0.3", app="client"))
    revision = await world.writer.delete(pod("client", "10.0.0.2"))
    async with running(world, "one"):  # its own predecessor's stream: it does not wait for the mark to age
        await world.marked(revision)
        assert await world.published() == await world.desired()


async def test_a_standby_leaves_a_living_owner_alone(world):
    revision = await world.begin()
    async with running(world, "one"), running(world, "two"):
        await world.marked(revision)
        for number in range(4, 8):
            revision = await world.writer.put(pod(f"p{number}", f"10.0.0.{number}", app="client"))
            await world.marked(revision)
        fence = await world.fence_sequence()
        repeated = await world.mark_sequence() + 3

        async def three_heartbeats_later() -> bool:  # three times the limit of the standby
            return await world.mark_sequence() >= repeated

        await until("the mark to be repeated three times", three_heartbeats_later)
        assert await world.fence_sequence() == fence


async def test_a_record_that_cannot_be_read_is_set_aside_once_and_stops_nothing(world):
    await world.begin()
    (bad,) = await world.events.append([Entry("Pod/shop/web", b'{"type":"ADDED","kind":"Po')])
    revision = await world.writer.put(pod("other", "10.0.0.9", app="client"))
    dead = await world.logs.open(topics.dead(world.cluster))

    async def letters() -> list[tuple[str, bytes | None, dict[str, bytes]]]:
        return [(record.key, record.value, dict(record.headers)) async for batch in dead.read(0) for record in batch]

    async with running(world, "one") as one:
        await world.marked(revision)
        assert await world.published() == await world.desired()
        found = await until("a dead letter", letters)
        await kill(one)
    async with running(world, "one"):
        (second,) = await world.events.append([Entry("Pod/shop/web", b"[]")])

        async def two() -> bool:
            return len(await letters()) >= 2

        await until("the second dead letter", two)
        found = await letters()
    topic = world.events.topic.name
    assert [key for key, _, _ in found] == [f"{topic}/{bad}", f"{topic}/{second}"]
    assert found[0][1] == b'{"type":"ADDED","kind":"Po'
    assert b"truncated" in found[0][2]["reason"]


async def test_a_stream_that_was_lost_is_written_again(world, nats):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        await nats.kill()
        await nats.wipe()
        await nats.start()
        await world.marked(revision)
        assert await world.published() == await world.desired()


async def test_one_processor_serves_several_clusters(world):
    other = World(
        f"{world.cluster}-b",
        world.logs,
        await world.logs.open(topics.events(f"{world.cluster}-b")),
        world.bus,
        world.url,
    )
    first, second = await world.begin(), await other.begin()
    async with running(world, "one", clusters=(world.cluster, other.cluster)):
        await world.marked(first)
        await other.marked(second)
        assert (await other.published()).programs == (await world.published()).programs
