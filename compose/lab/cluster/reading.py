"""From Kubernetes objects to what the lab shall be: Pods with their sandboxes, Services with their endpoints.

Endpoints are chosen as kube-proxy does: the ready ones; if none, those that still serve while they end (KEP-1672).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from compose.lab.plan import LabNode, LabPod, Layout, VirtualPort, family
from schemas.objects import (
    Container,
    Endpoint,
    EndpointSlice,
    KubernetesObject,
    Node,
    Pod,
    Service,
    ServicePort,
)

BRIDGE_ADDRESS: Final = "Bridge"
"""A type of address that real Nodes do not list: one that its Pods find it at, and that the API does not know."""
SERVICE_NAME = "kubernetes.io/service-name"
"""The label by which an EndpointSlice names its Service (discovery/v1)."""


def read_layout(objects: Iterable[KubernetesObject], *, externals: Sequence[str] = ()) -> Layout:
    """The layout that *objects* describe; kinds that say nothing about the network are passed over.

    A Service without EndpointSlices has no endpoints: see `compose.lab.cluster.control_plane` for who makes them.
    """
    known = list(objects)
    slices = [item for item in known if isinstance(item, EndpointSlice)]
    services = [item for item in known if isinstance(item, Service)]
    return Layout(
        nodes=tuple(_node(item) for item in known if isinstance(item, Node)),
        pods=tuple(_pod(item) for item in known if isinstance(item, Pod) and has_sandbox(item)),
        services=tuple(port for service in services for port in virtual_ports(service, slices)),
        externals=tuple(externals),
    )


def has_sandbox(pod: Pod) -> bool:
    """Whether *pod* still has a network: a finished one keeps its address in the API, and nothing else."""
    return pod.status.phase not in ("Succeeded", "Failed")


def pod_addresses(pod: Pod) -> tuple[str, ...]:
    """``status.podIPs``, or ``status.podIP`` alone where a writer left the list out."""
    listed = tuple(item.ip for item in pod.status.pod_ips or () if item.ip)
    return listed or ((pod.status.pod_ip,) if pod.status.pod_ip else ())


def containers_with_ports(pod: Pod) -> Iterator[Container]:
    """Containers, and init containers that keep running (KEP-753)."""
    yield from pod.spec.containers or ()
    yield from (container for container in pod.spec.init_containers or () if container.restart_policy == "Always")


def virtual_ports(service: Service, slices: Iterable[EndpointSlice]) -> tuple[VirtualPort, ...]:
    """Every port of *service*, with its endpoints; none for one without virtual addresses."""
    if service.spec.type == "ExternalName" or not (cluster := tuple(_cluster_addresses(service))):
        return ()
    outer = tuple(_outer_addresses(service))
    own = [
        item
        for item in slices
        if item.metadata.namespace == service.metadata.namespace
        and (item.metadata.labels or {}).get(SERVICE_NAME) == service.metadata.name
    ]
    found: list[VirtualPort] = []
    for port in service.spec.ports or ():
        whole = VirtualPort(
            service=f"{service.metadata.namespace}/{service.metadata.name}",
            addresses=tuple(dict.fromkeys((*cluster, *outer))),
            protocol=port.protocol,
            port=port.port,
            endpoints=_endpoints(port, own),
            node_port=port.node_port if service.spec.type in ("NodePort", "LoadBalancer") else None,
        )
        if service.spec.internal_traffic_policy == "Local":
            names = dict.fromkeys(endpoint.node_name or "" for item in own for endpoint in item.endpoints or ())
            local = tuple((name, _endpoints(port, own, on=name)) for name in names if name)
            found.append(replace(whole, addresses=cluster, node_port=None, local=local))
            whole = replace(whole, addresses=outer)
        found.append(whole)
    return tuple(found)


def _node(node: Node) -> LabNode:
    found = node.status.addresses or ()
    return LabNode(
        name=node.metadata.name,
        addresses=tuple(item.address for item in found if item.type == "InternalIP"),
        bridge=tuple(item.address for item in found if item.type == BRIDGE_ADDRESS),
    )


def _pod(pod: Pod) -> LabPod:
    ports = dict.fromkeys(
        (port.protocol, port.container_port)
        for container in containers_with_ports(pod)
        for port in container.ports or ()
    )
    return LabPod(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        node=pod.spec.node_name,
        addresses=pod_addresses(pod),
        ports=tuple(ports),
        host_network=bool(pod.spec.host_network),
    )


def _cluster_addresses(service: Service) -> Iterator[str]:
    spec = service.spec
    yield from (address for address in spec.cluster_ips or (spec.cluster_ip,) if address not in ("", "None"))


def _outer_addresses(service: Service) -> Iterator[str]:
    """External ones, and those of a load balancer that deliver to the node (ipMode VIP)."""
    balancer = service.status.load_balancer
    yield from service.spec.external_ips or ()
    for item in (balancer.ingress if balancer else None) or ():
        if item.ip and item.ip_mode != "Proxy":
            yield item.ip


def _endpoints(port: ServicePort, slices: Sequence[EndpointSlice], *, on: str = "") -> tuple[tuple[str, int], ...]:
    """Of each only the first address counts, as for kube-proxy. *on*: only those on this node."""
    ready: dict[tuple[str, int], None] = {}
    ending: dict[tuple[str, int], None] = {}
    for item in slices:
        own = (found.port for found in item.ports or () if (found.name, found.protocol) == (port.name, port.protocol))
        for number in [number for number in own if number is not None]:
            for endpoint in item.endpoints or ():
                if on and endpoint.node_name != on:
                    continue
                targets = dict.fromkeys((address, number) for address in endpoint.addresses[:1])
                if is_ready(endpoint):
                    ready |= targets
                elif serves_while_ending(endpoint):
                    ending |= targets
    served = {family(address) for address, _ in ready}
    return (*ready, *(target for target in ending if family(target[0]) not in served))


def is_ready(endpoint: Endpoint) -> bool:
    """Unknown counts as ready (discovery/v1)."""
    return endpoint.conditions.ready is not False


def serves_while_ending(endpoint: Endpoint) -> bool:
    conditions = endpoint.conditions
    serving = conditions.ready if conditions.serving is None else conditions.serving
    return bool(conditions.terminating) and serving is not False
