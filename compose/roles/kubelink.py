"""`eastwest kubelink`: the producer as a process of its own."""

import asyncio
from contextlib import AsyncExitStack

import click
import uvloop
from prometheus_client import CollectorRegistry

from compose.connections import bus_of, logs_of
from compose.options import with_settings
from compose.roles.running import run_service
from producers import service
from producers.kubelink import Kubelink, writer_name
from producers.settings import KubelinkSettings, source_of, turn_of
from streams import topics
from streams.lifecycle import serve
from streams.telemetry import Health, serving, set_up_logging

EXAMPLES = """\b
Examples:
  eastwest kubelink --cluster prod --kafka kafka:9092 --nats nats://nats:4222
  eastwest kubelink --kubeconfig ~/.kube/config --context kind-dev --kafka localhost:9092 --nats localhost:4222
  eastwest kubelink --captures recorded/ --kafka localhost:9092 --nats localhost:4222
"""


@click.command(epilog=EXAMPLES)
@with_settings(KubelinkSettings)
def kubelink(settings: KubelinkSettings) -> None:
    """Run the producer: list and watch a cluster, and append every change to its event log.

    Run two with the same --lease for one cluster: one writes, the other takes over. Without --nats it works as well,
    and nobody hears how it is.
    """
    set_up_logging(settings.log_format, settings.log_level)
    run_service(uvloop.run, _run(settings))


async def _run(settings: KubelinkSettings) -> None:
    health, registry = Health("log", "lists"), CollectorRegistry()

    async def work(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            logs = await stack.enter_async_context(logs_of(settings))
            log = await logs.open(topics.events(settings.cluster))
            health.set_ready("log", True)
            turn = turn_of(settings, writer_name())
            kubelink = Kubelink(
                log,
                source_of(settings),
                cluster=settings.cluster,
                turn=await stack.enter_async_context(turn) if turn is not None else None,
                drain_seconds=settings.drain_seconds,
            )
            await service.run(
                kubelink,
                await stack.enter_async_context(bus_of(settings, "kubelink")) if settings.nats else None,
                stop,
                cluster=settings.cluster,
                name=writer_name().replace("/", "-"),
                source=settings.description,
                health=health,
                registry=registry,
            )

    async with serving(settings.listen, health, registry):
        await serve(work, name="kubelink", drain_seconds=settings.drain_seconds + 5)
