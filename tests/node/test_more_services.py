"""Rarer Services of a real kube-proxy: load balancers, UDP, endpoints that are no Pods, and Pods that are leaving."""

import json
from typing import Any, Final

import pytest

from tests.node.fixtures.serving import families, label, publish, reached, served_by, to
from tests.node.fixtures.shop import Shop, opened, pod
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]

BALANCER: Final = ("192.0.2.81", "2001:db8::81")
NOBODY: Final = "192.0.2.90"
"""Nobody has these addresses: what is not translated gets nowhere."""
KUBELET: Final = 10250
FRIEND: Final = {"role": "friend"}


async def test_a_load_balancers_address_opens_and_shuts_as_what_is_behind_it(either_stack: Stack):
    async with opened(either_stack, "balanced") as shop:
        await publish(shop, "front", {"published": "yes"}, type="LoadBalancer")
        addresses = BALANCER[: len(families(shop))]
        status = {"status": {"loadBalancer": {"ingress": [{"ip": each, "ipMode": "VIP"} for each in addresses]}}}
        patch = ("patch", "service", "front", "--subresource=status", "-p", json.dumps(status))
        await shop.cluster.kubectl("-n", shop.name, *patch)
        shop.place("balancer", *addresses)
        await label(shop, "web-1", "published=yes", "part=one")
        await reached(shop, "friend", "balancer:80")
        await shop.cluster.apply(shop.policy("friend", FRIEND, egress=[to(part="one")]))
        await obeyed(either_stack, shop, "friend -> balancer:80\nfriend -x web-2:8080")

        await label(shop, "web-2", "published=yes")
        await served_by(shop, "front", 2)
        await obeyed(either_stack, shop, "friend -x balancer:80\nstranger -> balancer:80")


async def test_a_service_is_open_only_for_the_protocol_that_is_allowed_behind_it(either_stack: Stack):
    async with opened(either_stack, "protocols") as shop:
        ports = [{"name": "tcp", "port": 53, "targetPort": 8080}]
        ports.append({"name": "udp", "port": 53, "targetPort": 8081, "protocol": "UDP"})
        await publish(shop, "front", {"app": "web"}, ports=ports)
        await reached(shop, "friend", "front:53/udp")
        await reached(shop, "friend", "front:53")
        for allowed, table in (
            ({"protocol": "UDP", "port": 8081}, "friend -> front:53/udp web-2:8081/udp\nfriend -x front:53"),
            ({"protocol": "TCP", "port": 8080}, "friend -> front:53\nfriend -x front:53/udp web-2:8081/udp"),
        ):
            await shop.cluster.apply(shop.policy("friend", FRIEND, egress=[to(app="web") | {"ports": [allowed]}]))
            await obeyed(either_stack, shop, table)


async def test_endpoints_that_are_no_pods_are_judged_by_their_addresses(either_stack: Stack):
    async with opened(either_stack, "manual") as shop:
        front = shop.service()
        front["metadata"]["name"] = "front"
        front["spec"] = {"ports": [{"name": "https", "port": 443, "targetPort": KUBELET}]}
        node = shop.cluster.nodes[1].network.address
        await shop.cluster.apply(front, slice_of(shop, "front", node))
        shop.place("front", (await shop.get("service", "front"))["spec"]["clusterIP"])
        await reached(shop, "friend", "front:443")

        for cidr, sign in ((f"{NOBODY}/32", "-x"), (f"{node}/32", "->")):
            block = {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": KUBELET}]}
            await shop.cluster.apply(shop.policy("friend", FRIEND, egress=[block]))
            await either_stack.enforced()
            await shop.obeys(f"friend {sign} front:443")

        await shop.cluster.apply(slice_of(shop, "front", node, NOBODY))
        await either_stack.enforced()
        await shop.obeys("friend -x front:443")  # one of them is not allowed


async def test_a_pod_that_is_leaving_counts_as_long_as_no_other_is_ready(either_stack: Stack):
    async with opened(either_stack, "leaving") as shop:
        leaving = pod("leaving", shop.name, shop.cluster.nodes[1].name, published="yes", part="one")
        leaving["spec"]["terminationGracePeriodSeconds"] = 90
        leaving["spec"]["containers"][0]["args"].append("--delay-shutdown=90")
        await shop.cluster.apply(leaving)
        await publish(shop, "front", {"published": "yes"})
        await shop.ready()
        await reached(shop, "friend", "front:80")
        await shop.cluster.apply(shop.policy("friend", FRIEND, egress=[to(part="one")]))

        await shop.cluster.kubectl("-n", shop.name, "delete", "pod", "leaving", "--wait=false")
        await served_by(shop, "front", 0)
        await obeyed(either_stack, shop, "friend -> front:80")
        await label(shop, "leaving", "part=two")
        await obeyed(either_stack, shop, "friend -x front:80\nstranger -> front:80")

        await label(shop, "web-1", "published=yes", "part=one")
        await served_by(shop, "front", 1)
        await obeyed(either_stack, shop, "friend -> front:80")  # whoever is leaving gets no more connections
        await shop.cluster.kubectl("-n", shop.name, "delete", "pod", "leaving", "--grace-period=1", "--wait=false")


async def obeyed(stack: Stack, shop: Shop, table: str) -> None:
    """Once every node says that it enforces what there is now, the *table* holds in each family."""
    await stack.enforced()
    for family in families(shop):
        shop.family = family
        await shop.obeys(table)


def slice_of(shop: Shop, service: str, *addresses: str) -> dict[str, Any]:
    """A hand-made EndpointSlice."""
    labels = {"kubernetes.io/service-name": service}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{service}-manual", "namespace": shop.name, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": KUBELET, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
    }
