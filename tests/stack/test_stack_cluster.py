"""The compose file beside a real API server: the README's second section."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.components.docker_engine import BRIDGE_ADDRESS, NAMESPACE, DockerEngine
from tests.components.kubernetes.control_plane import ControlPlane
from tests.components.waiting import until
from tests.stack.compose_project import ComposeProject

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

SERVICES = {"kafka", "nats", "kubelink", "processor", "enforcer"}
POD = {
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "web:1"}]},
}
POLICY = {"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}


@pytest.fixture
async def server(engine: DockerEngine, control_plane_binaries: Path, tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """An API server where the stack's containers can reach it: on the engine's bridge."""
    place = {"address": BRIDGE_ADDRESS, "namespace": NAMESPACE}
    flags = ["--disable-admission-plugins=ServiceAccount"]  # no controller makes accounts here
    async with ControlPlane(tmp_path, control_plane_binaries, **place, flags=flags) as server:
        yield server


async def test_events_of_a_cluster_become_reports_and_programs(
    engine: DockerEngine, server: ControlPlane, tmp_path: Path
):
    settings = {"COMPOSE_PROFILES": "cluster", "EASTWEST_KUBECONFIG": str(server.kubeconfig), "EASTWEST_UID": "0"}
    project = ComposeProject(engine.environment, tmp_path, settings)
    await asyncio.to_thread(project.run, "up", "-d")
    try:
        await project.until_healthy(SERVICES)
        await server.api("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
        await server.api("POST", "/api/v1/namespaces/shop/pods", POD)
        await server.api("POST", "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies", POLICY)

        async def isolated() -> Any:
            programs = json.loads(project.eastwest("get", "programs", "-n", "shop", "-o", "json"))["programs"]
            return [each for each in programs if each["name"] == "web" and "ingress" in each]

        (program,) = await until("the program", isolated, within_seconds=30, poll_seconds=1, ignoring=(AssertionError,))
        assert program["ingress"]["isolating"] == ["NetworkPolicy/shop/deny"]
        summary = json.loads(project.eastwest("get", "summary", "-o", "json"))
        assert summary["version"].startswith("v1.")
    finally:
        await asyncio.to_thread(project.run, "down", "-v", "--timeout", "10")
    assert project.docker("ps", "-aq") == ""
