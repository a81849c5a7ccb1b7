"""The containers of a Pod as containerd has them: of every kind, restarted, crashed, removed, and many."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from enforcers.runtimes.calls import Calls
from enforcers.runtimes.cri_listing import SERVICE
from enforcers.runtimes.messages import message_type
from tests.components.kubernetes.images import AGNHOST, PAUSE
from tests.components.kubernetes.node import Node
from tests.components.waiting import until
from tests.node.fixtures.pods import ctr
from tests.node.fixtures.shop import Shop, opened, pod
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]

MANY = 50


async def test_containers_are_told_as_the_kubelet_has_them_also_after_a_restart(stack: Stack):
    async with opened(stack, "contained") as shop:
        node = shop.cluster.nodes[0]
        name = shop.pods["web-1"]["metadata"]["name"]
        await agree(stack, shop, name)
        before = await told(stack, shop, name)
        assert before.keys() == {"main", "admin"}

        ctr(node, "tasks", "kill", "-s", "SIGKILL", before["admin"]["id"].removeprefix("containerd://"))
        await until("the kubelet to start it again", lambda: restarts(shop, name, "admin"), within_seconds=40)
        await agree(stack, shop, name)
        admin = (await told(stack, shop, name))["admin"]
        assert (admin["restarts"], admin["state"]) == (1, "running")
        assert admin["id"] != before["admin"]["id"]


async def test_containers_of_every_kind_are_told_and_one_that_was_removed_no_more(stack: Stack):
    async with opened(stack, "kinds") as shop:
        node = shop.cluster.nodes[0]
        await shop.cluster.apply(every_kind(shop))
        await until("the crashing one to crash again", lambda: restarts(shop, "kinds", "crashing"), within_seconds=60)
        await shop.cluster.control_plane.api(
            "PATCH",
            f"/api/v1/namespaces/{shop.name}/pods/kinds/ephemeralcontainers",
            {"spec": {"ephemeralContainers": [container("ephemeral", "pause")]}},
            content_type="application/strategic-merge-patch+json",
        )

        async def all_told() -> bool:
            kinds = {"first", "sidecar", "main", "crashing", "ephemeral"}
            return (await told(stack, shop, "kinds")).keys() == kinds and await agreed(stack, shop, "kinds")

        await until("containers of every kind to be told", all_told, within_seconds=40, ignoring=(LookupError,))
        found = await told(stack, shop, "kinds")
        assert {name: each["state"] for name, each in found.items() if name != "crashing"} == {
            "first": "exited",
            "sidecar": "running",
            "main": "running",
            "ephemeral": "running",
        }
        assert found["crashing"]["restarts"] >= 1

        await remove(node, found["first"]["id"])
        await until("the removed one to be told no more", lambda: untold(stack, shop, "first"), within_seconds=20)
        assert (await told(stack, shop, "kinds")).keys() == {"sidecar", "main", "crashing", "ephemeral"}


async def test_a_pod_of_many_containers_is_told_whole(stack: Stack):
    async with opened(stack, "many") as shop:
        many = pod("many", shop.name, shop.cluster.nodes[0].name)
        many["spec"]["containers"] = [
            {"name": f"c-{number}", "image": PAUSE, "imagePullPolicy": "Never"} for number in range(MANY)
        ]
        await shop.cluster.apply(many)
        await shop.cluster.kubectl("-n", shop.name, "wait", "pod/many", "--for=condition=Ready", "--timeout=120s")
        await agree(stack, shop, "many")
        assert len(await told(stack, shop, "many")) == MANY


def every_kind(shop: Shop) -> dict[str, Any]:
    made = pod("kinds", shop.name, shop.cluster.nodes[0].name)
    made["spec"]["initContainers"] = [
        container("first", "--help"),  # ends, and well
        {**container("sidecar", "pause"), "restartPolicy": "Always"},
    ]
    made["spec"]["containers"] = [
        container("main", "pause"),
        container("crashing", "connect", "--timeout=1s", "127.0.0.1:1"),
    ]
    return made


def container(name: str, *arguments: str) -> dict[str, Any]:
    return {"name": name, "image": AGNHOST, "imagePullPolicy": "Never", "args": list(arguments)}


async def told(stack: Stack, shop: Shop, name: str) -> dict[str, dict[str, Any]]:
    """The containers of the Pod *name* in Container Workloads, by name."""
    report = await stack.get("container-workloads", "-n", shop.name, name)
    return {each["name"]: each for each in (report["status"] or {}).get("containers", ())}


async def agree(stack: Stack, shop: Shop, name: str) -> None:
    """Wait until the containers of the Pod *name* are told as the kubelet has them."""
    await until(
        f"the containers of {name} to be told",
        lambda: agreed(stack, shop, name),
        within_seconds=20,
        ignoring=(LookupError,),
    )


async def agreed(stack: Stack, shop: Shop, name: str) -> bool:
    """Whether that is what the kubelet, which asks containerd too, says of them."""
    found = await shop.get("pod", name)
    expected = {each["name"]: each for each in _as_told(found["status"])}
    seen = await told(stack, shop, name)
    if seen != expected:
        raise LookupError(f"told {json.dumps(seen)}, expected {json.dumps(expected)}")
    return True


def _as_told(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind, ()):
            states = {**each.get("lastState", {}), **each["state"]}  # one that waits has ended before
            state = "running" if "running" in states else "exited"
            details = states["running" if state == "running" else "terminated"]
            yield {
                "name": each["name"],
                "image": each["image"],
                "id": details.get("containerID", each["containerID"]),
                "state": state,
                "started_at": details["startedAt"],
                **({"restarts": each["restartCount"]} if each["restartCount"] else {}),
            }


async def untold(stack: Stack, shop: Shop, name: str) -> bool:
    return name not in await told(stack, shop, "kinds")


async def restarts(shop: Shop, name: str, of: str) -> bool:
    statuses = (await shop.get("pod", name))["status"].get("containerStatuses", ())
    return any(each["restartCount"] for each in statuses if each["name"] == of)


async def remove(node: Node, identity: str) -> None:
    """As the kubelet removes a dead container: by the CRI."""
    request = message_type("ContainerStatusRequest")(id=identity.removeprefix("containerd://"))
    calls = Calls(str(node.containerd_socket))
    await calls.ask(f"{SERVICE}/RemoveContainer", request, "ContainerEvent")  # both are as this call wants them
    calls.close()
