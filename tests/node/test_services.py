"""Services of a real kube-proxy: open iff everything behind them is, at every address by which they can be reached."""

from typing import Final

import pytest

from tests.components.waiting import until
from tests.node.fixtures.serving import (
    caveats,
    families,
    label,
    node_places,
    publish,
    quiet,
    reached,
    served_by,
    to,
    warnings,
)
from tests.node.fixtures.shop import Shop, opened
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

OUTSIDE: Final = ("192.0.2.80", "2001:db8::80")
"""External addresses; nobody has them, so what is not translated gets nowhere."""
KUBELET: Final = 10250
WEB: Final = {"app": "web"}
FRIEND: Final = {"role": "friend"}


async def test_services_open_and_shut_as_what_is_behind_them(either_stack: Stack):
    async with opened(either_stack, "fronts") as shop:
        await fronts(either_stack, shop)


async def fronts(stack: Stack, shop: Shop) -> None:
    outside = OUTSIDE if shop.cluster.ipv6 else OUTSIDE[:1]
    port = await publish(shop, "front", {"app": "web", "published": "yes"}, externalIPs=list(outside))
    shop.place("outside", *outside)
    await label(shop, "web-1", "published=yes", "part=one")
    places = ["front:80", "outside:80", *(f"{place}:{port}" for place in node_places(shop))]
    for place in places:
        await reached(shop, "friend", place)  # nobody is isolated
    open_, shut = (f"friend {sign} {' '.join(places)}" for sign in ("->", "-x"))

    async def step(*lines: str) -> None:
        """Once every node says that it enforces what there is now, the *lines* hold."""
        await stack.enforced()
        for family in families(shop):
            shop.family = family
            await shop.obeys("\n".join(lines))

    await shop.cluster.apply(shop.policy("friend", FRIEND, egress=[to(part="one")]))
    await step(open_, "friend -> web-1:8080", "friend -x web-2:8080 web:80")  # all behind it is allowed

    await label(shop, "web-2", "published=yes")
    await served_by(shop, "front", 2)
    await step(shut, "friend -> web-1:8080")  # one is not
    shop.family = 4
    await shop.obeys(f"friend -> node1:{KUBELET}\nfriend -x node2:{KUBELET}")

    async def warned() -> list[str]:
        found = await warnings(stack, shop, "front", "partial")
        return found if len(found) == len(families(shop)) else []

    logged = (stack.folder / "processor" / "processor.log").read_text
    for family, warning in zip(families(shop), sorted(await until("warnings", warned, within_seconds=20)), strict=True):
        assert f"http 80/TCP IPv{family}" in warning
        assert f"{shop.name}/{shop.pods['web-2']['metadata']['name']}" in warning
        assert shop.pods["web-1"]["metadata"]["name"] not in warning
        assert warning in logged()

    await label(shop, "web-2", "part=one")
    await step(open_, "friend -> web-2:8080")  # it is allowed now, too
    await quiet(stack, shop, "front", "partial")

    await label(shop, "web-1", "published-")
    await label(shop, "web-2", "published-")
    await served_by(shop, "front", 0)
    await step(shut, "friend -> web-1:8080")  # nothing is behind it: dropped, where kube-proxy would refuse

    await shop.cluster.kubectl("-n", shop.name, "delete", "service", "front")
    await step(f"friend -x outside:80 node2:{port}")  # an address like another, which no policy allows


async def test_endpoints_that_come_and_go_open_and_shut_a_service(stack: Stack):
    async with opened(stack, "churn") as shop:
        await shop.cluster.apply(shop.policy("friend", FRIEND, egress=[to(**WEB)]))
        await stack.enforced()
        await shop.obeys("friend -> web:80")

        await shop.cluster.kubectl("-n", shop.name, "scale", "deployment/web", "--replicas=0")
        await served_by(shop, "web", 0)
        await stack.enforced()
        await shop.obeys("friend -x web:80")

        await shop.cluster.kubectl("-n", shop.name, "scale", "deployment/web", "--replicas=2")
        await shop.ready()
        await served_by(shop, "web", 2)
        await stack.enforced()
        await reached(shop, "friend", "web:80")
        await shop.obeys("friend -> web-1:8080 web-2:8080")


async def test_a_headless_service_is_its_pods(stack: Stack):
    async with opened(stack, "headless") as shop:
        headless = shop.service()
        headless["metadata"]["name"] = "bare"
        headless["spec"] |= {"clusterIP": "None"}
        await shop.cluster.apply(headless, shop.policy("friend", FRIEND, egress=[to(part="one")]))
        await label(shop, "web-1", "part=one")
        await served_by(shop, "bare", 2)
        await stack.enforced()
        await shop.obeys("friend -> web-1:8080\nfriend -x web-2:8080")
        await until("the other Service's warning", lambda: warnings(stack, shop, "web", "partial"), within_seconds=20)
        assert await warnings(stack, shop, "bare", "") == []


async def test_a_pod_reaches_itself_through_a_service_whatever_isolates_it(either_stack: Stack):
    async with opened(either_stack, "itself") as shop:
        await publish(shop, "front", {"app": "web", "part": "one"})
        await label(shop, "web-1", "part=one")
        for family in families(shop):
            shop.family = family
            await reached(shop, "web-1", "front:80")
        await shop.cluster.apply(shop.policy("closed", {}, ingress=[], egress=[]))
        await either_stack.enforced()
        for family in families(shop):
            shop.family = family
            await shop.obeys("web-1 -> front:80\nweb-2 -x front:80\nfriend -x front:80\nweb-1 -x web:80")


async def test_a_pod_that_its_node_lets_others_into_is_reported(stack: Stack):
    async with opened(stack, "exposed") as shop:
        await publish(shop, "front", WEB)
        await shop.cluster.apply(shop.policy("closed", WEB, ingress=[]))
        await stack.enforced()
        await until("the warning", lambda: warnings(stack, shop, "front", "exposed through node"), within_seconds=20)
        said = {name: await caveats(stack, shop, name) for name in ("web-1", "web-2", "friend")}
        assert ["exposed through node" in said[name] for name in said] == [True, True, False]

        patch = '{"spec": {"externalTrafficPolicy": "Local"}}'  # clients keep their address: policies see it
        await shop.cluster.kubectl("-n", shop.name, "patch", "service", "front", "-p", patch)
        await quiet(stack, shop, "front", "exposed")
        assert "exposed" not in await caveats(stack, shop, "web-1")
