"""The processor: folds the logs of its clusters and publishes policy and inventory. One code path for the embedded
world and the stack: logs and bus are given."""

import asyncio

from prometheus_client import CollectorRegistry

from processors.cluster_processor import ClusterProcessor
from processors.metrics import Metrics
from processors.settings import ProcessorSettings
from streams import topics
from streams.log import Logs
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health


async def run(
    settings: ProcessorSettings,
    logs: Logs,
    bus: NatsBus,
    stop: asyncio.Event,
    *,
    health: Health,
    registry: CollectorRegistry,
) -> None:
    """Serve every cluster of *settings* until *stop* is set, then drain.

    Raises what `Logs.open` and `Log.read` raise, in a group: a log that cannot be read back ends the process.
    """
    metrics = Metrics(registry)
    processors = [
        ClusterProcessor(
            cluster,
            settings,
            events=await logs.open(topics.events(cluster)),
            dead=await logs.open(topics.dead(cluster)),
            status=await logs.open(topics.status(cluster)),
            bus=bus,
            metrics=metrics,
            health=health,
        )
        for cluster in settings.served
    ]
    async with asyncio.TaskGroup() as tasks:
        for processor in processors:
            tasks.create_task(processor.run(stop), name=f"cluster {processor.cluster}")
