"""The enforcer as a service: a C-VEN with its policy reader, its status, its gate and its snapshot on disk."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from enforcers.answering.gate import Gate
from enforcers.answering.gate_serving import serve_gate
from enforcers.answering.hearing import Hearing
from enforcers.answering.local_api import LocalApi, serving_locally
from enforcers.core.layout import FAMILIES, Family
from enforcers.core.statistics import latency
from enforcers.core.telling import Told
from enforcers.cven import Cven
from enforcers.kernel.namespaces import HERE, CommandFailed
from enforcers.kernel.rules.chain_trial import choose_chain_backend
from enforcers.kernel.rules.families import families
from enforcers.kernel.sets.set_trial import choose_backend
from enforcers.measuring import Measures
from enforcers.metrics import Metrics
from enforcers.node.snapshot import Kept, SnapshotUnreadable, load, save
from enforcers.runtimes.runtime import Runtime
from enforcers.settings import EnforcerSettings
from schemas import sets
from schemas.policy import NodeUpdate
from schemas.status import CvenStatus, PodDetail, RuntimeStatus, Status
from streams.channels.policy_reader import PolicyReader
from streams.channels.reporting import VERSION, now, report_status
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health

SNAPSHOT_SECONDS: Final = 1.0
"""At least this long between two snapshots."""

SLOW_SETS: Final = "address sets go by the ipset tool, slower, since by netlink they failed a trial"
ABSENT_FAMILY: Final = "the kernel lacks an address family: nothing of it is enforced, and it counts as realized"
SLOW_CHAINS: Final = "chains go by the iptables tool, slower, since by netlink they failed a trial"

_log = structlog.get_logger("enforcers.enforcer")


class Enforcer:
    """Enforces on one node of *bus*'s cluster.

    *bus* is connected, or connects when it is entered, however long that takes.
    *snapshot* is the file of the last complete state: read at the start, written as the state changes.
    *kept_orders* is the file of what was ordered by hand, *local* the unix socket on which such orders are taken.
    """

    def __init__(
        self,
        settings: EnforcerSettings,
        bus: NatsBus | AbstractAsyncContextManager[NatsBus],
        runtime: Runtime,
        *,
        node_netns: Path = HERE,
        snapshot: Path | None = None,
        kept_orders: Path | None = None,
        local: Path | None = None,
        health: Health,
        registry: CollectorRegistry,
    ) -> None:
        self.cven = Cven(
            settings,
            runtime,
            node_netns=node_netns,
            kept=_load(snapshot),
            kept_orders=kept_orders,
            metrics=Metrics(registry),
            health=health,
        )
        registry.register(Measures(self.cven))
        self._api = LocalApi(self.cven)
        self._local = local
        self._bus = nullcontext(bus) if isinstance(bus, NatsBus) else bus
        self._runtime = runtime
        self._node_netns = node_netns
        self._snapshot = snapshot
        self._health = health

    async def run(self, stop: asyncio.Event, *, jitter_seconds: float = 1.0) -> None:
        """Enforce until *stop* is set; *jitter_seconds* spreads the catch-ups of many nodes.

        Raises `EnforcerAtWork` where this node has an enforcer already.
        """
        settings = self.cven.settings
        connected: asyncio.Future[NatsBus] = asyncio.get_running_loop().create_future()
        hearing = Hearing(settings.cluster, settings.node)
        gate = Gate(self.cven, hearing)
        local = serving_locally(self._local, self._api) if self._local is not None else nullcontext()
        async with local, asyncio.TaskGroup() as tasks, aclosing(self._updates(connected, jitter_seconds)) as updates:
            await self._choose_backends()
            helpers = [
                tasks.create_task(_report(self.cven, connected, self._runtime), name="report"),
                tasks.create_task(keep_snapshots(self.cven, self._snapshot), name="keep snapshots"),
                tasks.create_task(hearing.run(connected), name="hear other nodes"),
                tasks.create_task(
                    serve_gate(gate, settings.gate_listen, self._node_netns, self._health), name="serve the gate"
                ),
            ]
            await tasks.create_task(self.cven.run(updates, stop), name="enforce")
            for task in helpers:
                task.cancel()

    async def _choose_backends(self) -> None:
        """Before anything is written, and while nothing waits for it yet."""
        node, settings = self.cven.node, self.cven.settings
        node.set_backend, slow_sets = await choose_backend(settings.set_backend)
        node.chain_backend, slow_chains = await choose_chain_backend(settings.chain_backend)
        node.families, absent = await _families()
        for subject, what, trouble in (
            ("families", ABSENT_FAMILY, absent),
            ("sets", SLOW_SETS, slow_sets),
            ("chains", SLOW_CHAINS, slow_chains),
        ):
            if trouble:
                _log.warning(what, reason=trouble)
                node.problems[subject] = f"{what}: {trouble}"

    async def _updates(self, connected: asyncio.Future[NatsBus], jitter_seconds: float) -> AsyncGenerator[NodeUpdate]:
        """Connects when it is asked for the first update, so that what is on disk is enforced without NATS."""
        settings = self.cven.settings
        async with self._bus as bus:
            connected.set_result(bus)
            async with PolicyReader(bus, settings.cluster, settings.node, jitter_seconds=jitter_seconds) as reader:
                async for update in reader:
                    yield update


def describe(cven: Cven, runtime: Runtime) -> list[Status]:
    """What the C-VEN says of itself and of its Pods' containers. Takes the latencies since the last time away."""
    node, acknowledging = cven.node, cven.acknowledging
    samples, acknowledging.latencies = acknowledging.latencies, []
    standing = cven.standing
    pods = sorted(node.pods.items(), key=lambda item: (item[1].sandbox.namespace, item[1].sandbox.name))
    return [
        CvenStatus(
            node=cven.settings.node,
            version=VERSION,
            heartbeat=now(),
            realized=cven.revision,
            exceptions=cven.exceptions,
            pods=dict(cven.states()),
            bypassable=standing.bypassable(),
            healed=node.tamperings.healed,
            tampering=node.tamperings.recent,
            latency=latency(samples),
            from_disk=node.from_disk,
            paused=node.orders.paused,
            orders=node.orders.given,
            observing=cven.settings.observe,
            problems=(*node.problems.values(), *standing.problems()),
            cuts=tuple(node.cuts.recent),
        ),
        RuntimeStatus(
            node=cven.settings.node,
            runtime=runtime.description,
            pods=tuple(
                PodDetail(
                    uid=node.api_uid(uid),
                    namespace=pod.sandbox.namespace,
                    name=pod.sandbox.name,
                    state=cven.state_of(uid),
                    bypassable=standing.is_bypassable(uid),
                    problems=pod.problems,
                    containers=pod.sandbox.containers,
                )
                for uid, pod in pods
            ),
        ),
    ]


async def _families() -> tuple[Sequence[Family], str]:
    """Where it cannot be tried, both: then each Pod tells its trouble."""
    try:
        return await families()
    except (CommandFailed, OSError) as error:
        _log.warning("address families not tried", reason=str(error))
        return FAMILIES, ""


async def _report(cven: Cven, connected: asyncio.Future[NatsBus], runtime: Runtime) -> None:
    settings = cven.settings
    told, loop = Told(), asyncio.get_running_loop()

    def what_is_new() -> list[Status]:
        """Containers are many and change rarely: told when they did, and now and then."""
        own, pods = describe(cven, runtime)
        return [own, pods] if told.is_news(pods, loop.time()) else [own]

    bus = await asyncio.shield(connected)  # whoever is cancelled takes it from nobody
    await report_status(bus, settings.cluster, what_is_new, cven.node.changed, seconds=settings.status_seconds)


async def keep_snapshots(cven: Cven, path: Path | None) -> None:
    """Write the state to *path* whenever it is complete and newer than what was written; without a *path*, nothing."""
    written, trouble = -1, ""
    while path is not None:
        await asyncio.sleep(SNAPSHOT_SECONDS)
        if cven.node.policy.complete and cven.revision != written:
            revision, keep = cven.revision, _keeping(cven, path)
            try:
                await asyncio.to_thread(keep)
            except OSError as error:  # a full disk must not end enforcement: it is for a reboot without NATS only
                if str(error) != trouble:
                    _log.error("no snapshot written; the one before stands", path=str(path), reason=str(error))
                trouble = str(error)
            else:
                written, trouble = revision, ""


def _keeping(cven: Cven, path: Path) -> Callable[[], None]:
    """What writes the state as of now. To pack its sets takes twenty times as long as to copy them."""
    policy, revision = cven.node.policy, cven.revision
    programs = tuple(policy.programs[uid] for uid in sorted(policy.programs))
    members = {identity: frozenset(tracked.told) for identity, tracked in sorted(policy.sets.items())}

    def keep() -> None:
        packed = {
            identity: (sets.pack_members(found, 4), sets.pack_members(found, 6)) for identity, found in members.items()
        }
        save(path, Kept(revision=revision, programs=programs, sets=packed))

    return keep


def _load(path: Path | None) -> Kept | None:
    try:
        return load(path) if path is not None else None
    except SnapshotUnreadable as error:
        _log.error("snapshot not used", reason=str(error))
        return None
