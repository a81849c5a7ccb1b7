"""The five reports on a real cluster: what they say is what Kubernetes and containerd say."""

import asyncio
import subprocess
from typing import Any

import pytest

from tests.components.kubernetes.node import Node
from tests.components.waiting import until
from tests.node.shop import Shop, opened
from tests.node.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]


async def test_the_five_reports_say_what_the_cluster_is(stack: Stack):
    async with opened(stack, "reported") as shop:
        await shop.cluster.apply(shop.policy("closed", {"app": "web"}, ingress=[]))
        await stack.enforced()
        summary, workloads, pods, services, profiles = await asyncio.gather(
            stack.get("summary"),
            stack.get("workloads"),
            stack.get("container-workloads", "-n", shop.name),
            stack.get("virtual-services", "-n", shop.name),
            stack.get("profiles"),
        )

    assert summary["version"].startswith("v1.")
    assert summary["service_ranges"] == ["10.96.0.0/16"]
    assert (summary["nodes_ready"], summary["synced"], summary["errors"]) == (2, True, [])
    said = {(each["component"], each["name"].partition("-")[0]): each for each in summary["status"]["components"]}
    assert {component for component, _ in said} == {"c-ven", "kubelink", "processor"}
    assert {each["connectivity"] for each in said.values()} == {"online"}

    assert [(each["name"], each["ready"], each["status"]["connectivity"]) for each in workloads] == [
        ("node1", True, "online"),
        ("node2", True, "online"),
    ]
    assert all(each["status"]["realized"] == each["status"]["desired_revision"] for each in workloads)
    assert all(each["runtime"].startswith("containerd://") for each in workloads)

    web = [each for each in pods if each["labels"].get("app") == "web"]
    assert [each["node"] for each in sorted(web, key=lambda each: each["node"])] == ["node1", "node2"]
    for each in web:
        assert [owner.partition("/")[0] for owner in each["owners"]] == ["ReplicaSet", "Deployment"]
        assert each["policies"] == [f"NetworkPolicy/{shop.name}/closed"]
        assert each["status"]["state"] == "enforced"
    friend = next(each for each in pods if each["name"] == "friend")
    assert (friend["policies"], friend["status"]["state"]) == ([], "no policy")

    (service,) = services
    assert service["type"] == "ClusterIP"
    assert [(port["port"], port["target"]) for port in service["ports"]] == [(80, "http")]
    assert sorted(each["target"] for each in service["backends"] if each["state"] == "ready") == sorted(
        f"Pod/{shop.name}/{each['name']}" for each in web
    )

    by_namespace = {each["namespace"]: each for each in profiles}
    assert (by_namespace[shop.name]["mode"], by_namespace["eastwest"]["mode"]) == ("selective", "idle")
    assert (by_namespace[shop.name]["pods"], by_namespace[shop.name]["policies"]) == (4, ["closed"])


async def test_containers_are_told_as_containerd_reports_them_also_after_a_restart(stack: Stack):
    async with opened(stack, "contained") as shop:
        node = shop.cluster.nodes[0]
        name = shop.pods["web-1"]["metadata"]["name"]

        async def as_kubernetes_says() -> bool:
            return await told(stack, shop, name) == await truth(shop, name)

        await until("the containers of web-1 to be told", as_kubernetes_says, within_seconds=20)
        before = await told(stack, shop, name)
        assert {each["name"] for each in before} == {"main", "admin"}
        assert containers_of(node) >= {each["id"].removeprefix("containerd://") for each in before}

        kill_container(node, next(each["id"] for each in before if each["name"] == "admin"))
        await until("the kubelet to start it again", lambda: restarted(shop, name), within_seconds=40)
        await until("the new container to be told", as_kubernetes_says, within_seconds=20)
        admin = next(each for each in await told(stack, shop, name) if each["name"] == "admin")
        assert (admin["restarts"], admin["state"]) == (1, "running")
        assert admin["id"] not in {each["id"] for each in before}


async def told(stack: Stack, shop: Shop, name: str) -> list[dict[str, Any]]:
    report = await stack.get("container-workloads", "-n", shop.name, name)
    return sorted((report["status"] or {}).get("containers", ()), key=lambda each: each["name"])


async def truth(shop: Shop, name: str) -> list[dict[str, Any]]:
    """What the kubelet, which asks containerd too, says of a Pod's containers."""
    pod = await shop.get("pod", name)
    found = []
    for each in sorted(pod["status"]["containerStatuses"], key=lambda each: each["name"]):
        ((state, details),) = each["state"].items()
        assert state == "running", each
        told = {"name": each["name"], "image": each["image"], "id": each["containerID"], "state": state}
        told["started_at"] = details["startedAt"]
        found.append(told | ({"restarts": each["restartCount"]} if each["restartCount"] else {}))
    return found


async def restarted(shop: Shop, name: str) -> bool:
    statuses = (await shop.get("pod", name))["status"]["containerStatuses"]
    return any(each["restartCount"] and "running" in each["state"] for each in statuses)


def containers_of(node: Node) -> set[str]:
    return set(_ctr(node, "containers", "ls", "-q").split())


def kill_container(node: Node, identity: str) -> None:
    _ctr(node, "tasks", "kill", "-s", "SIGKILL", identity.removeprefix("containerd://"))


def _ctr(node: Node, *arguments: str) -> str:
    command = ["ctr", "-a", str(node.containerd_socket), "-n", "k8s.io", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
