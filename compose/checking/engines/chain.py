"""The whole chain, for cases: nothing between a case's events and the enforcers' readers is left out.

    History ──▶ SQLite log ──▶ processor ──▶ nats-server ──▶ PolicyReader of each node ──▶ NodePolicy

All cases share the log file and the server; each has a cluster of its own, and a processor that ends with it.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from prometheus_client import CollectorRegistry

from compose.checking.suites.cases import Action, Case, Object
from compose.checking.suites.history import History
from compose.connections import LOG_FILE
from enforcers.core.node_state import NodeState
from processors import processor
from processors.settings import ProcessorSettings
from schemas import names
from schemas.policy import NodeUpdate, Policy
from streams import topics
from streams.channels.inventory_bucket import stream_name
from streams.channels.policy_reader import PolicyReader
from streams.errors import Refused
from streams.log import Entry, Log
from streams.nats.nats_bus import STREAM_NOT_FOUND, NatsBus
from streams.nats.nats_child import NatsChild
from streams.sqlite.sqlite_log import SqliteLogs
from streams.telemetry import Health

ARRIVAL_SECONDS: Final = 60.0
"""How long a step may take to reach all nodes before it counts as lost. On an idle machine: some milliseconds."""
SELDOM_SECONDS: Final = 3600.0
"""Cases are judged by policy; their reports and heartbeats may come once."""

Start = Callable[[Coroutine[Any, Any, None], str], None]
"""Runs a coroutine as a task of that name."""
Updates = AsyncIterator[NodeUpdate]


class NotArrived(Exception):
    """A step's policy did not reach *missing* in time."""

    def __init__(self, revision: int, within_seconds: float, missing: Iterable[str]) -> None:
        self.revision = revision
        self.missing = tuple(missing)
        super().__init__(f"revision {revision} did not arrive within {within_seconds:g} s: {'; '.join(self.missing)}")


class Diverged(Exception):
    """Two nodes hold different members of the address set *identity* at the same revision."""

    def __init__(self, identity: str) -> None:
        super().__init__(f"nodes disagree about the address set {identity}")
        self.identity = identity


class NodePolicy:
    """What one node was told so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = NodeState()
        self.revision = -1
        """Everything up to here is in *state*."""

    def __repr__(self) -> str:
        return f"{self.name} is at revision {self.revision}"


class Audience(Protocol):
    """Whom the nodes are told for."""

    async def prepare(self, objects: Mapping[str, Object]) -> None:
        """Make ready for *objects*, which are about to be written: all there are then, by log key."""
        ...

    async def serve(self, node: str, updates: Updates) -> None:
        """Take what *node* is told, until cancelled."""
        ...


class Listening:
    """The audience that has no use for updates beyond their being remembered."""

    async def prepare(self, objects: Mapping[str, Object]) -> None:
        pass

    async def serve(self, node: str, updates: Updates) -> None:
        async for _ in updates:
            pass


class Feed:
    """One case on its way through the chain."""

    def __init__(self, case: Case, cluster: str, log: Log, bus: NatsBus, *, audience: Audience, start: Start) -> None:
        self.history = History(case)
        self.nodes: dict[str, NodePolicy] = {}
        self.revision = -1
        """Offset of the newest entry written."""
        self._cluster = cluster
        self._log = log
        self._bus = bus
        self._audience = audience
        self._start = start
        self._moved = asyncio.Event()

    async def write(self, actions: Iterable[Action]) -> None:
        """Append what *actions* put into the log; the first time, what exists before them, too.

        Raises `ValueError` for an action that cannot be played, and what the audience's `prepare` raises.
        """
        entries: list[Entry] = []
        if self.revision < 0:
            (self.history.epoch,) = await self._log.append([self.history.opening()])
            entries += self.history.initial()
        entries += self.history.entries(actions)
        await self._audience.prepare(self.history.objects)
        self._listen()
        if entries:
            self.revision = (await self._log.append(entries))[-1]

    async def arrived(self) -> None:
        """Return when every node was told everything that was written. Raises `NotArrived`."""
        try:
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while self._behind():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise NotArrived(self.revision, ARRIVAL_SECONDS, map(repr, self._behind())) from None

    def policy(self) -> Policy:
        """What all nodes together were told. Raises `Diverged`."""
        sets: dict[str, frozenset[bytes]] = {}
        for node in self.nodes.values():
            for identity, tracked in node.state.sets.items():
                if sets.setdefault(identity, frozenset(tracked.told)) != tracked.told:
                    raise Diverged(identity)
        programs = {
            (node.name, program.uid): program
            for node in self.nodes.values()
            for program in node.state.programs.values()
        }
        return Policy(programs=programs, sets=sets)

    def _behind(self) -> list[NodePolicy]:
        return [node for node in self.nodes.values() if node.revision < self.revision]

    def _listen(self) -> None:
        """To every node that Pods are on, or that exists."""
        for name in node_names(self.history.objects.values()):
            if name not in self.nodes:
                self.nodes[name] = NodePolicy(name)
                self._start(self._follow(self.nodes[name]), f"{self._cluster}: {name}")

    async def _follow(self, node: NodePolicy) -> None:
        async with PolicyReader(self._bus, self._cluster, node.name, jitter_seconds=0) as reader:
            await self._audience.serve(node.name, self._remembered(node, reader))

    async def _remembered(self, node: NodePolicy, reader: PolicyReader) -> AsyncGenerator[NodeUpdate]:
        async for update in reader:
            node.state.apply(update)
            if update.mark is not None:
                node.revision = update.mark.revision
                self._moved.set()
            yield update


def node_names(objects: Iterable[Object]) -> list[str]:
    """Nodes by name, in order: those that exist, and those that Pods name."""
    found: dict[str, None] = {}
    for item in objects:
        if item["kind"] == "Node":
            found[item["metadata"]["name"]] = None
        elif item["kind"] == "Pod" and item["spec"].get("nodeName"):
            found[item["spec"]["nodeName"]] = None
    return list(found)


class Chain:
    """The log file and the nats-server in *folder*; an async context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: SqliteLogs
        self._bus: NatsBus
        self._stack = AsyncExitStack()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._logs = await stack.enter_async_context(SqliteLogs(self._folder / LOG_FILE))
            server = await stack.enter_async_context(NatsChild(self._folder / "nats"))
            self._bus = await stack.enter_async_context(NatsBus(server.url, name="eastwest check"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def feed(self, case: Case, audience: Audience) -> AsyncGenerator[Feed]:
        """A cluster and a processor for *case*. What its nodes are told, they are told for *audience*."""
        cluster = f"case-{next(self._numbers)}"
        log = await self._logs.open(topics.events(cluster))
        settings = ProcessorSettings(
            name="check", cluster=cluster, inventory_seconds=SELDOM_SECONDS, status_seconds=SELDOM_SECONDS
        )
        working = processor.run(
            settings, self._logs, self._bus, asyncio.Event(), health=Health(), registry=CollectorRegistry()
        )
        serving: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as tasks:

                def start(coroutine: Coroutine[Any, Any, None], name: str) -> None:
                    serving.append(tasks.create_task(coroutine, name=name))

                start(working, f"{cluster}: processor")
                yield Feed(case, cluster, log, self._bus, audience=audience, start=start)
                for task in serving:
                    task.cancel()
        finally:
            await self._forget(cluster)

    async def _forget(self, cluster: str) -> None:
        """Streams cost the server files and timers, whether or not anyone uses them."""
        for stream in (names.policy_stream(cluster), stream_name(cluster), names.status_stream(cluster)):
            try:
                await self._bus.call(f"STREAM.DELETE.{stream}")
            except Refused as refusal:
                if refusal.error_code != STREAM_NOT_FOUND:
                    raise
