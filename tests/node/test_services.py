"""Services of a real kube-proxy: open iff everything behind them is, at every address by which they can be reached."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.components.waiting import until
from tests.node.shop import Shop, opened
from tests.node.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

OUTSIDE: Final = ("192.0.2.80", "2001:db8::80")
"""External addresses; nobody has them, so what is not translated gets nowhere."""
KUBELET: Final = 10250
WEB: Final = {"app": "web"}
FRIEND: Final = {"role": "friend"}


async def test_services_open_and_shut_as_what_is_behind_them_with_iptables(stack: Stack):
    async with opened(stack, "fronts") as shop:
        await fronts(stack, shop)


async def test_services_open_and_shut_as_what_is_behind_them_in_both_families_with_nftables(dual_stack: Stack):
    async with opened(dual_stack, "fronts") as shop:
        await fronts(dual_stack, shop)


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


@pytest.mark.parametrize("which", ["stack", "dual_stack"])
async def test_a_pod_reaches_itself_through_a_service_whatever_isolates_it(which: str, request: pytest.FixtureRequest):
    stack: Stack = request.getfixturevalue(which)
    async with opened(stack, "itself") as shop:
        await publish(shop, "front", {"app": "web", "part": "one"})
        await label(shop, "web-1", "part=one")
        for family in families(shop):
            shop.family = family
            await reached(shop, "web-1", "front:80")
        await shop.cluster.apply(shop.policy("closed", {}, ingress=[], egress=[]))
        await stack.enforced()
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


async def publish(shop: Shop, name: str, selector: dict[str, str], **more: Any) -> int:
    """Make a Service of type NodePort and let its places be known. Returns the node port."""
    service = shop.service()
    service["metadata"]["name"] = name
    service["spec"] |= {"type": "NodePort", "selector": selector, **more}
    await shop.cluster.apply(service)
    made = await shop.get("service", name)
    shop.place(name, *made["spec"]["clusterIPs"])
    for node in shop.cluster.nodes:
        network = node.network
        shop.place(node.name, network.address, network.address6)
        shop.place(f"bridge-{node.name}", network.pods.replace(".0/24", ".1"), network.pods6.replace("::/64", "::1"))
    return int(made["spec"]["ports"][0]["nodePort"])


def node_places(shop: Shop) -> Iterator[str]:
    """Where a Pod on node 1 finds a node port: nftables answers at nodes' first addresses only."""
    yield from (node.name for node in shop.cluster.nodes)
    if shop.cluster.proxy_mode == "iptables":
        yield f"bridge-{shop.cluster.nodes[0].name}"


def families(shop: Shop) -> tuple[int, ...]:
    return (4, 6) if shop.cluster.ipv6 else (4,)


def to(**labels: str) -> dict[str, Any]:
    return {"to": [{"podSelector": {"matchLabels": labels}}]}


async def label(shop: Shop, pod: str, *labels: str) -> None:
    name = shop.pods[pod]["metadata"]["name"]
    await shop.cluster.kubectl("-n", shop.name, "label", "pod", name, "--overwrite", *labels)


async def served_by(shop: Shop, service: str, count: int) -> None:
    """Wait until *count* Pods are ready behind *service*, as its slices say, in each family."""

    async def as_many() -> bool:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{shop.name}/endpointslices"
        slices = (await shop.cluster.control_plane.api("GET", path))["items"]
        ready = [
            (each["addressType"], endpoint["addresses"][0])
            for each in slices
            if each["metadata"]["labels"].get("kubernetes.io/service-name") == service
            for endpoint in each["endpoints"] or ()
            if endpoint["conditions"]["ready"]
        ]
        return len(set(ready)) == count * len(families(shop))

    await until(f"{count} endpoints behind {service}", as_many, within_seconds=40)


async def reached(shop: Shop, client: str, target: str) -> None:
    """Wait until kube-proxy leads *client* to *target*."""

    async def there() -> bool:
        return await shop.reaches(client, target)

    await until(f"{client} to reach {target}", there, within_seconds=20, ignoring=(AssertionError,))


async def warnings(stack: Stack, shop: Shop, service: str, about: str) -> list[str]:
    """What the summary says of *service* that begins with *about*."""
    said = (await stack.get("summary"))["warnings"]
    messages = [each["message"] for each in said if each["object"] == f"Service/{shop.name}/{service}"]
    return [message for message in messages if message.startswith(about)]


async def quiet(stack: Stack, shop: Shop, service: str, about: str) -> None:
    """Wait until nothing like that is said any more."""

    async def silent() -> bool:
        return not await warnings(stack, shop, service, about)

    await until(f"the end of warnings about {service}", silent, within_seconds=20)


async def caveats(stack: Stack, shop: Shop, pod: str) -> str:
    wanted = shop.pods[pod]["metadata"]["name"]
    found = await stack.get("container-workloads", "-n", shop.name)
    return "; ".join(next(each["caveats"] for each in found if each["name"] == wanted))
