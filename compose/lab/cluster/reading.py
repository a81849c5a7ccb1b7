"""From Kubernetes objects to what the lab shall be: Pods with their sandboxes, Services with their endpoints.

Endpoints are chosen as kube-proxy does: the ready ones; if none, those that still serve while they end (KEP-1672).
"""

from collections.abc import Iterable, Iterator, Sequence

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
    addresses = _virtual_addresses(service)
    own = [
        item
        for item in slices
        if item.metadata.namespace == service.metadata.namespace
        and (item.metadata.labels or {}).get(SERVICE_NAME) == service.metadata.name
    ]
    return tuple(
        VirtualPort(
            service=f"{service.metadata.namespace}/{service.metadata.name}",
            addresses=addresses,
            protocol=port.protocol,
            port=port.port,
            endpoints=_endpoints(port, own),
            node_port=port.node_port if service.spec.type in ("NodePort", "LoadBalancer") else None,
        )
        for port in service.spec.ports or ()
        if addresses
    )


def _node(node: Node) -> LabNode:
    internal = tuple(item.address for item in node.status.addresses or () if item.type == "InternalIP")
    return LabNode(name=node.metadata.name, addresses=internal)


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


def _virtual_addresses(service: Service) -> tuple[str, ...]:
    """Cluster addresses, external ones, and those of a load balancer that deliver to the node (ipMode VIP)."""
    spec = service.spec
    cluster = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    balancer = service.status.load_balancer
    given = (
        *(address for address in cluster if address != "None"),
        *(spec.external_ips or ()),
        *(item.ip for item in (balancer.ingress if balancer else None) or () if item.ip and item.ip_mode != "Proxy"),
    )
    return () if spec.type == "ExternalName" else tuple(dict.fromkeys(given))


def _endpoints(port: ServicePort, slices: Sequence[EndpointSlice]) -> tuple[tuple[str, int], ...]:
    ready: dict[tuple[str, int], None] = {}
    ending: dict[tuple[str, int], None] = {}
    for item in slices:
        own = (found.port for found in item.ports or () if (found.name, found.protocol) == (port.name, port.protocol))
        for number in [number for number in own if number is not None]:
            for endpoint in item.endpoints or ():
                targets = dict.fromkeys((address, number) for address in endpoint.addresses)
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
