"""A real Kubernetes of two nodes on this machine: kubelet, kube-proxy, containerd, bridge CNI. Up in about 5 s."""

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import aiohttp

from streams.child_process import ChildProcess
from tests.components.kubernetes.certificates import node_token
from tests.components.kubernetes.control_plane import ApiError, ControlPlane
from tests.components.kubernetes.images import default_images
from tests.components.kubernetes.networks import (
    CONTROL_PLANE_ADDRESS,
    SERVICE_RANGES,
    NodeNetwork,
    control_plane_namespace,
    make_networks,
)
from tests.components.kubernetes.node import Node
from tests.components.kubernetes.remains import ClusterRecord, remove_remains, sweep_dead_clusters
from tests.components.namespaces import inside
from tests.components.waiting import until

T = TypeVar("T")

_NUMBERS = itertools.count(1)
"""Tells the clusters of one process apart."""


class Cluster:
    """``async with Cluster(folder, binaries) as cluster: await cluster.kubectl("get", "nodes")``. Needs root.

    The API server listens on `CONTROL_PLANE_ADDRESS` in namespace `namespace`, which holds nothing else: brokers and
    processors that nodes shall reach belong there (`spawn`). No namespace of it has a default route.
    """

    address = CONTROL_PLANE_ADDRESS
    """Of the control plane, as nodes and Pods reach it."""

    def __init__(
        self,
        folder: Path,
        binaries: Path,
        *,
        nodes: int = 2,
        proxy_mode: Literal["iptables", "nftables"] = "iptables",
        ipv6: bool = False,
    ) -> None:
        self.folder = folder
        self.binaries = binaries
        self.proxy_mode = proxy_mode
        self.ipv6 = ipv6
        self.service_ranges = SERVICE_RANGES if ipv6 else SERVICE_RANGES[:1]
        self.prefix = f"ew{os.getpid()}-{next(_NUMBERS)}"
        self.namespace = control_plane_namespace(self.prefix)
        networks = [NodeNetwork(self.prefix, number + 1) for number in range(nodes)]
        self.nodes = [Node(folder / f"node{each.number}", binaries, each, ipv6=ipv6) for each in networks]
        self._record: ClusterRecord | None = None
        self._control_plane: ControlPlane | None = None

    @property
    def control_plane(self) -> ControlPlane:
        """To kill and start the API server, and for raw requests."""
        assert self._control_plane is not None, "the cluster is not up"
        return self._control_plane

    @property
    def kubeconfig(self) -> Path:
        """For the admin; its address is reachable inside `namespace` and on the nodes."""
        return self.control_plane.kubeconfig

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """See `ControlPlane.kubectl`."""
        return await self.control_plane.kubectl(*arguments, stdin=stdin)

    async def apply(self, *objects: dict[str, Any]) -> str:
        """``kubectl apply`` *objects*."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return await self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    async def inside(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run *work* as if on the control plane's machine; see `namespaces.inside`."""
        return await inside(self.namespace, work)

    def spawn(self, name: str, command: Sequence[str | Path]) -> ChildProcess:
        """Start *command* on the control plane's machine; the caller ends it."""
        return self.control_plane.spawn(name, command)

    async def import_image(self, *archives: Path) -> None:
        """Make images known to every node."""
        await asyncio.gather(*(_import(node, archive) for node in self.nodes for archive in archives))

    async def up(self) -> None:
        sweep_dead_clusters()
        namespaces = [self.namespace, *(node.namespace for node in self.nodes)]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._record = ClusterRecord.write(self.prefix, self.folder, namespaces)
        make_networks(self.prefix, [node.network for node in self.nodes], ipv6=self.ipv6)
        self._control_plane = plane = self._make_control_plane()
        for node in self.nodes:
            node.start_containerd()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(plane.start(), name="control-plane")
            tasks.create_task(self._import_default_images(), name="images")
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._start_controller(plane, name)
        for node in self.nodes:
            node.start_kubelet(plane.certificates, plane.write_kubeconfig(node.name, node_token(node.name)))
            node.start_kube_proxy(plane.kubeconfig, self.proxy_mode)
        await until(
            "every node and the default service account to be ready",
            self._ready,
            within_seconds=90,
            poll_seconds=0.1,
            ignoring=(ApiError, aiohttp.ClientError, OSError),
        )

    async def down(self) -> None:
        """End everything and leave nothing: no process, namespace, mount, cgroup, or changed setting."""
        for node in self.nodes:  # the kubelets first: they would start anew what is killed
            for process in reversed(node.processes):
                await process.kill()
        if self._control_plane is not None:
            await self._control_plane.__aexit__(None, None, None)
        if self._record is not None:
            remove_remains(self._record)

    async def __aenter__(self) -> Self:
        try:
            await self.up()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the first error tells more
                await self.down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    def _make_control_plane(self) -> ControlPlane:
        folder = self.folder / "control-plane"
        folder.mkdir()
        plane = ControlPlane(
            folder,
            self.binaries,
            address=CONTROL_PLANE_ADDRESS,
            namespace=self.namespace,
            nodes={node.name: node.address for node in self.nodes},
        )
        certificates = plane.certificates
        plane.flags += [
            "--authorization-mode=Node,RBAC",
            f"--advertise-address={CONTROL_PLANE_ADDRESS}",
            f"--service-cluster-ip-range={','.join(self.service_ranges)}",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={certificates.certificate('kubelet-client')}",
            f"--kubelet-client-key={certificates.key('kubelet-client')}",
            f"--kubelet-certificate-authority={certificates.ca}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        return plane

    def _start_controller(self, plane: ControlPlane, name: str) -> None:
        command: list[str | Path] = [self.binaries / name, f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false"]
        command.append("--bind-address=127.0.0.1")
        if name == "kube-controller-manager":
            command.append(f"--service-account-private-key-file={plane.certificates.service_account_key}")
            command.append(f"--root-ca-file={plane.ca}")
        plane.others.append(plane.spawn(name, command))

    async def _import_default_images(self) -> None:
        archives = default_images(self.binaries, self.folder / "images")
        for node in self.nodes:
            await until(
                f"containerd of {node.name} to answer", lambda node=node: _containerd_answers(node), within_seconds=30
            )
        await self.import_image(*archives)

    async def _ready(self) -> bool:
        for process in (*self.control_plane.others, *(each for node in self.nodes for each in node.processes)):
            process.ensure_running()
        listed = await self.control_plane.api("GET", "/api/v1/nodes")
        ready = [
            item["metadata"]["name"]
            for item in listed["items"]
            for condition in item["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        # Without it no Pod can be made in the namespace.
        await self.control_plane.api("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        return len(ready) == len(self.nodes)


async def _containerd_answers(node: Node) -> bool:
    for process in node.processes:
        process.ensure_running()
    return await _ctr(node, "version") is None


async def _import(node: Node, archive: Path) -> None:
    failed = await _ctr(node, "-n", "k8s.io", "images", "import", str(archive))
    assert failed is None, f"importing {archive.name} on {node.name}: {failed}"


async def _ctr(node: Node, *arguments: str) -> str | None:
    """Run containerd's own client; None, or its words where it failed."""
    process = await asyncio.create_subprocess_exec(
        *("ctr", "--address", str(node.containerd_socket), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return None if process.returncode == 0 else output.decode()
