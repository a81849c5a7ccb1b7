"""Pods behind the gate, as the manifests show it: none acts before every node that has to knows it."""

from typing import Any

import pytest
import yaml

from tests.components.waiting import until
from tests.node.fixtures.daemonset import DaemonSetStack
from tests.node.fixtures.shop import Shop, opened
from tests.node.fixtures.stack import MANIFESTS
from tests.node.test_new_pods import early, outcomes_of

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

GATED = 6
"""At once; every other one is admitted where it connects to."""


async def test_gated_pods_reach_at_first_try_whoever_admits_them_and_nobody_else(daemonset_stack: DaemonSetStack):
    async with opened(daemonset_stack, "gated") as shop:
        welcome = [{"from": [{"podSelector": {"matchLabels": {"welcome": "yes"}}}]}]
        to_web = [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]
        await shop.cluster.apply(
            shop.policy("web", {"app": "web"}, ingress=welcome),
            shop.policy("closed", {"early": "yes"}, egress=to_web),
        )
        await daemonset_stack.enforced()
        target = f"{shop.address('web-2')}:8080"
        pods = [gated(early(shop, f"gated-{number}", target), welcome=number % 2 == 0) for number in range(GATED)]
        await shop.cluster.apply(*pods)
        await until("all of them to have tried", lambda: all_tried(shop), within_seconds=120, poll_seconds=0.5)
        assert await outcomes_of(shop) == {f"gated-{number}": number % 2 == 0 for number in range(GATED)}


def gated(pod: dict[str, Any], *, welcome: bool) -> dict[str, Any]:
    """With the init container of the example, word for word."""
    (example,) = yaml.safe_load_all((MANIFESTS / "example-gate.yaml").read_text())
    pod["spec"]["initContainers"] = example["spec"]["template"]["spec"]["initContainers"]
    pod["metadata"]["labels"]["welcome"] = "yes" if welcome else "no"
    return pod


async def all_tried(shop: Shop) -> bool:
    return len(await outcomes_of(shop)) == GATED
