"""`eastwest enforcer`: the C-VEN of one node as a process of its own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import click
from prometheus_client import CollectorRegistry

from compose.connections import bus_of, data_folder
from compose.options import with_settings
from compose.roles.running import run_service
from enforcers.enforcer import Enforcer
from enforcers.runtimes.cri import CriRuntime
from enforcers.settings import EnforcerSettings
from streams.lifecycle import serve
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health, serving, set_up_logging

SNAPSHOT_FILE: Final = "enforcer.snapshot"
ORDERS_FILE: Final = "enforcer.orders"

EXAMPLES = """\b
Examples:
  eastwest enforcer --node worker-1 --nats nats://nats:4222 --observe    plan and report, program nothing
  eastwest enforcer --node worker-1 --nats nats://nats:4222 --listen 127.0.0.1:9461
  eastwest enforcer --pause                                              keep everything, write nothing
"""


@click.command(epilog=EXAMPLES)
@with_settings(EnforcerSettings)
def enforcer(settings: EnforcerSettings) -> None:
    """Run the C-VEN of this node: programs and address sets to rules in the namespaces of its Pods.

    Rules stay when it stops; `eastwest uninstall` removes them.
    """
    if not settings.nats:
        raise click.UsageError("an enforcer needs NATS: name it by --nats or EASTWEST_NATS")
    set_up_logging(settings.log_format, settings.log_level)
    run_service(asyncio.run, _run(settings))  # not uvloop: it gives up on a netlink socket that once lost messages


async def _run(settings: EnforcerSettings) -> None:
    health, registry = Health("NATS", "policy", "runtime"), CollectorRegistry()

    @asynccontextmanager
    async def connected() -> AsyncGenerator[NatsBus]:
        async with bus_of(settings, f"enforcer {settings.node}") as bus:
            health.set_ready("NATS", True)
            yield bus

    async def work(stop: asyncio.Event) -> None:
        async with CriRuntime(settings.runtime, relist_seconds=settings.relist_seconds) as runtime:
            service = Enforcer(
                settings,
                connected(),
                runtime,
                snapshot=snapshot_of(settings),
                kept_orders=orders_of(settings),
                local=socket_of(settings),
                health=health,
                registry=registry,
            )
            await service.run(stop)

    async with serving(settings.listen, health, registry):
        await serve(work, name="enforcer", drain_seconds=settings.drain_seconds)


def snapshot_of(settings: EnforcerSettings) -> Path:
    """The file of the last complete state, per cluster and node."""
    return data_folder(settings) / f"{settings.cluster}.{settings.node}.{SNAPSHOT_FILE}"


def orders_of(settings: EnforcerSettings) -> Path:
    """The file of what was ordered by hand, per cluster and node."""
    return data_folder(settings) / f"{settings.cluster}.{settings.node}.{ORDERS_FILE}"


def socket_of(settings: EnforcerSettings) -> Path | None:
    """The unix socket for `eastwest node`."""
    return Path(settings.socket) if settings.socket else None
