"""The C-VEN of one node of a lab, as a process of its own that can be killed.

As the role `eastwest enforcer`, but its Pods are told by a file, and it notes in another what it has realized.
"""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from compose.connections import bus_of
from enforcers.cven import Cven
from enforcers.enforcer import Enforcer
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from enforcers.settings import EnforcerSettings
from schemas.status import PodState
from streams.lifecycle import serve
from streams.telemetry import Health, set_up_logging

LOOK_SECONDS = 0.02
DRAIN_SECONDS = 5.0
SETTLED = (PodState.ENFORCED, PodState.OPEN, PodState.IDLE)


class Job(msgspec.Struct, frozen=True):
    """What the process is told as its only argument."""

    settings: EnforcerSettings
    node_netns: Path
    sandboxes: Path
    """A file with the node's Pods (`write_sandboxes`); looked at again and again."""
    progress: Path
    snapshot: Path


class Progress(msgspec.Struct, frozen=True):
    """What one C-VEN has realized."""

    revision: int = -1
    settled: frozenset[str] = frozenset()
    """Uids of Pods that hold what this revision, or a later one, asks of them."""
    exceptions: frozenset[str] = frozenset()


def encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


def decode(data: bytes, type_: Any) -> Any:
    return msgspec.json.decode(data, type=type_, dec_hook=lambda wanted, value: wanted(value))


def write(path: Path, value: object) -> None:
    """At once: who reads it meanwhile finds the old or the new."""
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(encode(value))
    unfinished.replace(path)


async def _run(job: Job) -> None:
    async def work(stop: asyncio.Event) -> None:
        runtime = GivenRuntime()
        bus = bus_of(job.settings, f"enforcer {job.settings.node}")
        enforcer = Enforcer(
            job.settings,
            bus,
            runtime,
            node_netns=job.node_netns,
            snapshot=job.snapshot,
            health=Health(),
            registry=CollectorRegistry(),
        )
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(_tell_sandboxes(job.sandboxes, runtime), name="sandboxes"),
                tasks.create_task(_note_progress(job.progress, enforcer.cven), name="progress"),
            ]
            await tasks.create_task(enforcer.run(stop, jitter_seconds=0.2), name="enforcer")
            for task in others:
                task.cancel()

    await serve(work, name="enforcer", drain_seconds=DRAIN_SECONDS)


async def _tell_sandboxes(path: Path, runtime: GivenRuntime) -> None:
    seen = b""
    while True:
        if (found := path.read_bytes()) != seen:  # noqa: ASYNC240  a small file
            seen = found
            runtime.tell(decode(found, list[Sandbox]))
        await asyncio.sleep(LOOK_SECONDS)


async def _note_progress(path: Path, cven: Cven) -> None:
    noted = Progress()
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await cven.realized(cven.revision + 1)
        settled = frozenset(uid for uid, pod in cven.node.pods.items() if pod.state in SETTLED)
        now = Progress(cven.revision, settled, frozenset(one.uid for one in cven.exceptions))
        if now.revision >= 0 and now != noted:
            write(path, now)
            noted = now


if __name__ == "__main__":
    set_up_logging("human", "info")
    asyncio.run(_run(decode(sys.argv[1].encode(), Job)))
