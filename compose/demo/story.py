"""The demo's story: the shop open, the shop under its policies, a label and a Pod changed live, the five reports."""

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from msgspec.structs import replace
from rich.console import Console
from rich.rule import Rule as Line

from compose.embedded.lab_cluster import LabCluster, lab_cluster
from compose.lab import showing
from compose.lab.cluster.manifests import read_manifests
from compose.lab.matrix import Cell
from compose.lab.probing import Answer, Outcome
from schemas.objects import Container, ContainerPort, KubernetesObject, Meta, Pod, PodSpec

SHOP: Final = Path(str(resources.files("compose.demo") / "shop"))
REPORTS: Final = ("summary", "workloads", "container-workloads", "virtual-services", "profiles")
Matrix = Mapping[Cell, Answer]


async def tell(console: Console) -> None:
    """Tell it, in a lab of its own."""
    began = time.monotonic()
    shop = read_manifests([SHOP / "10-shop.yaml"])
    policies = read_manifests([SHOP / "20-policies.yaml"])
    async with lab_cluster(cluster="demo") as cluster:
        _head(console, "A shop in three namespaces, six Pods on two nodes; no policy yet")
        await _change(console, cluster, shop)
        before = await cluster.probe()
        console.print(showing.matrix_table(before))

        _head(console, f"Its policies are applied: {', '.join(each.metadata.name for each in policies)}")
        await _change(console, cluster, [*shop, *policies])
        after = await cluster.probe()
        console.print(showing.matrix_table(after))
        _differences(console, before, after)

        _head(console, "What one Pod enforces, and why")
        await _command(console, cluster, "get", "programs", "shop/checkout")

        _head(console, "A label changes: the visitor becomes a storefront")
        shop = [_relabelled(each, "visitor", {"app": "storefront"}) for each in shop]
        await _change(console, cluster, [*shop, *policies])
        relabelled = await cluster.probe()
        _differences(console, after, relabelled)

        _head(console, "A Pod appears: a second cart, on the other node")
        await _change(console, cluster, [*shop, _second_cart(), *policies])
        _differences(console, relabelled, await cluster.probe())

        _head(console, "The five reports")
        for report in REPORTS:
            await _command(console, cluster, "get", report)
    _head(console, f"Done in {time.monotonic() - began:.0f} s; nothing is left on this machine")


async def _change(console: Console, cluster: LabCluster, objects: Iterable[KubernetesObject]) -> None:
    began = time.perf_counter()
    revision = await cluster.change(objects)
    written = time.perf_counter()
    await cluster.realized(revision)
    done = time.perf_counter()
    console.print(
        f"revision {revision}: network and log {1e3 * (written - began):.0f} ms; "
        f"log → policy → kernel, acknowledged by {len(cluster.enforcers)} nodes {1e3 * (done - written):.0f} ms"
    )


def _differences(console: Console, before: Matrix, after: Matrix) -> None:
    """What opened and what closed; pairs that were not there before are told as they are."""
    opened = [cell for cell in after if _passes(after, cell) and not (cell in before and _passes(before, cell))]
    closed = [cell for cell in before if _passes(before, cell) and cell in after and not _passes(after, cell)]
    for title, found, style in (("now open", opened, "green"), ("now closed", closed, "red")):
        for cell in sorted(found):
            console.print(f"  {title}: {cell.source} → {cell.destination} {cell.port}", style=style)
    same = len(after) - len(opened) - len(closed)
    console.print(f"  {len(opened)} opened, {len(closed)} closed, {same} as before")


def _passes(matrix: Matrix, cell: Cell) -> bool:
    return matrix[cell].outcome is Outcome.REACHABLE


async def _command(console: Console, cluster: LabCluster, *arguments: str) -> None:
    """Run the command as a user would in another terminal."""
    console.print(f"$ eastwest {' '.join(arguments)}", style="bold")
    where = ["--nats", cluster.world.nats_url, "--cluster", cluster.world.cluster]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from compose.command import main; main()", *arguments, *where
    )
    if await process.wait():
        raise RuntimeError(f"eastwest {' '.join(arguments)} failed")
    console.print()


def _head(console: Console, text: str) -> None:
    console.print()
    console.print(Line(text, align="left"))


def _relabelled(item: KubernetesObject, name: str, labels: dict[str, str]) -> KubernetesObject:
    if not isinstance(item, Pod) or item.metadata.name != name:
        return item
    return replace(item, metadata=replace(item.metadata, labels=labels))


def _second_cart() -> Pod:
    port = ContainerPort(name="http", container_port=8080)
    return Pod(
        metadata=Meta(name="cart-2", namespace="shop", labels={"app": "cart"}),
        spec=PodSpec(node_name="node-2", containers=(Container(name="cart", image="shop/cart:1", ports=(port,)),)),
    )
