"""The part of a control plane that manifests written by people leave out: nodes, addresses, phases, endpoints.

What an object states is kept. What it leaves open is filled in, deterministically, and stays as long as the object
does; so the same manifests give the same cluster, and a change of one Pod moves no other.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from compose.lab.cluster.endpoints import endpoint_slices, with_uid
from compose.lab.cluster.reading import SERVICE_NAME, pod_addresses, read_layout
from compose.lab.plan import DEFAULT_NODES, spread
from schemas.objects import (
    Condition,
    EndpointSlice,
    KubernetesObject,
    Meta,
    Namespace,
    NamespaceStatus,
    NetworkPolicy,
    Node,
    NodeAddress,
    Pod,
    PodIP,
    Service,
)

POD_RANGES: Final = ("10.244.{node}.0/24", "fd00:10:244:{node:x}::/120")
SERVICE_RANGE: Final = "10.96.0.0/16"
NODE_ADDRESSES: Final = ("100.64.0.{node}", "fd00:ea57::{node:x}")
"""As the lab's plan numbers nodes that state none."""
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The label that the API server puts on every namespace."""

T = TypeVar("T", bound=KubernetesObject)


class ControlPlane:
    """Completes lists of objects; remembers what it gave to whom."""

    def __init__(self, *, nodes: Sequence[str] = DEFAULT_NODES) -> None:
        self.nodes = tuple(nodes)
        self._homes: dict[str, str] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}

    def complete(self, objects: Iterable[KubernetesObject]) -> list[KubernetesObject]:
        """*objects* as a cluster would show them: in order of dependence, EndpointSlices last."""
        known = list(objects)
        stated_nodes = {item.metadata.name: item for item in _of(known, Node)}
        names = tuple(stated_nodes) or self.nodes
        pods = self._place(list(_of(known, Pod)), names)
        nodes = _nodes(stated_nodes, [*names, *(pod.spec.node_name for pod in pods)])
        namespaces = _namespaces(known)
        taken = {address for pod in pods for address in pod_addresses(pod)} | set(_service_addresses(known))
        taken.update(*self._addresses.values())
        pods = [self._run(pod, nodes, taken) for pod in pods]
        services = [self._number(item, taken) for item in known if isinstance(item, Service)]
        policies = [replace(it, metadata=with_uid("NetworkPolicy", it.metadata)) for it in _of(known, NetworkPolicy)]
        given = [replace(item, metadata=with_uid("EndpointSlice", item.metadata)) for item in _of(known, EndpointSlice)]
        stated = {(item.metadata.namespace, (item.metadata.labels or {}).get(SERVICE_NAME)) for item in given}
        made = [
            made
            for service in services
            if (service.metadata.namespace, service.metadata.name) not in stated
            for made in endpoint_slices(service, pods)
        ]
        self._forget(pods, services)
        completed: list[KubernetesObject] = [*namespaces, *nodes, *policies, *services, *pods, *given, *made]
        return [_versioned(item) for item in completed]

    def _place(self, pods: list[Pod], nodes: Iterable[str]) -> list[Pod]:
        homed = [
            replace(pod, spec=replace(pod.spec, node_name=pod.spec.node_name or self._homes.get(_key(pod), "")))
            for pod in pods
        ]
        layout = read_layout(replace(pod, status=replace(pod.status, phase="")) for pod in homed)
        placed = spread(layout.pods, read_layout(Node(metadata=Meta(name=name)) for name in nodes).nodes)
        named = [
            replace(pod, spec=replace(pod.spec, node_name=home.node)) for pod, home in zip(homed, placed, strict=True)
        ]
        self._homes = {_key(pod): pod.spec.node_name for pod in named}
        return named

    def _run(self, pod: Pod, nodes: Sequence[Node], taken: set[str]) -> Pod:
        """*pod* running on its node; a Pod that states a phase is left in it."""
        index = next(index for index, node in enumerate(nodes, start=1) if node.metadata.name == pod.spec.node_name)
        host = tuple(item.address for item in nodes[index - 1].status.addresses or ())
        addresses = pod_addresses(pod)
        if not addresses and pod.spec.host_network:
            addresses = host
        elif not addresses and pod.status.phase in ("", "Running"):
            addresses = self._addresses.get(_key(pod)) or tuple(
                _free(ipaddress.ip_network(form.format(node=index)), taken) for form in POD_RANGES
            )
            self._addresses[_key(pod)] = addresses
        taken.update(addresses)
        status = replace(
            pod.status,
            phase=pod.status.phase or "Running",
            pod_ip=addresses[0] if addresses else "",
            pod_ips=tuple(PodIP(ip=address) for address in addresses),
            host_ip=pod.status.host_ip or next(iter(host), ""),
        )
        if status.phase == "Running" and not status.conditions:
            status = replace(status, conditions=(Condition(type="Ready", status="True"),))
        return replace(pod, metadata=with_uid("Pod", pod.metadata), status=status)

    def _number(self, service: Service, taken: set[str]) -> Service:
        """*service* with a cluster address, unless it is headless or has none by its type."""
        service = replace(service, metadata=with_uid("Service", service.metadata))
        if service.spec.type == "ExternalName" or service.spec.cluster_ip or service.spec.cluster_ips:
            return service
        key = f"service {_key(service)}"
        address = (self._addresses.get(key) or (_free(ipaddress.ip_network(SERVICE_RANGE), taken),))[0]
        self._addresses[key] = (address,)
        taken.add(address)
        return replace(service, spec=replace(service.spec, cluster_ip=address, cluster_ips=(address,)))

    def _forget(self, pods: Sequence[Pod], services: Sequence[Service]) -> None:
        live = {_key(pod) for pod in pods} | {f"service {_key(service)}" for service in services}
        self._addresses = {key: value for key, value in self._addresses.items() if key in live}


def _nodes(stated: Mapping[str, Node], names: Iterable[str]) -> list[Node]:
    """Every node that is stated or used, ready and with addresses."""
    nodes = []
    for number, name in enumerate(dict.fromkeys(names), start=1):
        node = stated.get(name, Node(metadata=Meta(name=name)))
        own = tuple(NodeAddress(type="InternalIP", address=form.format(node=number)) for form in NODE_ADDRESSES)
        status = replace(
            node.status,
            addresses=node.status.addresses or own,
            conditions=node.status.conditions or (Condition(type="Ready", status="True"),),
        )
        nodes.append(replace(node, metadata=with_uid("Node", node.metadata), status=status))
    return nodes


def _namespaces(objects: Sequence[KubernetesObject]) -> list[Namespace]:
    """Every namespace that is stated or used, with the name label."""
    stated = {item.metadata.name: item for item in _of(objects, Namespace)}
    used = dict.fromkeys([*stated, *(item.metadata.namespace for item in objects if item.metadata.namespace)])
    made = []
    for name in used:
        item = stated.get(name, Namespace(metadata=Meta(name=name)))
        meta = replace(
            with_uid("Namespace", item.metadata), labels=(item.metadata.labels or {}) | {NAMESPACE_NAME: name}
        )
        made.append(replace(item, metadata=meta, status=NamespaceStatus(phase=item.status.phase or "Active")))
    return made


def _of(objects: Iterable[KubernetesObject], kind: type[T]) -> Iterator[T]:
    return (item for item in objects if isinstance(item, kind))


def _service_addresses(objects: Iterable[KubernetesObject]) -> Iterator[str]:
    for service in _of(objects, Service):
        yield from (*(service.spec.cluster_ips or ()), service.spec.cluster_ip)


def _free(network: ipaddress.IPv4Network | ipaddress.IPv6Network, taken: set[str]) -> str:
    """The first address of *network* from its tenth on that is not *taken*; raises `ValueError` when it is full."""
    for address in network.hosts():
        if int(address) - int(network.network_address) >= 10 and str(address) not in taken:
            return str(address)
    raise ValueError(f"no address is free in {network}")


def _versioned(item: T) -> T:
    """*item* with a resource version that changes with its content, and only then."""
    bare = replace(item, metadata=replace(item.metadata, resource_version=""))
    digest = hashlib.blake2b(msgspec.json.encode(bare), digest_size=6).digest()
    return replace(bare, metadata=replace(bare.metadata, resource_version=str(int.from_bytes(digest))))


def _key(item: Pod | Service) -> str:
    return f"{item.metadata.namespace}/{item.metadata.name}"
