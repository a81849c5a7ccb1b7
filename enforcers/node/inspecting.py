"""Looking into Pods now and then, for what no event tells.

How full their connection tables are, who uses our bit, and what iptables-legacy holds beside our rules.
"""

import asyncio
from typing import Final

import structlog

from enforcers.node.local_node import TROUBLE, LocalNode
from enforcers.pods.pod import PodEnforcement

INSPECT_SECONDS: Final = 10.0

_log = structlog.get_logger("enforcers.node.inspecting")


async def inspecting(node: LocalNode) -> None:
    """Until cancelled, look into Pods with rules, whatever is said of them: these are evaluated.

    A Pod that cannot be looked into is in trouble that others report.
    """
    while True:
        await _look_at_all(node)
        node.changed.set()
        await asyncio.sleep(INSPECT_SECONDS)


async def _look_at_all(node: LocalNode) -> None:
    """Apart, so that nobody holds on to the last of them, which may be gone, until the next time."""
    for pod in list(node.pods.values()):
        if pod.has_rules:
            try:
                await look(pod)
            except TROUBLE:
                continue


async def look(pod: PodEnforcement) -> None:
    """Look into *pod*, and log what was not wrong with it before. Raises as `PodEnforcement.inspect` does."""
    before = set(pod.connections.inspected.problems)
    await pod.inspect()
    for problem in pod.connections.inspected.problems:
        if problem not in before:
            _log.warning("found in a Pod", pod=f"{pod.sandbox.namespace}/{pod.sandbox.name}", problem=problem)
