"""Kubelink as a service: beside its work it says how it is, to NATS, to whoever asks for its health, and in metrics."""

import asyncio

from prometheus_client import CollectorRegistry, Gauge

from producers.kubelink import Kubelink, Phase
from schemas.status import KubelinkStatus
from streams.channels.reporting import VERSION, now, report_status
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health

LOOK_SECONDS = 1.0
STATUS_SECONDS = 5.0


async def run(
    kubelink: Kubelink,
    bus: NatsBus | None,
    stop: asyncio.Event,
    *,
    cluster: str,
    name: str,
    source: str,
    health: Health,
    registry: CollectorRegistry,
) -> None:
    """Run *kubelink* until *stop* is set, and tell; without a *bus* nobody hears its status. Raises as it does."""
    changed = asyncio.Event()

    def describe() -> list[KubelinkStatus]:
        return [_describe(kubelink, name, source)]

    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(_look(kubelink, health, registry, changed), name="kubelink: looking after")]
        if bus is not None:
            reporting = report_status(bus, cluster, describe, changed, seconds=STATUS_SECONDS)
            others.append(tasks.create_task(reporting, name="kubelink: reporting"))
        await tasks.create_task(kubelink.run(stop), name="kubelink: working")
        for task in others:
            task.cancel()


def _describe(kubelink: Kubelink, name: str, source: str) -> KubelinkStatus:
    state = kubelink.state
    return KubelinkStatus(
        name=name,
        version=VERSION,
        heartbeat=now(),
        leading=state.phase in (Phase.LISTING, Phase.COMPLETE),
        epoch=state.epoch,
        lag_seconds=state.lag_seconds,
        synced=state.synced,
        source=source,
        problems=tuple(f"{subject}: {reason}" for subject, reason in sorted(state.problems.items())),
    )


async def _look(kubelink: Kubelink, health: Health, registry: CollectorRegistry, changed: asyncio.Event) -> None:
    """A standby is ready: it can take over. One that writes is ready once its lists are complete."""
    written = Gauge("eastwest_entries_written", "Entries appended to the log.", registry=registry)
    epoch = Gauge("eastwest_epoch", "Offset of the own Epoch record; -1 while standing by.", registry=registry)
    lag = Gauge("eastwest_lag_seconds", "Age of the oldest change not in the log yet.", registry=registry)
    problems = Gauge("eastwest_problems", "Objects and kinds with a problem.", registry=registry)
    phase: Phase | None = None
    while True:
        state = kubelink.state
        reason = f"{state.phase.value}; complete so far: {', '.join(state.synced) or 'none'}"
        health.set_ready("lists", state.ready, reason)
        written.set(state.written)
        epoch.set(state.epoch)
        lag.set(state.lag_seconds)
        problems.set(len(state.problems))
        if state.phase is not phase:
            phase = state.phase
            changed.set()
        await asyncio.sleep(LOOK_SECONDS)
