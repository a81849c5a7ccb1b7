"""A new Pod is isolated before its first container runs: counted by connections, and measured at the kernel."""

import asyncio
import json
import statistics
import time
from typing import Any, NamedTuple

import pytest

from enforcers.runtimes.calls import Calls
from enforcers.runtimes.containerd import METADATA, Containerd
from enforcers.runtimes.cri_listing import SERVICE, CriListing
from enforcers.runtimes.messages import message_type
from tests.components.kubernetes.images import AGNHOST
from tests.components.kubernetes.node import Node
from tests.components.waiting import until
from tests.node.fixtures.commits import Commits
from tests.node.fixtures.shop import DENIED_SECONDS, Shop, opened
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

ONE_BY_ONE = 10
AT_ONCE = 30


async def test_a_pod_that_connects_in_its_first_instant_is_isolated_by_then(
    stack: Stack, capsys: pytest.CaptureFixture[str]
):
    async with opened(stack, "early") as shop:
        await shop.cluster.apply(shop.policy("closed", {"early": "yes"}, egress=[]))
        await stack.enforced()
        starts = Starts(shop.cluster.nodes[0])
        with Commits(shop.cluster.nodes[0]) as commits:
            async with starts:
                for number in range(ONE_BY_ONE):
                    await tried(shop, [f"alone-{number}"])
                await tried(shop, [f"together-{number}" for number in range(AT_ONCE)])
                measured = await starts.beside(commits)
        outcomes = await outcomes_of(shop)

    with capsys.disabled():
        print()
        for kind in ("alone", "together"):
            told(kind, [life for name, life in measured.items() if name.startswith(kind)])
    assert len(outcomes) == ONE_BY_ONE + AT_ONCE
    assert sorted(name for name, reached in outcomes.items() if reached) == []


async def tried(shop: Shop, names: list[str]) -> None:
    """Start Pods whose first deed is to connect to another node's server, and wait until all of them did or did not."""
    target = f"{shop.address('web-2')}:8080"
    await shop.cluster.apply(*(early(shop, name, target) for name in names))

    async def over() -> bool:
        return (await outcomes_of(shop)).keys() >= set(names)

    await until(f"{names} to have tried", over, within_seconds=120, poll_seconds=0.5)


def early(shop: Shop, name: str, target: str) -> dict[str, Any]:
    """Of two containers: the second keeps the network alive, so that it can be looked at."""
    common = {"image": AGNHOST, "imagePullPolicy": "Never"}
    connecting = {"name": "main", **common, "args": ["connect", f"--timeout={DENIED_SECONDS}s", target]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": shop.name, "labels": {"early": "yes"}},
        "spec": {
            "nodeName": shop.cluster.nodes[0].name,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [connecting, {"name": "stay", **common, "args": ["pause"]}],
        },
    }


async def outcomes_of(shop: Shop) -> dict[str, bool]:
    """Of the Pods that tried: whether they reached the server."""
    listed = json.loads(await shop.cluster.kubectl("-n", shop.name, "get", "pods", "-l", "early=yes", "-o", "json"))
    return {
        pod["metadata"]["name"]: each["state"]["terminated"]["exitCode"] == 0
        for pod in listed["items"]
        for each in pod["status"].get("containerStatuses", ())
        if each["name"] == "main" and "terminated" in each["state"]
    }


class Life(NamedTuple):
    """When a Pod's sandbox was created, its network made, its last rule written, its first container run."""

    created: float
    networked: float
    enforced: float
    ran: float


class Starts:
    """``async with``: hears from containerd when each Pod's network was made, and when each container began to run."""

    def __init__(self, node: Node) -> None:
        self._cri, self._own = Calls(str(node.containerd_socket)), Calls(str(node.containerd_socket), metadata=METADATA)
        self._networked: dict[str, float] = {}  # by sandbox
        self._started: dict[str, float] = {}  # by container

    async def __aenter__(self) -> None:
        self._listening = asyncio.create_task(Containerd(self._own).listen(self._heard, limit_seconds=1))

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])
        self._cri.close()
        self._own.close()

    def _heard(self, topic: str, container: str) -> None:
        if topic == "/containers/update":  # the last one brings the addresses
            self._networked[container] = time.time()
        elif topic == "/tasks/start":
            self._started[container] = time.time()

    async def beside(self, commits: Commits) -> dict[str, Life]:
        """By name of Pod."""
        request = message_type("ListContainersRequest")()
        listed = (await self._cri.ask(f"{SERVICE}/ListContainers", request, "ListContainersResponse")).containers
        ran: dict[str, float] = {}
        for each in listed:
            if each.id in self._started:
                ran[each.sandbox_id] = min(self._started[each.id], ran.get(each.sandbox_id, float("inf")))
        times = commits.times()
        return {
            each.name: Life(
                created=each.created_at,
                networked=self._networked[each.id],
                enforced=times[each.netns.name][-1],
                ran=ran[each.id],
            )
            for each in (await CriListing(self._cri).sandboxes()).values()
            if each.id in ran and each.netns.name in times
        }


def told(kind: str, lives: list[Life]) -> None:
    print(f"{len(lives)} Pods {kind}:")
    for what, spans in (
        ("from the sandbox to its rules", [each.enforced - each.created for each in lives]),
        ("from its network to its rules", [each.enforced - each.networked for each in lives]),
        ("from its rules to its first container", [each.ran - each.enforced for each in lives]),
    ):
        hundredths = statistics.quantiles(spans, n=100, method="inclusive")
        quantiles = ", ".join(f"p{each} {hundredths[each - 1] * 1000:.0f} ms" for each in (1, 50, 90, 99))
        print(f"  {what}: {quantiles}")
