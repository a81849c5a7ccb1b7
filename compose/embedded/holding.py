"""`eastwest lab up`: an enforcing lab that follows its manifests until it is told to stop."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from compose.contexts import Context, announced
from compose.embedded.lab_cluster import LabCluster, lab_cluster
from compose.lab import showing
from compose.lab.capability import INSIDE
from compose.lab.cluster.manifests import InvalidManifest, read_manifests
from compose.lab.plan import DEFAULT_NODES
from schemas.objects import KubernetesObject
from streams.lifecycle import happens, serve

POLL_SECONDS: Final = 0.3
DOWN_SECONDS: Final = 10.0


async def hold(files: Sequence[Path], *, nodes: Sequence[str], externals: Sequence[str], name: str) -> None:
    """Keep a lab of what *files* describe until a signal; what changes in them changes in the lab.

    Raises `InvalidManifest` for files that cannot be read at the start; later the last readable state stands.
    """

    async def holding(stop: asyncio.Event) -> None:
        async with lab_cluster(name=name, nodes=nodes or DEFAULT_NODES, externals=externals) as cluster:
            await _follow(cluster, files, stop)

    await serve(holding, name="lab", drain_seconds=DOWN_SECONDS)


async def _follow(cluster: LabCluster, files: Sequence[Path], stop: asyncio.Event) -> None:
    console, world = Console(), cluster.world
    context = Context(
        name=f"lab-{cluster.lab.name}",
        cluster=world.cluster,
        log=str(world.log_file),
        nats=world.nats_url,
        pid=os.getpid(),
    )
    first = True
    with announced(context):
        async for objects in _versions(files, stop):
            began = time.monotonic()
            await cluster.realized(await cluster.change(objects))
            console.print(showing.pods_table(cluster.lab.plan))
            console.print(f"enforced on {len(cluster.enforcers)} nodes after {time.monotonic() - began:.2f} s")
            if first:
                console.print("manifests are followed; Ctrl-C ends the lab. In another terminal:")
                console.print("  eastwest lab probe     who reaches whom")
                if INSIDE not in os.environ:  # the bus of a lab in a user namespace is in there as well
                    console.print(f"  eastwest get programs --context {context.name}")
                    socket = cluster.socket_of(next(iter(cluster.enforcers)))
                    console.print(f"  eastwest node --socket {socket} pods", soft_wrap=True)
                first = False


async def _versions(files: Sequence[Path], stop: asyncio.Event) -> AsyncGenerator[list[KubernetesObject]]:
    """The objects in *files*, now and whenever a file changes, until *stop* is set."""
    seen: object = None
    while not stop.is_set():
        stamp = _stamp(files)
        if stamp != seen:
            try:
                yield await asyncio.to_thread(read_manifests, files)
            except InvalidManifest as error:
                if seen is None:
                    raise
                click.echo(f"not taken, what stood before stands: {error}", err=True)
            seen = stamp
        await happens(stop, within_seconds=POLL_SECONDS)


def _stamp(files: Sequence[Path]) -> tuple[tuple[str, int], ...]:
    found = [each for file in files for each in (sorted(file.rglob("*")) if file.is_dir() else [file])]
    return tuple((str(each), each.stat().st_mtime_ns) for each in found if each.is_file())
