"""A small shop of real Pods on both nodes, and the question who reaches whom."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.components.kubernetes.cluster import Cluster
from tests.components.kubernetes.images import AGNHOST
from tests.components.waiting import until
from tests.node.stack import Stack

HTTP: Final = 8080
ADMIN: Final = 9090
DENIED_SECONDS: Final = 1
"""How long a connection is tried that shall be dropped."""
ALLOWED_SECONDS: Final = 5
DROPPED: Final = ("TIMEOUT", "operation not permitted")
"""How agnhost tells it; whoever sends UDP hears at once (EPERM) that its own rules dropped it."""


class Shop:
    """Namespaces ``NAME`` and ``NAME-other``. Everything serves HTTP on port 8080, named ``http``.

    ::

        NAME         web-1, web-2  Deployment of two, one per node; also port 9090, named ``admin``; Service ``web``
                     friend        on node 1, role=friend
                     stranger      on node 2, role=stranger
        NAME-other   other         on node 1
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.other = f"{name}-other"
        self.family = 4
        """Of the addresses that `address` gives."""
        self._addresses: dict[str, list[str]] = {}

    async def open(self) -> None:
        """Make everything, and wait until all of it is ready and everybody reaches the Service."""
        nodes = [node.name for node in self.cluster.nodes]
        await self.cluster.apply(_namespace(self.name), _namespace(self.other, team="other"))
        for namespace in (self.name, self.other):  # without its service account no Pod is admitted
            await self.cluster.kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default")
        await self.cluster.apply(
            self.deployment(),
            self.service(),
            pod("friend", self.name, nodes[0], role="friend"),
            pod("stranger", self.name, nodes[1], role="stranger"),
            pod("other", self.other, nodes[0], role="other"),
        )
        await self.ready()
        for client in ("friend", "stranger", "other"):  # kube-proxy takes a moment

            async def served(client: str = client) -> bool:
                return await self.reaches(client, "web:80")

            await until(f"{client} to reach the Service", served, within_seconds=20, ignoring=(AssertionError,))

    async def close(self) -> None:
        await self.cluster.kubectl("delete", "namespace", self.name, self.other, "--wait=false", "--ignore-not-found")

    def deployment(self) -> dict[str, Any]:
        """One server per node: no node takes a second."""
        apart = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": self.name},
            "spec": {
                "replicas": len(self.cluster.nodes),
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 0,
                        "affinity": {
                            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
                        },
                        "containers": [server("main", HTTP, "http"), server("admin", ADMIN, "admin", udp=9091)],
                    },
                },
            },
        }

    def service(self) -> dict[str, Any]:
        specification: dict[str, Any] = {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        }
        if self.cluster.ipv6:
            specification |= {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}
        metadata = {"name": "web", "namespace": self.name}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": specification}

    async def ready(self) -> None:
        """Wait for every Pod; learn all addresses. ``web-1`` is the server on node 1."""
        await self.cluster.kubectl("-n", self.name, "rollout", "status", "deployment/web", "--timeout=60s")
        for namespace in (self.name, self.other):
            await self.cluster.kubectl(
                "-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"
            )
        self._addresses["web"] = (await self.get("service", "web"))["spec"]["clusterIPs"]
        self.pods: dict[str, dict[str, Any]] = {}
        for namespace in (self.name, self.other):
            for item in json.loads(await self.cluster.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]:
                name = item["metadata"]["name"]
                if item["metadata"].get("labels", {}).get("app") == "web":
                    name = f"web-{item['spec']['nodeName'].removeprefix('node')}"
                self.pods[name] = item
                self._addresses[name] = [each["ip"] for each in item["status"]["podIPs"]]

    async def get(self, kind: str, name: str, namespace: str = "") -> Any:
        return json.loads(await self.cluster.kubectl("-n", namespace or self.name, "get", kind, name, "-o", "json"))

    def place(self, name: str, *addresses: str) -> None:
        """Let *name* be a target at *addresses*, one per family."""
        self._addresses[name] = list(addresses)

    def address(self, name: str) -> str:
        """Of a Pod, the Service ``web`` or a place, in the current `family`."""
        return next(each for each in self._addresses[name] if (":" in each) == (self.family == 6))

    async def reaches(self, client: str, target: str, *, expected: bool = True) -> bool:
        """Whether *client* gets an answer from *target*, ``name:port`` or ``name:port/udp``; else it was dropped.

        Raises AssertionError for any other end, such as a refused connection: nothing is proved by that.
        """
        name, _, numbered = target.partition(":")
        port, _, protocol = numbered.partition("/")
        place = f"[{self.address(name)}]" if self.family == 6 else self.address(name)
        pod = self.pods[client]["metadata"]
        seconds = ALLOWED_SECONDS if expected else DENIED_SECONDS
        how = (f"--protocol={protocol or 'tcp'}", f"--timeout={seconds}s")
        command = ("/agnhost", "connect", *how, f"{place}:{port}")
        try:
            await self.cluster.kubectl("-n", pod["namespace"], "exec", pod["name"], "-c", "main", "--", *command)
        except AssertionError as error:
            if not any(sign in str(error) for sign in DROPPED):
                raise
            return False
        return True

    async def obeys(self, table: str) -> None:
        """Try every line of *table*, all at once: ``client -> target`` passes, ``client -x target`` is dropped.

        Several targets stand one after the other. Raises AssertionError naming every line that is not so.
        """
        cells = list(_cells(table.splitlines()))
        found = await asyncio.gather(*(self.reaches(client, to, expected=yes) for client, to, yes in cells))
        wrong = [
            f"{client} {'does not reach' if yes else 'reaches'} {to}"
            for (client, to, yes), seen in zip(cells, found, strict=True)
            if seen is not yes
        ]
        assert not wrong, f"IPv{self.family}: {', '.join(wrong)}"

    def policy(self, name: str, selector: dict[str, str], **rules: Any) -> dict[str, Any]:
        """A NetworkPolicy of the shop for the Pods with labels *selector*; *rules* are ``ingress`` and ``egress``."""
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": self.name},
            "spec": {
                "podSelector": {"matchLabels": selector},
                "policyTypes": [direction.capitalize() for direction in rules],
                **rules,
            },
        }


@asynccontextmanager
async def opened(stack: Stack, name: str) -> AsyncIterator[Shop]:
    """A shop beside *stack* for the length of a block."""
    shop = Shop(stack.cluster, name)
    try:
        await shop.open()
        yield shop
    finally:
        await shop.close()


def server(name: str, port: int, port_name: str, *, udp: int = 8081) -> dict[str, Any]:
    """A container that answers on *port*, and that its node's kubelet asks every second whether it is ready."""
    return {
        "name": name,
        "image": AGNHOST,
        "imagePullPolicy": "Never",
        "args": ["netexec", f"--http-port={port}", f"--udp-port={udp}"],
        "ports": [{"name": port_name, "containerPort": port}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": port},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "timeoutSeconds": 3,
        },
    }


def pod(name: str, namespace: str, node: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [server("main", HTTP, "http")]},
    }


def _namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _cells(lines: Iterable[str]) -> Iterable[tuple[str, str, bool]]:
    for line in filter(None, map(str.strip, lines)):
        client, sign, *targets = line.split()
        assert sign in ("->", "-x"), line
        for target in targets:
            yield client, target, sign == "->"
