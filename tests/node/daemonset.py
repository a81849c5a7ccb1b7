"""The enforcers as a cluster runs them: the DaemonSet of the project's own manifests, in the project's own image.

A node of the test differs from a real one in where its files lie: both are on one machine. A kustomize overlay says so,
and where NATS is; everything else is as shipped.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

from streams.channels.reporting import now
from tests.components.kubernetes.cluster import Cluster
from tests.components.kubernetes.node import Node
from tests.node.stack import MANIFESTS, Stack

NAMESPACE: Final = "eastwest"
CONTAINERD: Final = "/run/containerd"
STATE: Final = "/var/lib/eastwest"
SOCKET: Final = "/run/eastwest"


class DaemonSetStack(Stack):
    """A stack whose enforcers are Pods. *image* is the archive that ``make image`` writes."""

    def __init__(self, cluster: Cluster, folder: Path, jars: Path, *, image: Path) -> None:
        super().__init__(cluster, folder, jars)
        self.image = image

    async def start_enforcers(self) -> None:
        await self.cluster.import_image(self.image)
        await self.cluster.kubectl("-n", NAMESPACE, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        overlay = self.folder / "overlay"
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(json.dumps(self._overlay(overlay)))
        rendered = await self.cluster.kubectl(
            "kustomize", "--load-restrictor=LoadRestrictionsNone", str(overlay)
        )  # the manifests lie outside of it
        self.started()
        await self.cluster.kubectl("apply", "-f", "-", stdin=rendered)
        await self.rolled_out()

    def started(self) -> None:
        """From now on, only what the next enforcers say counts."""
        self.since = {node.name: now() for node in self.cluster.nodes}

    async def rolled_out(self) -> None:
        await self.cluster.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset/enforcer", "--timeout=90s")

    async def enforcer_pods(self) -> dict[str, dict[str, Any]]:
        """By name of node."""
        listed = await self.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", "app=enforcer", "-o", "json")
        return {each["spec"]["nodeName"]: each for each in json.loads(listed)["items"]}

    async def on(self, node: Node, *command: str) -> str:
        """Run *command* in the enforcer's container of *node*."""
        pod = (await self.enforcer_pods())[node.name]
        return await self.cluster.kubectl("-n", NAMESPACE, "exec", pod["metadata"]["name"], "--", *command)

    async def logs(self) -> str:
        names = [each["metadata"]["name"] for each in (await self.enforcer_pods()).values()]
        logs = await asyncio.gather(*(self.cluster.kubectl("-n", NAMESPACE, "logs", name) for name in names))
        return "".join(logs)

    def _overlay(self, folder: Path) -> dict[str, Any]:
        files = ("00-namespace.yaml", "50-enforcer.yaml")
        settings = {"EASTWEST_CLUSTER": self.name, "EASTWEST_NATS": self.nats.url}
        own_folder = "$(EASTWEST_ENFORCER_NODE)"
        container = {
            "name": "enforcer",
            "env": [
                {"name": "EASTWEST_ENFORCER_OBSERVE", "value": "false"},
                {"name": "EASTWEST_ENFORCER_STATUS_SECONDS", "value": "1"},
            ],
            "volumeMounts": [
                {"mountPath": CONTAINERD, "name": "containerd", "subPathExpr": own_folder},
                {"mountPath": STATE, "name": "state", "subPathExpr": own_folder},
                {"mountPath": SOCKET, "name": "socket", "subPathExpr": own_folder},
            ],
        }
        volumes = [
            {"name": "containerd", "hostPath": {"path": str(self.cluster.folder)}},
            {"name": "state", "hostPath": {"path": str(self.folder / "state")}},
            {"name": "socket", "hostPath": {"path": str(self.folder / "socket")}},
        ]
        daemonset = {
            **_named("apps/v1", "DaemonSet", "enforcer"),
            "spec": {"template": {"spec": {"volumes": volumes, "containers": [container]}}},
        }
        return {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(MANIFESTS / name, folder) for name in files],
            "patches": [
                {"patch": json.dumps({**_named("v1", "ConfigMap", "eastwest"), "data": settings})},
                {"patch": json.dumps(daemonset)},
            ],
        }


def _named(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
