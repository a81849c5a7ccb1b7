"""eastwest beside a real cluster, as its manifests would run it: each role a process, on the machine it belongs to.

::

    control plane's machine   Kafka, nats-server, `eastwest kubelink` (as its service account), `eastwest processor`
    every node                `eastwest enforcer`, on that node's containerd socket
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp

from producers.core.decoding import decode_page
from producers.core.reflector import project
from producers.core.resources import RESOURCES
from schemas import names
from schemas.events import KINDS
from schemas.policy import Policy
from schemas.status import Component, CvenStatus
from streams import topics
from streams.channels.reporting import now
from streams.channels.status import Heard, Place, read_status
from streams.child_process import ChildProcess
from streams.core.publication import Publication
from streams.errors import LogUnavailable, ReadFailed
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.log import Record
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import read_stream
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.kubernetes.cluster import Cluster
from tests.components.kubernetes.node import Node
from tests.components.namespaces import inside, inside_command
from tests.components.nats_server import NatsServer
from tests.components.waiting import until
from tests.producers.reading import fold

T = TypeVar("T")

EASTWEST: Final = Path(sys.executable).parent / "eastwest"
MANIFESTS: Final = Path(__file__).parent.parent.parent / "compose" / "kubernetes"
LISTEN: Final = {"kubelink": "127.0.0.1:9451", "processor": "127.0.0.1:9452", "enforcer": "127.0.0.1:9461"}
"""Each on its own machine, so that numbers are free."""
ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if not name.startswith("EASTWEST_")}


class Stack:
    """``async with Stack(cluster, folder, jars) as stack``: everything runs and has enforced what the cluster has.

    The cluster's log is called *name*. Processes are ended by pid; rules go with the Pods' namespaces.
    """

    def __init__(self, cluster: Cluster, folder: Path, jars: Path, *, name: str = "real") -> None:
        self.cluster = cluster
        self.folder = folder
        self.name = name
        self.kafka = KafkaBroker(folder / "kafka", jars, address=cluster.address, namespace=cluster.namespace)
        self.nats = NatsServer(
            folder / "nats", host=cluster.address, port=4222, launcher=inside_command(cluster.namespace)
        )
        self.kubelink: ChildProcess
        self.processor: ChildProcess
        self.enforcers: dict[str, ChildProcess] = {}
        """By name of node."""
        self._started: list[ChildProcess] = []
        self.since: dict[str, str] = {}
        """Node → when its enforcer was started: what was said before counts no more."""
        self._exit = AsyncExitStack()

    async def up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._exit.enter_async_context(self.kafka), name="kafka")
            tasks.create_task(self._exit.enter_async_context(self.nats), name="nats")
            manifest = str(MANIFESTS / "00-namespace.yaml")
            tasks.create_task(self.cluster.kubectl("apply", "-f", manifest), name="namespace")
        self.kubelink = self.start_kubelink(await self._kubelink_kubeconfig())
        self.processor = self.spawn("processor", "--status-seconds", "1")
        await self.start_enforcers()
        await self.enforced()

    async def start_enforcers(self) -> None:
        """One per node; how they run may differ."""
        for node in self.cluster.nodes:
            self.start_enforcer(node)

    async def down(self) -> None:
        for process in reversed(self._started):
            await process.end()
        await self._exit.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.up()
        except BaseException:
            await self.down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    async def _kubelink_kubeconfig(self) -> Path:
        """With a token of the service account that the manifests bind, so that it may do just what they say."""
        await self.cluster.kubectl("apply", "-f", str(MANIFESTS / "10-rbac.yaml"))
        token = (await self.cluster.kubectl("-n", "eastwest", "create", "token", "kubelink")).strip()
        return self.cluster.control_plane.write_kubeconfig("kubelink", token)

    def start_kubelink(self, kubeconfig: Path, *arguments: str) -> ChildProcess:
        lease = ("--lease", "eastwest/eastwest-kubelink", "--lease-seconds", "5")
        return self.spawn("kubelink", "--kubeconfig", str(kubeconfig), *lease, *arguments)

    def start_enforcer(self, node: Node, *arguments: str) -> ChildProcess:
        """The one of *node*, on its containerd; *arguments* are further flags."""
        sockets = ("--runtime", str(node.containerd_socket), "--socket", str(self.folder / node.name / "enforcer.sock"))
        given = ("--node", node.name, *sockets, "--status-seconds", "1", *arguments)
        self.since[node.name] = now()
        self.enforcers[node.name] = self.spawn("enforcer", *given, machine=node.namespace, folder=node.name)
        return self.enforcers[node.name]

    def spawn(self, role: str, *arguments: str, machine: str = "", folder: str = "") -> ChildProcess:
        """A role as a process: on the control plane's machine, or in network namespace *machine*."""
        own = self.folder / (folder or role)
        own.mkdir(exist_ok=True)
        shared = ("--cluster", self.name, "--nats", self.nats.url, "--listen", LISTEN[role], "--data", str(own))
        log = () if role == "enforcer" else ("--kafka", self.kafka.bootstrap)
        where = inside_command(machine or self.cluster.namespace)
        process = ChildProcess.spawn(
            f"{role} {folder}".strip(),
            [*where, EASTWEST, role, *shared, *log, *arguments],
            log=own / f"{role}.log",
            folder=own,
            environment=ENVIRONMENT,
        )
        self._started.append(process)
        return process

    def ensure_running(self) -> None:
        """Raises ChildEnded for a role that ended."""
        for process in (self.kubelink, self.processor, *self.enforcers.values()):
            process.ensure_running()

    # What an auditor sees.

    async def records(self, start: int = 0) -> list[Record]:
        """The event log from offset *start* on."""

        async def read() -> list[Record]:
            async with KafkaLogs(KafkaSettings(bootstrap=self.kafka.bootstrap)) as logs:
                log = await logs.open(topics.events(self.name))
                return [record async for batch in log.read(start) for record in batch]

        return await self.cluster.inside(read)

    async def on_bus(self, work: Callable[[NatsBus], Awaitable[T]]) -> T:
        """Do *work* with a connection to NATS."""

        async def connected() -> T:
            async with NatsBus(self.nats.url, name="test") as bus:
                return await work(bus)

        return await self.cluster.inside(connected)

    async def statuses(self) -> dict[Place, Heard]:
        return await self.on_bus(lambda bus: read_status(bus, self.name))

    async def cven(self, node: str) -> CvenStatus:
        """What the running enforcer of *node* says. Raises LookupError while it has said nothing."""
        heard = (await self.statuses()).get((Component.CVEN, node))
        status = heard.status if heard else None
        if not isinstance(status, CvenStatus) or status.heartbeat < self.since[node]:
            raise LookupError(f"{node} says nothing")
        return status

    async def published(self) -> Policy:
        """What the policy stream holds now."""
        subjects = names.policy_subjects(self.name)

        async def read(bus: NatsBus) -> Policy:
            stored = await read_stream(bus, names.policy_stream(self.name), subjects, last_only=False)
            below = len(subjects) - 1
            return Publication(max_payload=bus.max_payload).read((one.subject[below:], one) for one in stored)

        return await self.on_bus(read)

    async def listed(self) -> dict[str, Any]:
        """What the API server has, by log key, projected as Kubelink does."""

        async def of(kind: str) -> dict[str, Any]:
            answer = await self.cluster.control_plane.api("GET", RESOURCES[kind].path)
            page = decode_page(kind, json.dumps(answer).encode())
            held = {names.key(kind, each.metadata.namespace, each.metadata.name): project(each) for each in page.items}
            return {key: {**json.loads(one.object), "uid": one.uid} for key, one in held.items()}

        return {key: value for each in await asyncio.gather(*map(of, KINDS)) for key, value in each.items()}

    async def revision(self) -> int:
        """Of the newest record, once the log says what the API server says."""

        async def up_to_date() -> int:
            self.ensure_running()
            listed, records = await self.listed(), await self.records()
            logged, epochs = fold(records)
            logged = {key: value for key, value in logged.items() if key.partition("/")[0] in KINDS}
            return records[-1].offset if epochs.complete and logged == listed else 0

        return await until(
            "the log to say what the API server says", up_to_date, within_seconds=40, ignoring=(LogUnavailable,)
        )

    async def enforced(self) -> int:
        """The newest revision, once every node has realized it for all its Pods."""
        wanted = await self.revision()

        async def realized() -> bool:
            self.ensure_running()
            for node in self.cluster.nodes:
                said = await self.cven(node.name)
                if said.realized < wanted or said.exceptions:
                    raise LookupError(f"{node.name} realized {said.realized}, but for {said.exceptions}")
            return True

        await until(f"revision {wanted} on every node", realized, within_seconds=40, ignoring=(ReadFailed, LookupError))
        return wanted

    async def eastwest(self, *arguments: str) -> str:
        """The command as a person types it beside the cluster; its output. Raises AssertionError where it fails."""
        process = await asyncio.create_subprocess_exec(
            *map(str, (*inside_command(self.cluster.namespace), EASTWEST, *arguments)),
            env={
                **ENVIRONMENT,
                "EASTWEST_CLUSTER": self.name,
                "EASTWEST_NATS": self.nats.url,
                "EASTWEST_KAFKA": self.kafka.bootstrap,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, f"eastwest {' '.join(arguments)}: {errors.decode()}{output.decode()}"
        return output.decode()

    async def get(self, *arguments: str) -> Any:
        """``eastwest get``, as a value."""
        return json.loads(await self.eastwest("get", *arguments, "-o", "json"))

    async def metric(self, node: Node, name: str) -> float:
        """The value of an enforcer's metric without labels."""

        async def scrape() -> str:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{LISTEN['enforcer']}/metrics") as answer,
            ):
                return await answer.text()

        text = await inside(node.namespace, scrape)
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))
