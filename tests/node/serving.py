"""Services beside a shop: publishing them, and waiting for what is behind them and said of them."""

from collections.abc import Iterator
from typing import Any

from tests.components.waiting import until
from tests.node.shop import Shop
from tests.node.stack import Stack


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
