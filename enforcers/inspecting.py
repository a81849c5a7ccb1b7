"""Looking into Pods now and then, for what no event tells: how full their connection tables are, who uses our bit."""

import asyncio
from typing import Final

from enforcers.local_node import TROUBLE, LocalNode
from schemas.status import PodState

INSPECT_SECONDS: Final = 10.0


async def inspecting(node: LocalNode) -> None:
    """Until cancelled. A Pod that cannot be looked into is in trouble that others report."""
    while True:
        for pod in list(node.pods.values()):
            if pod.state is PodState.ENFORCED:
                try:
                    await pod.inspect()
                except TROUBLE:
                    continue
        node.metrics.fullest.set(max((pod.connections.inspected.share for pod in node.pods.values()), default=0.0))
        node.changed.set()
        await asyncio.sleep(INSPECT_SECONDS)
