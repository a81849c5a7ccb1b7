"""Rows from an event to the kernel: an event is appended to the log, and a Pod's ipset has the new member.

ours   append ─▶ log ─▶ processor ─▶ NATS stream ─▶ C-VEN ─▶ ipset
limit  append ─▶ log ─▶ follower ──▶ NATS stream ─▶ subscriber ─▶ ipset

The limit folds nothing, acknowledges nothing and knows no order: every event is one message and one member. Both run in
one process, as in the embedded world, with a Pod's namespace that has no way out.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec.structs import replace
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry

from compose.lab.capability import obstacles
from enforcers.core import set_rendering
from enforcers.core.difference import Membership
from enforcers.core.layout import set_name
from enforcers.core.netlink import ipset
from enforcers.enforcer import Enforcer
from enforcers.kernel import namespaces
from enforcers.kernel.sets.set_backends import NetlinkSets
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.settings import EnforcerSettings
from processors import processor
from processors.settings import ProcessorSettings
from schemas import addresses
from schemas.objects import Pod
from schemas.sets import SetKind, set_id
from streams import topics
from streams.kafka.kafka_log import KafkaLogs
from streams.log import Entry, Log, Logs
from streams.nats.nats_bus import NatsBus
from streams.nats.nats_child import NatsChild
from streams.sqlite.sqlite_log import SqliteLogs
from streams.telemetry import Health
from tests.bench import brokers, workloads
from tests.bench.measuring import Figure, Unavailable, at_least, quantile, settled_memory
from tests.components.waiting import until
from tests.enforcers.pod_world import World, made_world

RATE: Final = 1000
"""Events per second."""
EVENTS: Final = 5000
"""Each changes another Pod, so that none replaces one that is still under way."""
SPAWNED: Final = 100
SPAWNED_RATE: Final = 20
"""Spawning is far too slow for more."""
WARM_SHARE: Final = 0.2
"""The first events of a run, which do not count."""
ARRIVAL_SECONDS: Final = 60.0
NODE: Final = "bench-node"
BARE_SET: Final = set_id(SetKind.ADDRESSES, "bench")

Opened = Callable[[Path, AsyncExitStack], Awaitable[Logs]]
Apply = Callable[[bytes], Awaitable[None]]
"""Has the kernel add one member."""


def embedded(scale: float) -> list[Figure]:
    """From the SQLite log; 1,000 events per second. Ratio: times the limit."""
    return _measured("event-to-kernel-embedded", _sqlite, scale, p50_goal_seconds=1.5e-3)


def kafka(scale: float) -> list[Figure]:
    """From a real Apache Kafka; 1,000 events per second. Ratio: times the limit."""
    return _measured("event-to-kernel-kafka", _kafka, scale)


async def _sqlite(folder: Path, stack: AsyncExitStack) -> Logs:
    return await stack.enter_async_context(SqliteLogs(folder / "log.db"))


async def _kafka(folder: Path, stack: AsyncExitStack) -> Logs:
    _, settings = await stack.enter_async_context(brokers.kafka(folder))
    return await stack.enter_async_context(KafkaLogs(settings))


def _measured(row: str, opened: Opened, scale: float, *, p50_goal_seconds: float | None = None) -> list[Figure]:
    if found := obstacles():
        raise Unavailable("; ".join(f"{each.what}; {each.remedy}" for each in found))
    # No uvloop: the C-VEN does without it as well.
    bare, ours, spawned = asyncio.run(_all(opened, at_least(EVENTS * scale, 50), at_least(SPAWNED * scale, 10)))
    figures = []
    for name, share in ((row, 0.5), (f"{row}-p99", 0.99)):
        limit, mine, other = (quantile(each, share) for each in (bare, ours, spawned))
        goal, holds = "≤ 1.3 times the limit", mine <= 1.3 * limit
        if p50_goal_seconds is not None and share == 0.5:
            goal, holds = f"≤ {p50_goal_seconds * 1e3:g} ms", mine <= p50_goal_seconds
        figures.append(
            Figure(
                row=name,
                unit="ms",
                ours=mine * 1e3,
                limit=limit * 1e3,
                alternative=other * 1e3,
                alternative_name=f"the limit's chain, spawning ipset, {SPAWNED_RATE} events/s",
                ratio=mine / limit,
                goal=goal,
                holds=holds,
            )
        )
    return figures


async def _all(opened: Opened, events: int, spawned: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds per event of the limit, of ours, and of the alternative."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="eastwest-bench-")))
        logs = await opened(folder, stack)
        world = stack.enter_context(made_world())
        nats = await stack.enter_async_context(NatsChild(folder / "nats"))
        bus = await stack.enter_async_context(NatsBus(nats.url, name="bench"))
        made = f"create {set_name(BARE_SET, 4)} {set_rendering.shape(BARE_SET, 4, events)}\n"
        world.command("a", "ipset", "restore", text=made)

        netlink = stack.enter_context(NetlinkSocket(world.path("a"), NETLINK_NETFILTER))

        async def directly(member: bytes) -> None:
            for request in ipset.changes(BARE_SET, 4, (member,), adding=True):
                netlink.request(request)

        async def spawning(member: bytes) -> None:
            line = f"add {set_name(BARE_SET, 4)} {addresses.unpack(member)}\n"
            await namespaces.run(world.path("a"), ["ipset", "restore", "-exist"], line)

        bare = await _bare("bare", logs, bus, directly, _changes(events), rate=RATE)
        ours = await _ours(logs, bus, world, events)
        other = await _bare("spawning", logs, bus, spawning, _changes(spawned), rate=SPAWNED_RATE)
        return bare, ours, other


# --- events and their times ------------------------------------------------------------------------------------------


class Times:
    """When each new address was told, and when the kernel had it."""

    def __init__(self) -> None:
        self._told: dict[bytes, float] = {}
        self._seconds: list[float] = []

    def tell(self, member: bytes) -> None:
        self._told[member] = time.perf_counter()

    def arrive(self, members: Iterable[bytes]) -> None:
        now = time.perf_counter()
        self._seconds += [now - told for member in members if (told := self._told.pop(member, None)) is not None]

    async def complete(self, events: int) -> list[float]:
        """Seconds of each event, once all have arrived, without the first ones."""
        await until(
            f"{events} members in the kernel",
            lambda: len(self._seconds) >= events,
            within_seconds=ARRIVAL_SECONDS,
            poll_seconds=0.1,
        )
        return self._seconds[int(events * WARM_SHARE) :]


def _clients(count: int, *, first_address: int = 0) -> list[Pod]:
    return [
        workloads.pod("shop", f"client-{number}", first_address + number, {"app": "client"}) for number in range(count)
    ]


def _changes(count: int) -> list[Pod]:
    """Every client with another address."""
    return _clients(count, first_address=count)


def _member(pod: Pod) -> bytes:
    return addresses.pack(pod.status.pod_ip)


async def _emit(log: Log, changed: Sequence[Pod], times: Times, rate: float) -> None:
    """Append an event for each of *changed*, *rate* a second; those that come during an append make the next one."""
    waiting: list[Entry] = []
    arrived = asyncio.Event()

    async def write() -> None:
        written = 0
        while written < len(changed):
            await arrived.wait()
            arrived.clear()
            batch = waiting[:]
            waiting.clear()
            await log.append(batch)
            written += len(batch)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write(), name="write events")
        began = time.perf_counter()
        for number, pod in enumerate(changed):
            early = began + number / rate - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            waiting.append(workloads.entry(pod))
            times.tell(_member(pod))
            arrived.set()


# --- the limit -------------------------------------------------------------------------------------------------------


async def _bare(
    name: str, logs: Logs, bus: NatsBus, apply: Apply, changed: Sequence[Pod], *, rate: float
) -> list[float]:
    log, times = await logs.open(topics.events(f"bench-{name}")), Times()
    await bus.apply_stream(
        {
            "name": f"BENCH-{name}",
            "subjects": [f"bench.{name}.>"],
            "republish": {"src": f"bench.{name}.>", "dest": f"live.bench.{name}.>"},
            "storage": "file",
        }
    )

    async def take(message: Msg) -> None:
        await apply(message.data)
        times.arrive((message.data,))

    async def follow() -> None:
        members = {workloads.entry(pod).key: _member(pod) for pod in changed}
        async with aclosing(log.read(0, follow=True)) as batches:
            async for records in batches:
                for record in records:
                    await bus.publish(f"bench.{name}.{record.offset}", members[record.key])

    subscription = await bus.subscribe(f"live.bench.{name}.>", take)
    with settled_memory():
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow(), name="follow")
            await _emit(log, changed, times, rate)
            seconds = await times.complete(len(changed))
            following.cancel()
    await bus.unsubscribe(subscription)
    return seconds


# --- ours ------------------------------------------------------------------------------------------------------------


class Watched(NetlinkSets):
    """Says when the kernel has taken what was added."""

    def __init__(self, opened: Callable[[], NetlinkSocket], times: Times) -> None:
        super().__init__(opened)
        self._times = times

    async def change(self, memberships: Iterable[Membership]) -> None:
        given = list(memberships)
        await super().change(given)
        for each in given:
            self._times.arrive(each.added)


async def _ours(logs: Logs, bus: NatsBus, world: World, events: int) -> list[float]:
    log, times = await logs.open(topics.events("bench")), Times()
    web = workloads.pod("shop", "web", 2 * events, {"app": "web"}, node=NODE)
    clients, changed = _clients(events), _changes(events)
    selected = workloads.policy("shop", "web", {"app": "web"}, workloads.peer({"app": "client"}))
    offsets = await log.append(
        workloads.entries([workloads.namespace("shop"), web, selected, *clients, *workloads.small(100)])
    )
    assert offsets[0] == 0, "the events name the epoch by its offset"
    async with _enforcing(logs, bus, world, web) as enforcer:
        await asyncio.wait_for(enforcer.cven.realized(offsets[-1]), ARRIVAL_SECONDS)
        pod = enforcer.cven.node.pods[web.metadata.uid]
        pod.tables._sets = Watched(pod._netlink.opened, times)
        await _emit(log, changed, times, RATE)
        seconds = await times.complete(events)
        await asyncio.wait_for(enforcer.cven.realized(await log.end() - 1), ARRIVAL_SECONDS)
    held = world.command("web", "ipset", "save")
    absent = [each.status.pod_ip for each in changed if f" {each.status.pod_ip}\n" not in held]
    assert not absent, f"{len(absent)} members are not in the kernel, {absent[0]} first"
    return seconds


@asynccontextmanager
async def _enforcing(logs: Logs, bus: NatsBus, world: World, web: Pod) -> AsyncIterator[Enforcer]:
    """A processor, and the C-VEN of *web*'s node; ended when left."""
    health, registry, stop = Health(), CollectorRegistry(), asyncio.Event()
    sandbox = replace(world.sandbox(), uid=web.metadata.uid)
    enforcer = Enforcer(
        EnforcerSettings(cluster="bench", node=NODE),
        bus,
        GivenRuntime([sandbox]),
        node_netns=world.path("node"),
        health=health,
        registry=registry,
    )
    settings = ProcessorSettings(cluster="bench", name="bench")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(processor.run(settings, logs, bus, stop, health=health, registry=registry), name="processor")
        tasks.create_task(enforcer.run(stop, jitter_seconds=0), name="C-VEN")
        yield enforcer
        stop.set()
