"""Pods as a real containerd reports them."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec import structs

from enforcers.kernel.addressing import place
from enforcers.runtimes.calls import Calls
from enforcers.runtimes.containerd import METADATA, Containerd
from enforcers.runtimes.cri import CriRuntime
from enforcers.runtimes.runtime import Sandbox
from tests.components.kubernetes.cluster import Cluster
from tests.components.kubernetes.images import AGNHOST

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]


def pod(name: str, node: str, **spec: object) -> dict[str, object]:
    container = {"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["pause"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


async def test_a_pod_is_seen_by_its_events_with_its_namespace_and_containers_and_gone_when_it_ends(cluster: Cluster):
    node = cluster.nodes[0]
    runtime = CriRuntime(str(node.containerd_socket), relist_seconds=3600)
    async with runtime, aclosing(runtime.watch()) as watching:
        await anext(watching)
        await cluster.apply(pod("seen-by-cri", node.name), pod("on-the-host", node.name, hostNetwork=True))

        async with asyncio.timeout(60):
            async for sandboxes in watching:
                found = named(sandboxes, "seen-by-cri")
                if found and found.containers and found.containers[0].state == "running":
                    break
        await cluster.kubectl("wait", "pod", "seen-by-cri", "on-the-host", "--for=condition=Ready", "--timeout=60s")
        uid = await cluster.kubectl("get", "pod", "seen-by-cri", "-o", "jsonpath={.metadata.uid}")
        address = await cluster.kubectl("get", "pod", "seen-by-cri", "-o", "jsonpath={.status.podIP}")

        assert found.uid == uid
        assert ".".join(map(str, found.addresses[0])) == address
        assert place(found.netns, found.addresses).links == ("eth0",)
        assert (found.containers[0].name, found.containers[0].image.rpartition("/")[2]) == ("main", last(AGNHOST))
        assert not named(await runtime.sandboxes(), "on-the-host")
        assert runtime.description.startswith("containerd ")

        await cluster.kubectl("delete", "pod", "seen-by-cri", "on-the-host", "--wait=true")
        async with asyncio.timeout(60):
            async for sandboxes in watching:
                if not named(sandboxes, "seen-by-cri"):
                    break


async def test_the_handler_of_a_runtime_class_is_told_and_containerd_says_what_its_cri_says(cluster: Cluster):
    node = cluster.nodes[0]
    handled = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "named"}, "handler": "runc"}
    await cluster.apply(handled)
    await cluster.apply(pod("handled", node.name, runtimeClassName="named"), pod("usual", node.name))
    await cluster.kubectl("wait", "pod", "handled", "usual", "--for=condition=Ready", "--timeout=60s")
    async with CriRuntime(str(node.containerd_socket)) as runtime:
        found = await runtime.sandboxes()
    calls = Calls(str(node.containerd_socket), metadata=METADATA)
    for each in found.values():
        assert await Containerd(calls).sandbox(each.id) == structs.replace(each, containers=())
    calls.close()
    assert {each.name: each.handler for each in found.values() if each.name in ("handled", "usual")} == {
        "handled": "runc",
        "usual": "",
    }
    await cluster.kubectl("delete", "pod", "handled", "usual", "--wait=false")


async def test_a_runtime_that_is_not_there_is_waited_for(tmp_path: Path):
    runtime = CriRuntime(str(tmp_path / "nobody.sock"), relist_seconds=0.05)
    async with runtime, aclosing(runtime.watch()) as watching:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(watching)


def named(sandboxes: Mapping[str, Sandbox], name: str) -> Sandbox | None:
    return next((sandbox for sandbox in sandboxes.values() if sandbox.name == name), None)


def last(image: str) -> str:
    return image.rpartition("/")[2]
