"""A node with a gate: a real nats-server, a policy owner, an enforcer, and whoever asks from a namespace."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from compose.waiting.gate import ask_enforcer
from enforcers.enforcer import Enforcer
from enforcers.kernel.namespaces import inside
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.settings import EnforcerSettings
from schemas.gate import GATE_PORT, GateAnswer
from schemas.policy import Policy
from schemas.programs import Program
from schemas.status import CvenStatus
from streams.channels.reporting import now
from streams.channels.status import create_status_stream, publish_status
from streams.core.difference import difference
from streams.errors import OutcomeUnknown
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health
from tests.components.nats_server import NatsServer
from tests.components.waiting import until
from tests.enforcers.pod_world import ALLOW, CLIENTS, World, address, both, packed
from tests.streams.channels.policy_world import Owner

KNOWN = (packed("web"), packed("web", 6))


def known(program: Program = ALLOW, *addresses: bytes) -> Program:
    """*program* of a Pod that the cluster's sets know by *addresses*, by default all it has."""
    return msgspec.structs.replace(program, addresses=tuple(sorted(addresses or KNOWN)))


class GateWorld:
    """One cluster, of which node-1 is real."""

    def __init__(self, world: World, nats: NatsServer, bus: NatsBus, owner: Owner, cluster: str) -> None:
        self.world = world
        self.nats = nats
        self.bus = bus
        self.cluster = cluster
        self.runtime = GivenRuntime([world.sandbox()])
        self.enforcer: Enforcer | None = None
        self._owner = owner

    async def publish(self, revision: int, *programs: Program, **members: set[bytes]) -> None:
        sets = {CLIENTS: frozenset(members.get("clients", both("a")))} if any(one.sets for one in programs) else {}
        wanted = Policy(programs={(one.node, one.uid): one for one in programs}, sets=sets)
        writer, before = self._owner.writer, self._owner.policy
        self._owner.policy = wanted
        await writer.send(difference(wanted, before), revision, now())
        await writer.settled()

    async def say(self, node: str, realized: int, **more: Any) -> None:
        """What another node's enforcer would."""
        await publish_status(self.bus, self.cluster, CvenStatus(node=node, heartbeat="", realized=realized, **more))
        await self.bus.client.flush()

    @asynccontextmanager
    async def enforcing(self, **settings: Any) -> AsyncIterator[Enforcer]:
        """An enforcer of node-1 with a gate on the node's addresses."""
        defaults: dict[str, Any] = {"gate_listen": f":{GATE_PORT}", "status_seconds": 0.2}
        chosen = EnforcerSettings(cluster=self.cluster, node="node-1", **defaults | settings)
        async with NatsBus(self.nats.url) as bus, asyncio.TaskGroup() as tasks:
            self.enforcer = Enforcer(
                chosen,
                bus,
                self.runtime,
                node_netns=self.world.path("node"),
                health=Health(),
                registry=CollectorRegistry(),
            )
            stop = asyncio.Event()
            tasks.create_task(self.enforcer.run(stop, jitter_seconds=0), name="enforcer")
            try:
                yield self.enforcer
            finally:
                stop.set()

    async def ask(self, name: str = "web", family: int = 4, seconds: float = 0.0) -> GateAnswer:
        """Asked once from the namespace *name*."""
        where = address("node", family)
        return await asyncio.to_thread(inside, self.world.path(name), lambda: ask_enforcer(where, GATE_PORT, seconds))

    async def answers(self, what: str, wanted: str, name: str = "web") -> GateAnswer:
        """Wait for an answer that holds, or lacks, *wanted*."""

        async def found() -> GateAnswer | None:
            answer = await self.ask(name)
            return answer if wanted in (answer.holds, *answer.missing) or wanted in str(answer.missing) else None

        answer = await until(what, found)
        assert answer is not None
        return answer

    def command(self, *arguments: str) -> tuple[str, ...]:
        """``eastwest gate`` as the Pod `web` runs it."""
        from tests.compose.commands import EASTWEST

        inside_web = ("nsenter", f"--net={self.world.path('web')}", EASTWEST, "gate", "--host", address("node"))
        return (*inside_web, *arguments)

    async def gate(self, *arguments: str) -> tuple[int, str, str]:
        """Its exit code, output, errors."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def made_gate_world(world: World, nats: NatsServer) -> AsyncIterator[GateWorld]:
    cluster = f"c{uuid.uuid4().hex[:10]}"
    try:
        async with NatsBus(nats.url) as bus, NatsBus(nats.url) as own, Owner(own, cluster).owning() as owner:
            await create_status_stream(bus, cluster)
            yield GateWorld(world, nats, bus, owner, cluster)
    except* OutcomeUnknown:  # a test took NATS away, and with it the owner's certainty
        pass
