"""An enforcer without NATS in a world of namespaces, and `eastwest node` to ask it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from enforcers.enforcer import Enforcer
from enforcers.node.snapshot import Kept, save
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.settings import EnforcerSettings
from schemas import sets as packing
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health
from tests.components.waiting import until
from tests.compose.commands import eastwest
from tests.enforcers.pod_world import ALLOW, CLIENTS, World, both


class Standing:
    """An enforcer that has never reached NATS, and enforces what it kept."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.socket = folder / "enforcer.sock"
        self.folder = folder
        self.health = Health()
        self.registry = CollectorRegistry()
        save(folder / "snapshot", kept())
        self.service = Enforcer(
            EnforcerSettings(node="node-1", disk_after_seconds=0.02),
            never_connected(),
            GivenRuntime([world.sandbox()]),
            node_netns=world.path("node"),
            snapshot=folder / "snapshot",
            kept_orders=folder / "orders",
            local=self.socket,
            health=self.health,
            registry=self.registry,
        )

    async def ask(self, *words: str, code: int = 0) -> str:
        status, said = await eastwest("node", "--socket", self.socket, *words)
        assert status == code, said
        return said

    async def ask_json(self, *words: str, code: int = 0) -> Any:
        return json.loads(await self.ask(*words, "-o", "json", code=code))

    @property
    def ruled(self) -> bool:
        return "EW-IN" in self.world.rules()


def kept() -> Kept:
    return Kept(revision=5, programs=(ALLOW,), sets={CLIENTS: (packing.pack_members(both("a"), 4), b"")})


@asynccontextmanager
async def never_connected() -> AsyncIterator[NatsBus]:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
    yield


@asynccontextmanager
async def standing(world: World, folder: Path, *, expected_rules: bool = True) -> AsyncIterator[Standing]:
    made, stop = Standing(world, folder), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.service.run(stop), name="enforcer")
        try:
            await until("the socket", made.socket.exists)
            if expected_rules:
                await until("the rules from disk", lambda: made.ruled)
            yield made
        finally:
            stop.set()
