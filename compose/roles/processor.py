"""`eastwest processor`: the PCE as a process of its own."""

import asyncio

import click
import uvloop
from prometheus_client import CollectorRegistry

from compose.connections import bus_of, logs_of
from compose.options import with_settings
from compose.roles.running import run_service
from processors import processor as service
from processors.settings import ProcessorSettings
from streams.lifecycle import serve
from streams.telemetry import Health, serving, set_up_logging

EXAMPLES = """\b
Examples:
  eastwest processor --cluster prod --kafka kafka:9092 --nats nats://nats:4222
  eastwest processor --clusters prod,staging --config /etc/eastwest.toml --listen 0.0.0.0:9600
"""


@click.command(epilog=EXAMPLES)
@with_settings(ProcessorSettings)
def processor(settings: ProcessorSettings) -> None:
    """Run the PCE: fold the event log into inventory, programs and address sets, and publish them.

    Run several for one cluster: one publishes, the others stand by and take over within seconds.
    """
    if not settings.nats:
        raise click.UsageError("a processor needs NATS: name it by --nats or EASTWEST_NATS")
    set_up_logging(settings.log_format, settings.log_level)
    run_service(uvloop.run, _run(settings))


async def _run(settings: ProcessorSettings) -> None:
    health, registry = Health("log", "NATS"), CollectorRegistry()

    async def work(stop: asyncio.Event) -> None:
        async with logs_of(settings) as logs:
            health.set_ready("log", True)
            async with bus_of(settings, f"processor {settings.name}") as bus:
                health.set_ready("NATS", True)
                await service.run(settings, logs, bus, stop, health=health, registry=registry)

    async with serving(settings.listen, health, registry):
        # A little longer than the service's own draining, which knows what it drains.
        await serve(work, name="processor", drain_seconds=settings.drain_seconds + 5)
