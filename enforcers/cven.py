"""The C-VEN: one node's enforcement, from its policy reader, its runtime and its own addresses to its Pods.

    PolicyReader ──▶ policy ────┐
    Runtime ───────▶ sandboxes ─┼─▶ LocalNode: dirty Pods ─▶ Programming ─▶ Acknowledging ─▶ realized revision ─▶ status
    addresses ─────▶ node set ──┘   ▲
                                    └─ Drifting: what others changed

Nothing is written before the node's complete state is known, from NATS or from the own snapshot; and no Pod loses its
rules on the word of a snapshot, or on nobody's.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import structlog

from enforcers.kernel.addressing import watch_addresses
from enforcers.kernel.folders import Folders
from enforcers.kernel.namespaces import HERE, RUN_NETNS
from enforcers.metrics import Metrics
from enforcers.node.acknowledging import Acknowledging
from enforcers.node.drifting import Drifting
from enforcers.node.inspecting import inspecting
from enforcers.node.local_node import LocalNode
from enforcers.node.orders import Orders
from enforcers.node.programming import Programming
from enforcers.node.snapshot import Kept
from enforcers.node.standing import Standing
from enforcers.runtimes.runtime import Runtime
from enforcers.settings import EnforcerSettings
from schemas.policy import NodeUpdate
from schemas.status import Order, PodException, PodState
from streams.lifecycle import first_of
from streams.telemetry import Health

_log = structlog.get_logger("enforcers.cven")


class Cven:
    """Enforces on one node. Its sources are given, so that the lab and a cluster differ only in these."""

    def __init__(
        self,
        settings: EnforcerSettings,
        runtime: Runtime,
        *,
        node_netns: Path = HERE,
        kept: Kept | None = None,
        kept_orders: Path | None = None,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self.settings = settings
        by_settings = (Order(by="setting pause"),) if settings.pause else ()
        self.node = LocalNode(settings, metrics, Orders(*by_settings, path=kept_orders), node_netns)
        self.standing = Standing(self.node)
        self.acknowledging = Acknowledging(self.node)
        self._programming = Programming(self.node, self.acknowledging.written)
        self._drifting = Drifting(self.node)
        self._runtime = runtime
        self._health = health
        self._kept = kept

    def __repr__(self) -> str:
        return f"<C-VEN on {self.node!r}, realized {self.revision}>"

    @property
    def revision(self) -> int:
        """Realized; -1: none yet."""
        return self.acknowledging.revision

    @property
    def exceptions(self) -> tuple[PodException, ...]:
        """The Pods that the realized revision does not hold for."""
        return tuple(self.standing.exceptions())

    @property
    def writes(self) -> int:
        """Patches written to the Pods that are here now."""
        return sum(pod.writes for pod in self.node.pods.values())

    def state_of(self, uid: str) -> PodState:
        """What has become of the Pod *uid*."""
        return self.standing.state_of(uid)

    def states(self) -> Counter[PodState]:
        """How many of the Pods that are here or have a program are in which state."""
        return Counter(map(self.state_of, {*self.node.pods, *self.node.policy.programs}))

    async def run(self, updates: AsyncIterator[NodeUpdate], stop: asyncio.Event) -> None:
        """Enforce what *updates* tell until *stop* is set; then end the round that was begun. Rules stay."""
        try:
            async with asyncio.TaskGroup() as tasks:
                others = [
                    tasks.create_task(self._take_policy(updates), name="take in policy"),
                    tasks.create_task(self._take_sandboxes(), name="take in sandboxes"),
                    tasks.create_task(self._take_addresses(), name="take in addresses"),
                    tasks.create_task(self._look_at_namespaces(), name="look at namespaces"),
                    tasks.create_task(self.acknowledging.run(), name="acknowledge"),
                    tasks.create_task(self._drifting.run(), name="look after what others change"),
                    tasks.create_task(self._fall_back(), name="fall back to the disk"),
                    tasks.create_task(inspecting(self.node), name="inspect Pods"),
                ]
                programming = tasks.create_task(self._programming.run(stop), name="program Pods")
                await first_of(programming, stop)
                self.node.work.set()
                await asyncio.wait([programming])
                for task in others:
                    task.cancel()
        finally:
            for pod in self.node.pods.values():
                await pod.idle()  # or the end of the loop would come before the end of its socket
                pod.close()
        _log.info("stopped; the rules of all Pods stay", node=self.settings.node, pods=len(self.node.pods))

    async def realized(self, revision: int) -> None:
        """Return once *revision* is realized on this node, but for `exceptions`."""
        await self.acknowledging.realized(revision)

    async def _take_policy(self, updates: AsyncIterator[NodeUpdate]) -> None:
        async for update in updates:
            self.node.take_policy(update)
            self._health.set_ready("policy", self.node.policy.complete, "the node's complete policy is not known yet")

    async def _take_sandboxes(self) -> None:
        async for sandboxes in self._runtime.watch():
            self.node.take_sandboxes(sandboxes)
            self._drifting.attach()
            self._health.set_ready("runtime", True)

    async def _take_addresses(self) -> None:
        async with aclosing(watch_addresses(self.node.netns)) as watching:
            async for found in watching:
                self.node.take_addresses(found)

    async def _look_at_namespaces(self) -> None:
        with Folders() as folders:
            folders.watch(RUN_NETNS)  # where nearly all are, before the first one is known
            async with aclosing(folders.changes(every_seconds=self.settings.relist_seconds)) as changes:
                async for _ in changes:
                    self.node.look_at_namespaces()
                    for folder in {pod.sandbox.netns.parent for pod in self.node.pods.values()}:
                        folders.watch(folder)

    async def _fall_back(self) -> None:
        """Enforce what was kept if nobody tells anything newer in time, as after a reboot while NATS is away."""
        await asyncio.sleep(self.settings.disk_after_seconds)
        if self._kept is None or self.node.policy.complete:
            return
        _log.warning("NATS is not heard: enforcing from disk", revision=self._kept.revision)
        self.node.take_snapshot(self._kept.update())
