"""What happens to real clusters: servers die, Pods come, go and move, runtimes restart, namespaces vanish."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from producers.api_connection import Access
from producers.api_server_source import ApiServerSource
from schemas.policy import Policy
from schemas.status import PodState
from streams.child_process import ChildProcess
from streams.log import Record
from streams.sqlite.sqlite_log import SqliteLogs
from streams.topics import events
from tests.components.waiting import until
from tests.node.fixtures.pods import netns_of, pod_state, rules, sets
from tests.node.fixtures.shop import opened, pod
from tests.node.fixtures.stack import Stack
from tests.producers.reading import fold, records
from tests.producers.running import complete, kubelink

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]


async def test_an_api_server_killed_during_changes_leaves_the_same_state_as_a_fresh_list(stack: Stack, tmp_path: Path):
    async with opened(stack, "killed") as shop:
        await stack.enforced()

        async def change(number: int) -> None:
            """One of many: policies come, change and go, labels change, Pods come and go."""
            await shop.cluster.apply(shop.policy(f"p{number % 4}", {"role": "friend"}, egress=only_port(8000 + number)))
            await shop.cluster.kubectl("-n", shop.name, "label", "--overwrite", "pod", "stranger", f"turn=t{number}")
            if number % 3 == 0:
                await shop.cluster.kubectl("-n", shop.name, "delete", "networkpolicy", f"p{number % 4}")
            if number in (2, 6):
                await shop.cluster.kubectl("-n", shop.other, "delete", "pod", "other", "--wait=false")
                await shop.cluster.kubectl("-n", shop.other, "wait", "pod", "other", "--for=delete", "--timeout=30s")
                await shop.cluster.apply(pod("other", shop.other, shop.cluster.nodes[0].name, role="other"))

        for number in range(4):
            await change(number)
        await shop.cluster.control_plane.kill()
        await shop.cluster.control_plane.start()
        for number in range(4, 8):
            await change(number)
        await shop.ready()
        revision = await stack.enforced()

        fresh = await fresh_records(stack, tmp_path)
        live = [record for record in await stack.records() if record.offset <= revision]
        assert objects(live) == objects(fresh)
        assert folded(live) == folded(fresh)
        assert await stack.published() == folded(fresh)


def only_port(port: int) -> list[dict[str, Any]]:
    return [{"ports": [{"port": port}]}]


async def fresh_records(stack: Stack, folder: Path) -> list[Record]:
    """What a Kubelink that knows nothing writes about the cluster now."""
    access = Access(kubeconfig=str(stack.cluster.kubeconfig))

    async def listed() -> list[Record]:
        async with SqliteLogs(folder / "fresh.db") as logs:
            log = await logs.open(events("test"))
            async with kubelink(log, ApiServerSource(access)) as link:
                await complete(link)
            return await records(log)

    return await stack.cluster.inside(listed)


def objects(stored: list[Record]) -> dict[str, Any]:
    return {key: value for key, value in fold(stored)[0].items() if not key.startswith("Cluster/")}


def folded(stored: list[Record]) -> Policy:
    state = ClusterFold("real", ProcessorSettings().policy)
    state.advance(stored)
    return state.policy()


async def test_a_pod_that_is_made_again_or_moved_is_isolated_where_it_is(stack: Stack):
    async with opened(stack, "moving") as shop:
        first, second = shop.cluster.nodes
        await shop.cluster.apply(
            shop.policy(
                "web", {"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]
            ),
            shop.policy("stranger", {"role": "stranger"}, ingress=[]),
        )
        await shop.cluster.kubectl("-n", shop.name, "delete", "pod", shop.pods["web-1"]["metadata"]["name"])
        await shop.cluster.kubectl("-n", shop.name, "delete", "pod", "stranger")
        await shop.cluster.apply(pod("stranger", shop.name, first.name, role="stranger"))
        await shop.ready()
        await stack.enforced()
        await shop.obeys(
            """
            friend   -> web-1:8080 web-2:8080 web:80
            stranger -x web-1:8080 web-2:8080
            other    -x web-1:8080 stranger:8080
            friend   -x stranger:8080
            """
        )
        uid = shop.pods["stranger"]["metadata"]["uid"]
        assert [node for node, each in (await stack.published()).programs if each == uid] == [first.name]
        assert second.name != first.name


async def test_a_pod_in_its_nodes_network_is_never_entered(stack: Stack):
    async with opened(stack, "hosted") as shop:
        node = shop.cluster.nodes[0]
        hosted = pod("hosted", shop.name, node.name, role="hosted")
        hosted["spec"] |= {"hostNetwork": True, "containers": [{**hosted["spec"]["containers"][0], "args": ["pause"]}]}
        del hosted["spec"]["containers"][0]["readinessProbe"], hosted["spec"]["containers"][0]["ports"]
        await shop.cluster.apply(hosted, shop.policy("closed", {}, ingress=[], egress=[]))
        await shop.ready()
        await stack.enforced()

        assert "EW-" not in rules(node.netns)
        assert "EW-" in rules(await netns_of(stack, shop, "friend"))
        report = await stack.get("container-workloads", "-n", shop.name, "hosted")
        assert (report["segmentation"], report["status"]) == ("host network", None)


async def test_rules_stand_while_an_enforcer_is_away_and_its_return_writes_nothing(stack: Stack):
    async with opened(stack, "returning") as shop:
        node = shop.cluster.nodes[0]
        await shop.cluster.apply(
            shop.policy(
                "web", {"app": "web"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]
            )
        )
        await stack.enforced()
        place = await netns_of(stack, shop, "web-1")
        before = rules(place), sets(place)
        for end in (ChildProcess.end, ChildProcess.kill):
            await end(stack.enforcers[node.name])
            await shop.obeys("friend -> web-1:8080\nstranger -x web-1:8080\nother -x web-1:8080")
            stack.start_enforcer(node)
            await stack.enforced()
            assert await stack.metric(node, "eastwest_patches_total") == 0
            assert (rules(place), sets(place)) == before


async def test_a_pod_whose_namespace_vanished_is_named_and_costs_nobody_else_anything(stack: Stack):
    async with opened(stack, "vanishing") as shop:
        place = await netns_of(stack, shop, "friend")
        subprocess.run(["umount", place], check=True)  # noqa: ASYNC221  # milliseconds
        place.unlink()
        await shop.cluster.apply(shop.policy("closed", {}, ingress=[]))
        wanted = await stack.revision()

        async def named() -> bool:
            cven = await stack.cven("node1")
            return cven.realized >= wanted and [each.name for each in cven.exceptions] == ["friend"]

        await until("the exception to be named", named, within_seconds=20)
        (exception,) = (await stack.cven("node1")).exceptions
        assert str(place) in exception.reason
        await shop.obeys("other -x web-1:8080 web-2:8080")

        await shop.cluster.kubectl("-n", shop.name, "delete", "pod", "friend", "--force")
        await stack.enforced()


async def test_a_restart_of_containerd_is_outlived(stack: Stack):
    async with opened(stack, "restarting") as shop:
        node = shop.cluster.nodes[0]
        await stack.enforced()
        await node.kill("containerd")
        await shop.cluster.apply(shop.policy("web", {"app": "web"}, ingress=[{"ports": [{"port": "http"}]}]))
        wanted = await stack.revision()
        for each in shop.cluster.nodes:

            async def realized(name: str = each.name) -> bool:
                return (await stack.cven(name)).realized >= wanted

            await until(f"{each.name} to go on without its runtime", realized, within_seconds=20)
        node.start("containerd")

        async def answers() -> bool:
            return await shop.reaches("friend", "web-1:8080")

        await until("containerd to answer", answers, within_seconds=40, ignoring=(AssertionError,))
        await shop.obeys("friend -> web-1:8080\nfriend -x web-1:9090\nstranger -x web-1:9090")
        await shop.cluster.apply(pod("late", shop.name, node.name, app="web"))
        await shop.ready()
        await stack.enforced()
        await shop.obeys("stranger -> web-1:8080\nstranger -x web-1:9090")
        assert (await pod_state(stack, shop, "late")) == PodState.ENFORCED
