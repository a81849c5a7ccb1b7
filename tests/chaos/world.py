"""Everything for real, and every part of it can be killed: Kafka, NATS, two processors, a C-VEN per node of a lab.

History ─▶ lab (namespaces)            C-VENs, each a process
    └────▶ Kubelink ─▶ Kafka ─▶ two processors, each a process ─▶ NATS ─┘
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from compose.embedded.told_source import ToldSource
from compose.lab.cluster.control_plane import ControlPlane
from compose.lab.cluster.reading import read_layout
from compose.lab.network import Lab
from compose.lab.plan import LabNode, Layout
from enforcers.settings import EnforcerSettings
from producers.kubelink import Kubelink
from schemas.objects import KubernetesObject
from streams import topics
from streams.child_process import ChildProcess
from streams.errors import ReadFailed
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.log import Log, Record
from streams.nats.nats_bus import NatsBus
from tests.chaos import lab_enforcer
from tests.chaos.history import NODES
from tests.chaos.lab_enforcer import Job, Progress
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.nats_server import NatsServer
from tests.components.waiting import until
from tests.processors.live_cluster import World as Published

EASTWEST: Final = Path(sys.executable).parent / "eastwest"
PROCESSORS: Final = ("processor-1", "processor-2")
ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("EASTWEST_")}
TAKE_OVER_SECONDS: Final = 2.0
WRITTEN_SECONDS: Final = 60.0
"""For one change to come into the log; Kafka may have to start meanwhile."""


class World:
    """Made by `running`."""

    def __init__(self, folder: Path, cluster: str, kafka: KafkaBroker, nats: NatsServer, lab: Lab) -> None:
        self.folder = folder
        self.cluster = cluster
        self.kafka = kafka
        self.nats = nats
        self.lab = lab
        self.log: Log
        self.kubelink: Kubelink
        self.processors: dict[str, ChildProcess] = {}
        self.enforcers: dict[str, ChildProcess] = {}
        self.source = ToldSource()
        self._plane = ControlPlane(nodes=NODES)

    # --- what happens -------------------------------------------------------------------------------------------------

    def planned(self, objects: list[KubernetesObject]) -> list[KubernetesObject]:
        """*objects* with what a cluster adds to them."""
        return self._plane.complete(objects)

    async def wire(self, completed: list[KubernetesObject]) -> None:
        """Make the network of these objects, and tell the C-VENs where its Pods are."""
        await self.lab.apply(read_layout(completed))
        for node in NODES:
            lab_enforcer.write(self._file(node, "sandboxes"), self.lab.sandboxes(node))

    async def write(self, completed: list[KubernetesObject]) -> None:
        """Return when the log says that these objects are all there are. Raises TimeoutError."""
        async with asyncio.timeout(WRITTEN_SECONDS):
            self.source.tell(completed)
            await self.source.delivered.wait()
            await self.kubelink.settled()

    def start_processor(self, name: str) -> None:
        command = (
            *(EASTWEST, "processor", "--name", name, "--cluster", self.cluster),
            *("--kafka", self.kafka.bootstrap, "--nats", self.nats.url),
            *("--take-over-seconds", str(TAKE_OVER_SECONDS), "--status-seconds", "1"),
        )
        self.processors[name] = self._spawn(name, *map(str, command))

    def start_enforcer(self, node: str) -> None:
        job = Job(
            EnforcerSettings(cluster=self.cluster, node=node, nats=self.nats.url, status_seconds=1.0),
            self.lab.node_netns(node),
            self._file(node, "sandboxes"),
            self._file(node, "progress"),
            self._file(node, "snapshot"),
        )
        command = (sys.executable, lab_enforcer.__file__, lab_enforcer.encode(job).decode())
        self.enforcers[node] = self._spawn(node, *command)

    def _spawn(self, name: str, *command: str) -> ChildProcess:
        return ChildProcess.spawn(
            name, command, log=self.folder / f"{name}.log", folder=self.folder, environment=ENVIRONMENT
        )

    def _file(self, node: str, what: str) -> Path:
        return self.folder / f"{what}-of-{node}"

    # --- what can be seen ---------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, Progress]:
        """What the C-VEN of each node realized last; a dead one's rules stand, and so does its word."""
        files = {node: self._file(node, "progress") for node in NODES}
        return {
            node: lab_enforcer.decode(file.read_bytes(), Progress) if file.exists() else Progress()
            for node, file in files.items()
        }

    def ensure_running(self) -> None:
        """Raises ChildEnded for a process that ended by itself."""
        for process in (*self.processors.values(), *self.enforcers.values()):
            process.ensure_running()

    async def realized(self, revision: int, within_seconds: float = 60.0) -> None:
        """Wait until both nodes have realized *revision* for all their Pods."""

        def there() -> bool:
            self.ensure_running()
            return all(one.revision >= revision and not one.exceptions for one in self.progress().values())

        try:
            await until(f"revision {revision} on every node", there, within_seconds=within_seconds)
        except AssertionError as error:
            tails = "\n".join(f"--- {each!r}\n{each.log_tail(8)}" for each in self._children())
            raise AssertionError(f"{error}\n{self.progress()}\n{tails}") from None

    async def newest(self) -> int:
        """The newest revision."""
        return (await self.log.end()) - 1

    async def records(self) -> list[Record]:
        return [record async for batch in self.log.read(0) for record in batch]

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Published]:
        """What is published, by a connection of its own: the one before may have died with the server."""
        async with KafkaLogs(KafkaSettings(bootstrap=self.kafka.bootstrap)) as logs, NatsBus(self.nats.url) as bus:
            yield Published(self.cluster, logs, self.log, bus, self.nats.url)

    async def owner(self) -> str:
        """Which processor owns the policy stream; waits until one does."""
        async with self.stream() as stream:
            return await until("an owner", stream.holder, ignoring=(ReadFailed,), within_seconds=30)

    def _children(self) -> tuple[ChildProcess, ...]:
        return (*self.processors.values(), *self.enforcers.values())

    async def end(self) -> None:
        for child in self._children():
            await child.kill()


@asynccontextmanager
async def running(folder: Path, cluster: str, kafka: KafkaBroker, nats: NatsServer) -> AsyncGenerator[World]:
    """An empty world: two nodes without Pods. Leaves nothing behind but files."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        layout = Layout(nodes=tuple(LabNode(name=name) for name in NODES))
        world = World(folder, cluster, kafka, nats, await stack.enter_async_context(Lab(layout)))
        logs = await stack.enter_async_context(KafkaLogs(KafkaSettings(bootstrap=kafka.bootstrap)))
        world.log = await logs.open(topics.events(cluster))
        world.kubelink = Kubelink(world.log, world.source, cluster=cluster)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(world.kubelink.run(stop), name="kubelink")
        stack.push_async_callback(world.end)
        stack.callback(stop.set)
        await world.wire(world.planned([]))
        for name in PROCESSORS:
            world.start_processor(name)
        for node in NODES:
            world.start_enforcer(node)
        yield world


async def eastwest(*arguments: str, **environment: str) -> str:
    """The command as a person types it, and its output. Raises AssertionError where it fails."""

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [EASTWEST, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT | environment
        )

    done = await asyncio.to_thread(call)
    assert done.returncode == 0, f"eastwest {' '.join(arguments)}: {done.stderr}"
    return done.stdout
