"""Publishing the inventory: off the policy path, and never at its cost."""

import asyncio
from typing import Final

from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from schemas.reports import encode_report
from streams.inventory_bucket import InventoryWriter
from streams.nats_bus import NatsBus

DESCRIBE_AT_ONCE: Final = 50
"""Objects described in one go; between two such the loop attends to others."""
SHARE: Final = 0.25
"""Part of the time that describing may take: the larger the cluster, the longer the pauses."""
FLUSH_SECONDS: Final = 0.02


async def publish_inventory(bus: NatsBus, fold: ClusterFold, settings: ProcessorSettings) -> None:
    """Take over the bucket of *fold*'s cluster, make it what it should be, and keep it so, until that is not ours.

    Raises as `InventoryWriter.take_over` and `run` do.
    """
    inventory = fold.inventory
    writer = InventoryWriter(
        bus, inventory.cluster, settings.name, replicas=settings.replicas, coalesce_seconds=FLUSH_SECONDS
    )
    inventory.begin_again(await writer.take_over())
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run(), name=f"{inventory.cluster}: inventory bucket")
        while True:
            spent = 0.0
            while inventory.dirty:
                began = loop.time()
                for key, report in inventory.take_changes(DESCRIBE_AT_ONCE).items():
                    writer.put(key, None if report is None else encode_report(report))
                spent += loop.time() - began
                await asyncio.sleep(0)
            await asyncio.sleep(max(settings.inventory_seconds, spent / SHARE))
