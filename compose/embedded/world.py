"""The embedded world: one process, one SQLite file, one nats-server child.

    source ─▶ Kubelink ─▶ SQLite log ─▶ processor ─▶ NATS child ─▶ enforcers (entered by who has Pods)

The services are those of the stack, on the same code paths; only log, bus and source are chosen here.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from compose.connections import LOG_FILE
from processors import processor
from processors.settings import ProcessorSettings
from producers import service
from producers.kubelink import Kubelink
from producers.source import Source
from streams import topics
from streams.log import Log
from streams.nats.nats_bus import NatsBus
from streams.nats.nats_child import NatsChild
from streams.sqlite.sqlite_log import CLEAN_SECONDS, SqliteLogs
from streams.telemetry import Health


class World(msgspec.Struct, frozen=True):
    """What runs, for who adds to it."""

    cluster: str
    log: Log
    log_file: Path
    bus: NatsBus
    nats_url: str
    kubelink: Kubelink
    tasks: asyncio.TaskGroup
    """Services join here, and end with *stop*."""
    stop: asyncio.Event
    health: Health
    registry: CollectorRegistry


@asynccontextmanager
async def embedded(
    source: Source, folder: Path, settings: ProcessorSettings, *, described: str, drain_seconds: float = 5.0
) -> AsyncGenerator[World]:
    """Run the embedded world in the existing *folder* until left, then drain it.

    *described* is what *source* reads from, for people.
    What fails in it is raised, as a group.
    """
    health, registry, stop = Health(), CollectorRegistry(), asyncio.Event()
    async with AsyncExitStack() as stack:
        logs = await stack.enter_async_context(SqliteLogs(folder / LOG_FILE, clean_every_seconds=CLEAN_SECONDS))
        log = await logs.open(topics.events(settings.cluster))
        nats = await stack.enter_async_context(NatsChild(folder / "nats"))
        bus = await stack.enter_async_context(NatsBus(nats.url, name="eastwest"))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        kubelink = Kubelink(log, source, cluster=settings.cluster, drain_seconds=drain_seconds)
        producing = service.run(
            kubelink,
            bus,
            stop,
            cluster=settings.cluster,
            name=settings.name,
            source=described,
            health=health,
            registry=registry,
        )
        tasks.create_task(producing, name="kubelink")
        tasks.create_task(processor.run(settings, logs, bus, stop, health=health, registry=registry), name="processor")
        try:
            yield World(
                settings.cluster,
                log,
                folder / LOG_FILE,
                bus,
                nats.url,
                kubelink,
                tasks,
                stop,
                health,
                registry,
            )
        finally:
            stop.set()
