"""Sandboxes come, go and come again, whoever restarts: rules are where a Pod's network is, none in vain."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enforcers.node.snapshot import load
from schemas.status import PodState
from tests.components.kubernetes.node import Node
from tests.components.kubernetes.remains import cut_power
from tests.components.waiting import until
from tests.node.fixtures.daemonset import DaemonSetStack
from tests.node.fixtures.pods import ctr, netns_of, pod_state, rules, running_sandbox
from tests.node.fixtures.shop import Shop, opened, pod
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

ONLY_FRIEND = [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]


@pytest.mark.parametrize("restarted", ["containerd", "kubelet"])
async def test_after_a_restart_only_what_is_new_is_written(stack: Stack, restarted: str):
    async with opened(stack, f"after-{restarted}") as shop:
        node = shop.cluster.nodes[0]
        only_http = [{"ports": [{"port": "http"}]}]
        await shop.cluster.apply(
            shop.policy("web", {"app": "web"}, ingress=only_http), shop.policy("late", {"role": "late"}, ingress=[])
        )
        await stack.enforced()
        before = len(await patches(stack, node, shop))

        await node.kill(restarted)
        node.start(restarted)
        await shop.cluster.apply(pod("late", shop.name, node.name, role="late"))
        await shop.ready()
        await stack.enforced()

        await shop.obeys("stranger -> web-1:8080\nstranger -x late:8080 web-1:9090")
        assert await pod_state(stack, shop, "late") == PodState.ENFORCED
        written = (await patches(stack, node, shop))[before:]
        assert {each["name"] for each in written} == {"late"}, written


async def test_a_pod_whose_sandbox_died_is_isolated_in_its_next_one(stack: Stack):
    async with opened(stack, "reborn") as shop:
        node = shop.cluster.nodes[0]
        await shop.cluster.apply(shop.policy("web", {"app": "web"}, ingress=ONLY_FRIEND))
        await stack.enforced()
        uid = shop.pods["web-1"]["metadata"]["uid"]
        first, place = running_sandbox(node, uid), await netns_of(stack, shop, "web-1")

        ctr(node, "tasks", "kill", "-s", "SIGKILL", first)
        await until("another sandbox", lambda: another_sandbox(node, uid, first), within_seconds=60)
        await until("its containers to run again", lambda: restarted(shop, ["web-1"]), within_seconds=60)
        await shop.ready()
        await stack.enforced()

        assert shop.pods["web-1"]["metadata"]["uid"] == uid
        assert await netns_of(stack, shop, "web-1") != place
        assert "EW-" in rules(await netns_of(stack, shop, "web-1"))
        await shop.obeys("friend -> web-1:8080\nstranger -x web-1:8080\nother -x web-1:8080")
        await until("the old namespace to be gone", lambda: gone(place), within_seconds=20)


async def patches(stack: Stack, node: Node, shop: Shop) -> list[dict[str, Any]]:
    """What its enforcer has written to the shop's Pods, the oldest first."""
    socket = str(stack.folder / node.name / "enforcer.sock")
    written = await stack.eastwest("node", "--socket", socket, "patches", "-n", shop.name, "-o", "json")
    found: list[dict[str, Any]] = json.loads(written)
    return found


async def another_sandbox(node: Node, uid: str, first: str) -> bool:
    return running_sandbox(node, uid) not in ("", first)


async def restarted(shop: Shop, names: list[str]) -> bool:
    """Whether every container of these Pods was restarted, and they are ready again."""
    for name in names:
        status = (await shop.get("pod", **placed(shop, name)))["status"]
        if not all(each["restartCount"] and each["ready"] for each in status["containerStatuses"]):
            return False
    return True


def placed(shop: Shop, name: str) -> dict[str, str]:
    metadata = shop.pods[name]["metadata"]
    return {"name": metadata["name"], "namespace": metadata["namespace"]}


async def gone(path: Path) -> bool:
    return not path.exists()  # noqa: ASYNC240  # microseconds


async def test_a_static_pod_is_enforced_and_listed_under_its_mirror(stack: Stack):
    async with opened(stack, "static") as shop:
        node = shop.cluster.nodes[0]
        await shop.cluster.apply(shop.policy("closed", {"role": "static"}, ingress=ONLY_FRIEND))
        manifest = node.static_pods / "static.json"
        manifest.write_text(json.dumps(static(shop)))
        name = f"static-{node.name}"
        try:
            await shop.cluster.kubectl("-n", shop.name, "wait", "--for=create", f"pod/{name}", "--timeout=30s")
            await shop.ready()
            await stack.enforced()

            await shop.obeys(f"friend -> {name}:8080\nstranger -x {name}:8080\nother -x {name}:8080")
            report = await stack.get("container-workloads", "-n", shop.name, name)
            assert report["status"]["state"] == PodState.ENFORCED
            assert [each["state"] for each in report["status"]["containers"]] == ["running"]
            assert report["uid"] != shop.pods[name]["metadata"]["annotations"]["kubernetes.io/config.mirror"]
        finally:
            manifest.unlink()
        await shop.cluster.kubectl("-n", shop.name, "wait", "--for=delete", f"pod/{name}", "--timeout=60s")
        await stack.enforced()


def static(shop: Shop) -> dict[str, Any]:
    """A static Pod's file names no node: it lies on it. Its name gets the node's added."""
    made = pod("static", shop.name, "", role="static")
    del made["spec"]["nodeName"]
    return made


async def test_a_node_that_is_drained_holds_no_program_and_takes_pods_again(daemonset_stack: DaemonSetStack):
    async with opened(daemonset_stack, "drained") as shop:
        node = shop.cluster.nodes[0]
        await shop.cluster.apply(shop.policy("web", {"app": "web"}, ingress=ONLY_FRIEND))
        await daemonset_stack.enforced()
        drain = ("--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
        await shop.cluster.kubectl("drain", node.name, *drain)
        try:
            await daemonset_stack.enforced()
            left = {uid for on, uid in (await daemonset_stack.published()).programs if on == node.name}
            shops = {each["metadata"]["uid"] for each in shop.pods.values()}
            assert not left & shops

            async def forgotten() -> bool:  # the API forgets a Pod somewhat before its sandbox is gone
                pods = json.loads(await daemonset_stack.on(node, "eastwest", "node", "pods", "-o", "json"))
                return not [each for each in pods if each["namespace"] in (shop.name, shop.other)]

            await until("the enforcer to let go of their sandboxes", forgotten, within_seconds=30)
        finally:
            await shop.cluster.kubectl("uncordon", node.name)
        await shop.cluster.apply(
            pod("friend", shop.name, node.name, role="friend"), pod("other", shop.other, node.name, role="other")
        )
        await shop.ready()
        await daemonset_stack.enforced()
        await shop.obeys("friend -> web-1:8080 web-2:8080\nstranger -x web-1:8080 web-2:8080")


async def test_a_node_that_boots_while_nats_is_away_enforces_what_it_kept(stack: Stack):
    async with opened(stack, "booting") as shop:
        node = shop.cluster.nodes[0]
        await shop.cluster.apply(shop.policy("web", {"app": "web"}, ingress=ONLY_FRIEND))
        revision = await stack.enforced()
        kept = stack.folder / node.name / f"{stack.name}.{node.name}.enforcer.snapshot"
        await until("the state to be on disk", lambda: keeps(kept, revision), within_seconds=20)
        places = [await netns_of(stack, shop, name) for name in ("web-1", "friend", "other")]

        await stack.nats.kill()
        await stack.enforcers[node.name].kill()
        await booted(node)
        stack.start_enforcer(node)
        await until("its Pods to run again", lambda: restarted(shop, ["web-1", "friend", "other"]), within_seconds=90)
        await shop.ready()
        assert not any(place.exists() for place in places)

        await until("what was kept to be enforced", lambda: enforced_from_disk(stack, node, shop), within_seconds=30)
        await shop.obeys("stranger -x web-1:8080\nother -x web-1:8080\nstranger -> friend:8080")

        await stack.nats.start()
        await stack.enforced()
        await shop.obeys("friend -> web-1:8080\nstranger -x web-1:8080\nother -x web-1:8080")


async def booted(node: Node) -> None:
    """Cut its power and start its programs again, each once what it needs is there."""
    for program in ("kube-proxy", "kubelet", "containerd"):
        await node.kill(program)
    cut_power(node.namespace, node.folder)
    node.start("containerd")

    async def answers() -> bool:
        return bool(ctr(node, "version"))

    await until("containerd to answer", answers, within_seconds=30, ignoring=(subprocess.CalledProcessError,))
    node.start("kubelet")
    node.start("kube-proxy")


async def keeps(snapshot: Path, revision: int) -> bool:
    kept = load(snapshot)
    return kept is not None and kept.revision >= revision


async def enforced_from_disk(stack: Stack, node: Node, shop: Shop) -> bool:
    """As the node itself says: nobody else can be asked."""
    socket = ("node", "--socket", str(stack.folder / node.name / "enforcer.sock"))
    status = json.loads(await stack.eastwest(*socket, "status", "-o", "json"))
    pods = json.loads(await stack.eastwest(*socket, "pods", "-n", shop.name, "-o", "json"))
    states = {each["name"]: each["state"] for each in pods}
    return bool(status["from_disk"]) and states.get(shop.pods["web-1"]["metadata"]["name"]) == PodState.ENFORCED
