"""A Pod's very first packets: what they meet with the gate, and without.

A Pod comes into being in the lab; the moment its network works it connects to a server that its own egress forbids, and
to one whose ingress admits it and that has not heard of its address yet.
"""

import asyncio
import errno
import select
import socket
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from compose.embedded.lab_cluster import LabCluster, lab_cluster
from compose.lab import namespaces
from compose.lab.cluster.manifests import read_manifests
from compose.lab.plan import Layout, PlannedPod
from enforcers.kernel.namespaces import inside
from schemas.objects import Container, KubernetesObject, Meta, Pod, PodSpec
from tests.compose.commands import EASTWEST

pytestmark = [pytest.mark.netns, pytest.mark.nats, pytest.mark.usefixtures("capable"), pytest.mark.timeout(120)]

PODS = 6
DENIED_SECONDS = 0.5
TOTAL_RETRANSMISSIONS = 100
"""Offset of ``tcpi_total_retrans`` in ``struct tcp_info`` (linux/tcp.h)."""
SERVERS = """
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: shop, labels: {app: vault}}
spec: {nodeName: node-2, containers: [{name: vault, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: node-2, containers: [{name: db, ports: [{containerPort: 8080}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients-to-db-only, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-from-clients-only, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
"""


def client(name: str) -> Pod:
    meta = Meta(name=name, namespace="shop", labels={"app": "client"})
    return Pod(metadata=meta, spec=PodSpec(node_name="node-1", containers=(Container(name="app", image="app:1"),)))


class Starts:
    """Pods that start in *cluster*, and what became of each one's first two connections."""

    def __init__(self, cluster: LabCluster, servers: Iterable[KubernetesObject]) -> None:
        self.cluster = cluster
        self.found: Counter[str] = Counter()
        self.waited: list[float] = []
        """Seconds that each gated Pod was kept."""
        self._objects = list(servers)
        self._new: set[str] = set()
        self._running: list[asyncio.Task[None]] = []

    async def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        await self.cluster.realized(await self.cluster.change(self._objects))
        apply = self.cluster.lab.apply

        async def then_start(layout: Layout) -> None:
            """As the container runtime does: the network is made, nobody was told of it yet."""
            await apply(layout)
            self._running += [self._start(pod) for pod in self.cluster.lab.plan.pods if pod.key in self._new]

        monkeypatch.setattr(self.cluster.lab, "apply", then_start)

    async def start(self, prefix: str, *, gated: bool) -> Counter[str]:
        self.found.clear()
        pods = [client(f"{prefix}-{number}") for number in range(PODS)]
        self._new = {f"shop/{pod.metadata.name}" for pod in pods}
        self._gated = gated
        self._objects += pods
        await self.cluster.realized(await self.cluster.change(self._objects))
        await asyncio.gather(*self._running)
        self._running, self._new = [], set()
        return self.found

    def _start(self, pod: PlannedPod) -> "asyncio.Task[None]":
        """Without a gate it connects before anything else happens; with one, as soon as that lets it."""
        if self._gated:
            return asyncio.create_task(self._wait_and_connect(pod), name=pod.key)
        return self._connect(pod)

    async def _wait_and_connect(self, pod: PlannedPod) -> None:
        node = self.cluster.lab.plan.node(pod.pod.node).addresses[0]
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={namespaces.path_of(pod.netns)}", EASTWEST, "gate", "--host", node
        )
        assert await process.wait() == 0
        self.waited.append(time.monotonic() - began)
        await self._connect(pod)

    def _connect(self, pod: PlannedPod) -> "asyncio.Task[None]":
        """The packets leave now; what becomes of them is looked at later."""
        begun = {name: begin_to_connect(pod, self.cluster.lab.pod(f"shop/{name}")) for name in ("vault", "db")}
        return asyncio.create_task(self._note(begun), name=pod.key)

    async def _note(self, begun: dict[str, socket.socket]) -> None:
        for name, each in begun.items():
            with each:
                self.found[f"{name} {await asyncio.to_thread(outcome, each)}"] += 1


def begin_to_connect(pod: PlannedPod, server: PlannedPod) -> socket.socket:
    made = inside(namespaces.path_of(pod.netns), socket.socket)
    made.setblocking(False)
    assert made.connect_ex((server.pod.addresses[0], 8080)) in (0, errno.EINPROGRESS)
    return made


def outcome(connecting: socket.socket) -> str:
    """Of the very first packet: one that was lost may get through when it is sent again."""
    _, writable, _ = select.select([], [connecting], [], DENIED_SECONDS)
    if not writable or connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return "denied"
    told = connecting.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANSMISSIONS + 4)
    return "denied" if int.from_bytes(told[TOTAL_RETRANSMISSIONS:], "little") else "reached"


async def test_behind_the_gate_nothing_forbidden_gets_through_and_nothing_allowed_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    manifest = tmp_path / "servers.yaml"
    manifest.write_text(SERVERS)
    async with lab_cluster(tmp_path) as cluster:
        starts = Starts(cluster, read_manifests([manifest]))
        await starts.begin(monkeypatch)

        without = dict(await starts.start("bare", gated=False))
        assert without == {"vault reached": PODS, "db denied": PODS}, "the gap that the gate closes is not there"
        behind = dict(await starts.start("gated", gated=True))
        assert behind == {"vault denied": PODS, "db reached": PODS}

        with capsys.disabled():
            print(f"\nfirst packets of {PODS} Pods, without the gate: {without}; behind it: {behind}")
            print(
                f"the gate kept them {min(starts.waited):.1f} to {max(starts.waited):.1f} s, with the command's start"
            )
