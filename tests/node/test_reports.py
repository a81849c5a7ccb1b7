"""The five reports on a real cluster: what they say is what Kubernetes and containerd say."""

import asyncio

import pytest

from tests.node.fixtures.serving import families
from tests.node.fixtures.shop import opened
from tests.node.fixtures.stack import Stack

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
    assert summary["service_ranges"] == list(stack.cluster.service_ranges)
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
        f"Pod/{shop.name}/{each['name']}" for each in web for _ in families(shop)
    )

    by_namespace = {each["namespace"]: each for each in profiles}
    assert (by_namespace[shop.name]["mode"], by_namespace["eastwest"]["mode"]) == ("selective", "idle")
    assert (by_namespace[shop.name]["pods"], by_namespace[shop.name]["policies"]) == (4, ["closed"])
