"""NetworkPolicies written with kubectl are obeyed by the packets of real Pods, whatever kube-proxy does."""

from typing import Any

import pytest

from tests.node.fixtures.serving import families
from tests.node.fixtures.shop import Shop, opened
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]


async def test_policies_are_obeyed_step_by_step(either_stack: Stack):
    async with opened(either_stack, "steps") as shop:
        await steps(either_stack, shop)


async def steps(stack: Stack, shop: Shop) -> None:
    ready_since = readiness(shop)

    async def step(table: str, *policies: dict[str, Any]) -> None:
        """Apply *policies*; once every node says that it enforces them, *table* holds at the first try."""
        if policies:
            await shop.cluster.apply(*policies)
        await stack.enforced()
        for family in families(shop):
            shop.family = family
            await shop.obeys(table)

    await step(
        """
        friend   -> web-1:8080 web-2:8080 web-2:9090 web:80
        stranger -> web-1:8080 web:80
        other    -> web-1:8080 web-2:8080 web:80
        web-1    -> friend:8080 other:8080
        """
    )
    everything: dict[str, str] = {}
    await step(  # default deny, both directions
        """
        friend   -x web-1:8080 web-2:8080 web:80
        stranger -x web-2:8080 friend:8080
        other    -x web-1:8080 web-2:8080 web:80
        web-1    -x other:8080 web-2:8080
        """,
        shop.policy("default-deny", everything, ingress=[], egress=[]),
    )
    web, friend = {"app": "web"}, {"role": "friend"}
    await step(  # by Pod labels; every endpoint of the Service is allowed, so its address is
        """
        friend   -> web-1:8080 web-2:8080 web-1:9090 web:80
        stranger -x web-1:8080 web-2:8080 web:80
        other    -x web-1:8080 web:80
        web-1    -x friend:8080
        """,
        shop.policy("web", web, ingress=[{"from": [{"podSelector": {"matchLabels": friend}}]}]),
        shop.policy("friend", friend, egress=[{"to": [{"podSelector": {"matchLabels": web}}]}]),
    )
    await step(  # by namespace
        """
        friend   -x web-1:8080 web:80
        other    -> web-1:8080 web-2:8080 web-2:9090 web:80
        """,
        shop.policy("web", web, ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "other"}}}]}]),
    )
    await step(  # by named port
        """
        friend   -> web-1:8080 web-2:8080 web:80
        friend   -x web-1:9090 web-2:9090
        other    -> web-1:8080 web:80
        other    -x web-1:9090
        """,
        shop.policy("web", web, ingress=[{"ports": [{"port": "http"}]}]),
    )
    await shop.cluster.kubectl("-n", shop.name, "label", "pod", shop.pods["web-1"]["metadata"]["name"], "part=one")
    await step(  # one endpoint of the Service is allowed and the other is not: its address is not
        """
        friend   -> web-1:8080
        friend   -x web-2:8080 web:80
        """,
        shop.policy("friend", friend, egress=[{"to": [{"podSelector": {"matchLabels": {"part": "one"}}}]}]),
    )
    await step(  # by address, with an exception: node 2's Pods may not
        """
        friend   -> web-1:8080
        other    -> web-1:8080 web-2:9090
        stranger -x web-1:8080 web-2:8080
        """,
        shop.policy("web", web, ingress=[{"from": blocks(*ONLY_NODE_1)}]),
        shop.policy("stranger", {"role": "stranger"}, egress=[{}]),
    )
    shop.family = 4
    one = [f"{shop.address('web-1')}/32"]
    if shop.cluster.ipv6:
        shop.family = 6
        one.append(f"{shop.address('web-1')}/128")
    await step(  # outbound by address, with an exception; never the Service's own address
        """
        friend   -> web-2:8080 other:8080
        friend   -x web-1:8080 web:80
        """,
        shop.policy("friend", friend, egress=[{"to": blocks("10.0.0.0/8", one[0], "fd00::/8", one[-1])}]),
    )
    await shop.cluster.kubectl("-n", shop.name, "delete", "networkpolicy", "--all")
    await step(
        """
        friend   -> web-1:8080 web-2:9090 web:80
        stranger -> web-1:8080
        web-2    -> stranger:8080
        """
    )
    await shop.ready()
    assert readiness(shop) == ready_since, "a readiness probe failed meanwhile"


ONLY_NODE_1 = ("10.244.0.0/16", "10.244.2.0/24", "fd44::/48", "fd44:0:0:2::/64")


def blocks(cidr: str, without: str, cidr6: str, without6: str) -> list[dict[str, Any]]:
    pairs = [(cidr, without), *([(cidr6, without6)] if ":" in without6 else [])]
    return [{"ipBlock": {"cidr": whole, "except": [part]}} for whole, part in pairs]


def readiness(shop: Shop) -> dict[str, str]:
    """Since when each Pod is ready, without a break."""
    return {
        name: condition["lastTransitionTime"]
        for name, pod in shop.pods.items()
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready" and condition["status"] == "True"
    }
