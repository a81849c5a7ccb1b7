"""A C-VEN in a world of namespaces, told its policy by the test."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from enforcers.cven import Cven
from enforcers.metrics import Metrics
from enforcers.node.snapshot import Kept
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from enforcers.settings import EnforcerSettings
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import Program
from schemas.status import Tampering
from streams.telemetry import Health
from tests.enforcers.pod_world import ALLOW, CLIENTS, DENY, World, both, eventually, packed

NEIGHBOUR_DENY: Final = msgspec.structs.replace(DENY, uid="uid-b", name="b")
"""The program of `neighbour`."""


def told(revision: int, *programs: Program, clients: set[bytes], complete: bool = True) -> NodeUpdate:
    change = SetChange(id=CLIENTS, added=frozenset(clients))
    return NodeUpdate(programs=programs, sets=(change,), mark=Mark(revision=revision), complete=complete)


class Told:
    """A policy reader that tells what a test says."""

    def __init__(self, *updates: NodeUpdate) -> None:
        self._updates: asyncio.Queue[NodeUpdate] = asyncio.Queue()
        self.tell(*updates)

    def tell(self, *updates: NodeUpdate) -> None:
        for update in updates:
            self._updates.put_nowait(update)

    def __aiter__(self) -> AsyncIterator[NodeUpdate]:
        return self

    async def __anext__(self) -> NodeUpdate:
        return await self._updates.get()


def neighbour(world: World) -> Sandbox:
    """Another Pod of the node, where the peer *b* is; it is begun before *web*."""
    return Sandbox(uid="uid-b", namespace="shop", name="b", netns=world.path("b"), addresses=(packed("b"),))


def slow_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, where: Path | None = None) -> Path:
    """Let the tool *name* wait, in the namespace *where* or in any, until the file is there that is returned.

    The real tool then does its work; also after half a minute, where a test has failed. *folder* is for this alone.
    """
    go, slow = folder / "go", folder / name
    elsewhere = f'[ "$(readlink /proc/self/ns/net)" != "net:[{where.stat().st_ino}]" ]' if where else "false"
    waiting = f"for _ in $(seq 1500); do [ -e {go} ] && break; sleep 0.02; done"
    slow.write_text(f'#!/bin/sh\n{elsewhere} || {waiting}\nexec {shutil.which(name)} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return go


@asynccontextmanager
async def running(
    world: World,
    reader: Told,
    *sandboxes: Sandbox,
    runtime: GivenRuntime | None = None,
    kept: Kept | None = None,
    **settings: Any,
) -> AsyncIterator[Cven]:
    """A C-VEN on the node of *world*, which writes chains as all enforcements there do unless told otherwise."""
    settings.setdefault("chain_backend", world.chains)
    given = runtime or GivenRuntime(sandboxes or (world.sandbox(),))
    async with running_on(world.path("node"), reader, given, kept=kept, **settings) as cven:
        yield cven


@asynccontextmanager
async def running_on(
    node_netns: Path, reader: Told, runtime: GivenRuntime, *, kept: Kept | None = None, **settings: Any
) -> AsyncIterator[Cven]:
    cven = Cven(
        EnforcerSettings(node="node-1", **settings),
        runtime,
        node_netns=node_netns,
        kept=kept,
        metrics=Metrics(CollectorRegistry()),
        health=Health(),
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(cven.run(reader, stop), name="C-VEN")
        try:
            yield cven
        finally:
            stop.set()


@asynccontextmanager
async def enforcing(world: World, **settings: Any) -> AsyncIterator[Cven]:
    """A Pod that only *a* may reach, on port 80, and whose rules are known to be right."""
    async with running(world, Told(told(1, ALLOW, clients=both("a"))), **settings) as cven:
        await realized(cven, 1)
        await until("the rules to be read back", lambda: cven.node.pods["uid-web"].tables.read_back.generation >= 0)
        yield cven


async def healed(cven: Cven, times: int = 1) -> Tampering:
    """The newest tampering, once *times* were put back."""
    await until(f"{times} heals", lambda: cven.node.tamperings.healed >= times)
    return cven.node.tamperings.recent[-1]


async def realized(cven: Cven, revision: int) -> None:
    async with asyncio.timeout(10):
        await cven.realized(revision)


async def until(what: str, holds: Any, seconds: float = 15.0) -> None:
    await asyncio.to_thread(eventually, what, holds, seconds)
