"""Publishing the inventory: off the policy path, and never at its cost."""

import asyncio
from collections.abc import Set
from typing import Final

import structlog

from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from schemas.reports import Trouble, encode_report
from streams.channels.inventory_bucket import InventoryWriter
from streams.nats.nats_bus import NatsBus

DESCRIBE_AT_ONCE: Final = 50
"""Objects described in one go; between two such the loop attends to others."""
SHARE: Final = 0.25
"""Part of the time that describing may take: the larger the cluster, the longer the pauses."""
FLUSH_SECONDS: Final = 0.02

_log = structlog.get_logger("processors.inventory")


async def publish_inventory(bus: NatsBus, fold: ClusterFold, settings: ProcessorSettings) -> None:
    """Take over the bucket of *fold*'s cluster, make it what it should be, and keep it so, until that is not ours.

    Raises as `InventoryWriter.take_over` and `run` do.
    """
    inventory = fold.inventory
    writer = InventoryWriter(
        bus, inventory.cluster, settings.name, replicas=settings.replicas, coalesce_seconds=FLUSH_SECONDS
    )
    inventory.begin_again(await writer.take_over())
    loop, told = asyncio.get_running_loop(), frozenset[Trouble]()
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
            told = tell_warnings(inventory.cluster, told, inventory.warnings)
            await asyncio.sleep(max(settings.inventory_seconds, spent / SHARE))


def tell_warnings(cluster: str, before: Set[Trouble], now: frozenset[Trouble]) -> frozenset[Trouble]:
    """Log every warning that is among *now* and was not *before*, and the other way round. Returns *now*."""
    log = _log.bind(cluster=cluster)
    for trouble in sorted(before - now):
        log.info("warning ended", object=trouble.object, message=trouble.message)
    for trouble in sorted(now - before):
        log.warning("warning", object=trouble.object, message=trouble.message)
    return now
