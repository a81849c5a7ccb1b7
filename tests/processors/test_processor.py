"""The processor, on a real nats-server and a real log: owning, standing by, taking over, and bad records."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from schemas.reports import decode_report
from schemas.status import CvenStatus, ProcessorStatus, decode_enforcement
from streams import topics
from streams.channels.inventory_bucket import read_inventory
from streams.channels.status import publish_status, read_status
from streams.child_process import ChildProcess
from streams.errors import ReadFailed
from streams.log import Entry
from streams.nats.nats_bus import NatsBus
from streams.sqlite.sqlite_log import SqliteLogs
from tests.components.waiting import until
from tests.processors.histories import allow, namespace, pod, service
from tests.processors.live_cluster import HeldLogs, World, running

pytestmark = [pytest.mark.nats, pytest.mark.timeout(60)]


@pytest.fixture
async def world(nats, tmp_path: Path) -> AsyncIterator[World]:
    cluster = f"c{uuid.uuid4().hex[:10]}"
    async with SqliteLogs(tmp_path / "log.db") as logs, NatsBus(nats.url) as bus:
        yield World(cluster, logs, await logs.open(topics.events(cluster)), bus, nats.url)


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


async def test_a_partly_allowed_service_is_logged_when_it_appears_and_when_it_ends(world):
    to_db = {"podSelector": {"matchLabels": {"app": "db"}}}
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{"to": [to_db]}]}
    await world.begin()
    await world.writer.put(
        {"kind": "NetworkPolicy", "metadata": {"name": "out", "namespace": "shop"}, "spec": spec},
        pod("db-1", "10.0.0.8", app="db"),
        pod("db-2", "10.0.0.9"),
        *service("db", "10.96.0.1", "10.0.0.8", "10.0.0.9"),
    )
    with structlog.testing.capture_logs() as lines:
        async with running(world, "one"):

            async def logged(event: str) -> str:
                said = [line for line in lines if line["event"] == event and "partial service" in line["message"]]
                assert {(line["cluster"], line["object"]) for line in said} <= {(world.cluster, "Service/shop/db")}
                return said[0]["message"] if said else ""

            warning = await until("the warning", lambda: logged("warning"))
            assert "80/TCP IPv4" in warning
            assert "NetworkPolicy/shop/out" in warning
            assert warning.endswith("not allowed: shop/db-2 (10.0.0.9)")
            assert not await logged("warning ended")

            await world.writer.put(pod("db-2", "10.0.0.9", app="db"))  # nothing but a label: no Service, no policy
            assert await until("its end", lambda: logged("warning ended")) == warning


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


async def test_an_epoch_that_is_being_listed_neither_opens_nor_closes_what_it_has_not_told_yet(world):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        before = await world.published()

        await world.writer.begin()
        revision = await world.writer.put(pod("client-2", "10.0.0.3", app="client"))
        await world.writer.sync(["Pod"])
        await world.marked(revision)
        known = await world.published()
        assert before.programs.keys() < known.programs.keys()
        assert {key: known.programs[key] for key in before.programs} == before.programs
        assert {key: before.sets[key] <= members for key, members in known.sets.items()} == dict.fromkeys(
            before.sets, True
        )

        deny = allow("deny", {"app": "client"}, {"app": "nobody"})
        await world.marked(await world.writer.put(deny))
        isolated = [item.name for item in (await world.published()).programs.values() if item.ingress is not None]
        assert sorted(isolated) == ["client", "client-2", "web"]

        revision = await world.writer.delete(allow("web", {"app": "web"}, {"app": "client"}))  # as its list's end says
        await world.writer.sync()
        await world.marked(revision)
        assert await world.published() == await world.desired()


async def test_the_lag_is_the_distance_to_the_end_of_the_log(world):
    revision = await world.begin()
    kept_waiting = HeldLogs(world.logs)
    async with running(world, "one", logs=kept_waiting):
        await world.marked(revision)
        kept_waiting.goes_on.clear()
        await world.writer.put(*(pod(f"p{number}", f"10.0.1.{number}", app="client") for number in range(1, 8)))

        async def lag_is(records: int) -> bool:
            (heard,) = (await read_status(world.bus, world.cluster)).values()
            return isinstance(heard.status, ProcessorStatus) and heard.status.lag == records

        await until("the lag to be told", lambda: lag_is(7), ignoring=(ReadFailed,))
        kept_waiting.goes_on.set()
        await until("the lag to be over", lambda: lag_is(0), ignoring=(ReadFailed,))


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
        "--data", folder, "--nats", world.url, "--take-over-seconds", "2",
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
        repeated = await world.mark_sequence() + 5

        async def five_heartbeats_later() -> bool:  # twice the limit of the standby
            return await world.mark_sequence() >= repeated

        await until("the mark to be repeated five times", five_heartbeats_later)
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


async def test_what_enforcers_confirm_is_written_down_when_it_changes(world):
    revision = await world.begin()
    kept = await world.logs.open(topics.status(world.cluster))

    async def confirmed() -> list[tuple[str, int, int]]:
        records = [record async for batch in kept.read(0) for record in batch]
        said = [decode_enforcement(record.value) for record in records]
        assert [record.key for record in records] == [each.node for each in said]
        return [(each.node, each.realized, each.healed) for each in said]

    async def say(realized: int, heartbeat: str, healed: int = 0) -> None:
        status = CvenStatus(node="n1", heartbeat=heartbeat, realized=realized, healed=healed)
        await publish_status(world.bus, world.cluster, status)

    async def number(count: int) -> bool:
        return len(await confirmed()) >= count

    async with running(world, "one"):
        await world.marked(revision)
        await say(revision, "t1")
        await until("the revision to be written down", lambda: number(1))
        await say(revision, "t2")
        await say(revision, "t3", healed=1)
        await until("the tampering to be written down", lambda: number(2))
    assert await confirmed() == [("n1", revision, 0), ("n1", revision, 1)]


async def test_a_program_too_large_for_a_message_is_named_and_stops_no_other(world):
    await world.begin()
    many = allow("many", {"app": "huge"}, {"app": "client"})
    many["spec"]["ingress"] = [{"ports": [{"port": port}]} for port in range(1, 16_000)]
    revision = await world.writer.put(many, pod("huge", "10.0.0.8", app="huge"), pod("late", "10.0.0.9", app="web"))
    async with running(world, "one"):
        await world.marked(revision)
        assert {program.name for program in (await world.published()).programs.values()} == {"client", "late", "web"}

        async def errors() -> list[str]:
            values = await read_inventory(world.bus, world.cluster)
            return [error.object for error in decode_report("summary", values["summary"]).errors]

        assert await until("an error on the Pod", errors, ignoring=(ReadFailed, KeyError)) == ["Pod/shop/huge"]


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
