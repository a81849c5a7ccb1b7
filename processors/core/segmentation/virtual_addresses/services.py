"""Services: which virtual addresses there are, and which endpoints stand behind each.

    Service ─┐
    slices  ─┼▶ ServiceView: front doors (address, protocol, port), each with the endpoints that traffic goes to
    Nodes   ─┘

Endpoints are kube-proxy's: the ready ones; if none, those that serve while they terminate (KEP-1669); over all slices
of the Service and all nodes. Where a traffic policy is Local, each node decides so for itself: those that terminate on
a node without a ready one count, too. Sources: ``Service``, ``EndpointSlice`` field comments; kube-proxy skips headless
and ExternalName Services, families without a ClusterIP, and every endpoint address but the first.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from schemas import addresses, sets
from schemas.addresses import PROTOCOLS
from schemas.objects import Endpoint, EndpointSlice, Node, Service, ServicePort

ServiceKey = tuple[str, str]
"""Namespace and name."""
SERVICE_NAME: Final = "kubernetes.io/service-name"
"""The slice's label that says whose it is."""
FAMILY: Final = {"IPv4": 4, "IPv6": 6}
LOCAL: Final = "Local"
"""The traffic policy by which a node uses its own endpoints only."""


class Target(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where traffic to a front door ends up."""

    address: bytes
    protocol: int
    port: int


class Door(msgspec.Struct, frozen=True):
    """One port of a Service in one family."""

    label: str
    """As a person reads it: ``http 80/TCP IPv4``."""
    cluster: frozenset[bytes]
    """Its tuples at ClusterIPs."""
    outer: frozenset[bytes]
    """Its tuples at external and load-balancer addresses, and at node ports: at every address of a node that the API
    knows, and at every address of the node that enforces (`schemas.sets.here`)."""
    targets: tuple[Target, ...]
    """Sorted; none: nobody answers."""

    @property
    def tuples(self) -> frozenset[bytes]:
        return self.cluster | self.outer


class ServiceView(msgspec.Struct, frozen=True):
    """A Service as policy sees it."""

    addresses: frozenset[bytes] = frozenset()
    """ClusterIPs: virtual whatever the port."""
    doors: tuple[Door, ...] = ()
    through_node: bool = False
    """Whether what comes in by its outer fronts arrives from a node's address (``externalTrafficPolicy`` Cluster)."""
    choosy: tuple[str, ...] = ()
    """Why a node may use fewer endpoints than all."""

    @property
    def targets(self) -> Iterator[Target]:
        for door in self.doors:
            yield from door.targets


NOTHING: Final = ServiceView()


class Services:
    """All Services, their slices, and the nodes' addresses."""

    def __init__(self) -> None:
        self.dirty: dict[ServiceKey, None] = {}
        """Services whose view may have changed in this batch."""
        self.nodes: dict[str, frozenset[bytes]] = {}
        """Node → its addresses."""
        self.nodes_at: dict[bytes, set[str]] = {}
        """Address → the nodes that have it."""
        self._services: dict[ServiceKey, Service] = {}
        self._slices: dict[ServiceKey, dict[str, EndpointSlice]] = {}
        self._belongs: dict[ServiceKey, ServiceKey] = {}
        self._node_ports: dict[ServiceKey, None] = {}

    @property
    def empty(self) -> bool:
        return not (self._services or self._slices or self._belongs or self.nodes)

    def put_service(self, key: ServiceKey, service: Service | None) -> None:
        """A Service is now so; ``None``: it is gone."""
        self._node_ports.pop(key, None)
        if service is None:
            self._services.pop(key, None)
        else:
            self._services[key] = service
            if any(port.node_port for port in service.spec.ports or ()):
                self._node_ports[key] = None
        self.dirty[key] = None

    def put_slice(self, key: ServiceKey, found: EndpointSlice | None) -> None:
        """An EndpointSlice is now so; ``None``: it is gone."""
        before = self._belongs.pop(key, None)
        if before is not None:
            slices = self._slices[before]
            del slices[key[1]]
            if not slices:
                del self._slices[before]
            self.dirty[before] = None
        name = ((found and found.metadata.labels) or {}).get(SERVICE_NAME)
        if found is not None and name:
            belongs = self._belongs[key] = (key[0], name)
            self._slices.setdefault(belongs, {})[key[1]] = found
            self.dirty[belongs] = None

    def put_node(self, name: str, node: Node | None) -> frozenset[bytes]:
        """A Node is now so; return the addresses that came to it or went. Nothing else about it matters here."""
        before = self.nodes.get(name, frozenset())
        after = frozenset(_packed(_node_addresses(node))) if node is not None else frozenset()
        if after:
            self.nodes[name] = after
        else:
            self.nodes.pop(name, None)
        for address in before - after:
            self.nodes_at[address].discard(name)
            if not self.nodes_at[address]:
                del self.nodes_at[address]
        for address in after - before:
            self.nodes_at.setdefault(address, set()).add(name)
        if before != after:
            self.dirty.update(self._node_ports)
        return before ^ after

    def view(self, key: ServiceKey) -> ServiceView:
        """The Service *key* as it is now."""
        service = self._services.get(key)
        if service is None or service.spec.type == "ExternalName":
            return NOTHING
        spec = service.spec
        cluster = frozenset(_packed(spec.cluster_ips or (spec.cluster_ip,)))
        if not cluster:  # headless, or not yet given an address
            return NOTHING
        outside = frozenset(_packed((*(spec.external_ips or ()), *_balancer_addresses(service))))
        fronts = {family: (_of(family, cluster), _of(family, outside)) for family in FAMILY.values()}
        endpoints = _Endpoints(self._slices.get(key, {}).values(), by_node=LOCAL in _traffic_policies(service))
        doors = tuple(
            self._door(port, kind, fronts[family], endpoints)
            for port in spec.ports or ()
            if port.protocol in PROTOCOLS
            for kind, family in FAMILY.items()
            if fronts[family][0]
        )
        return ServiceView(
            addresses=cluster,
            doors=doors,
            through_node=spec.external_traffic_policy != LOCAL and any(door.outer for door in doors),
            choosy=tuple(_choosy(service, endpoints)),
        )

    def _door(
        self, port: ServicePort, kind: str, fronts: tuple[list[bytes], list[bytes]], endpoints: "_Endpoints"
    ) -> Door:
        """The door of *port* at *fronts*, ClusterIPs and addresses from outside, all of the family *kind*."""
        protocol = PROTOCOLS[port.protocol]
        cluster, outside = fronts
        outer = {sets.endpoint(address, protocol, port.port) for address in outside}
        if port.node_port:
            outer |= {sets.endpoint(address, protocol, port.node_port) for address in _of(FAMILY[kind], self.nodes_at)}
            outer.add(sets.here(sets.endpoint(cluster[0], protocol, port.node_port)))
        return Door(
            label=" ".join(filter(None, (port.name, f"{port.port}/{port.protocol}", kind))),
            cluster=frozenset(sets.endpoint(address, protocol, port.port) for address in cluster),
            outer=frozenset(outer),
            targets=endpoints.behind(port, kind),
        )


class _Endpoints:
    """What stands behind a Service. *by_node*: each node falls back on what terminates there."""

    def __init__(self, slices: Iterable[EndpointSlice], *, by_node: bool) -> None:
        self._slices = slices
        self._by_node = by_node

    @property
    def hinted(self) -> bool:
        """Whether the control plane told which zones or nodes are to use some of them."""
        return any(endpoint.hints for found in self._slices for endpoint in found.endpoints or ())

    def behind(self, port: ServicePort, kind: str) -> tuple[Target, ...]:
        """Those behind *port*. One that cannot be read might be any: then none is known, and the door is shut."""
        ready: dict[str, set[Target]] = {}
        leaving: dict[str, set[Target]] = {}
        for found in self._slices:
            if found.address_type != kind:
                continue
            numbers = [
                item.port
                for item in found.ports or ()
                if item.name == port.name and item.protocol == port.protocol and item.port is not None
            ]
            for endpoint in found.endpoints or () if numbers else ():
                into = ready if _is_ready(endpoint) else leaving if _serves_while_leaving(endpoint) else None
                if into is None or not endpoint.addresses:
                    continue
                try:
                    address = addresses.pack(endpoint.addresses[0])
                except ValueError:
                    return ()
                here = into.setdefault(endpoint.node_name or "", set())
                here.update(Target(address, PROTOCOLS[port.protocol], number) for number in numbers)
        spare = leaving.keys() if not ready else leaving.keys() - ready.keys() - {""} if self._by_node else ()
        return tuple(sorted(set().union(*ready.values(), *(leaving[node] for node in spare))))


def _is_ready(endpoint: Endpoint) -> bool:
    """A condition that is absent means ready."""
    return endpoint.conditions.ready is not False


def _serves_while_leaving(endpoint: Endpoint) -> bool:
    """An absent *serving* says what *ready* says."""
    conditions = endpoint.conditions
    serving = _is_ready(endpoint) if conditions.serving is None else conditions.serving
    return bool(serving and conditions.terminating)


def _traffic_policies(service: Service) -> tuple[str | None, str | None]:
    return service.spec.internal_traffic_policy, service.spec.external_traffic_policy


def _choosy(service: Service, endpoints: _Endpoints) -> Iterator[str]:
    if service.spec.internal_traffic_policy == LOCAL:
        yield "internalTrafficPolicy is Local"
    if endpoints.hinted:
        yield "its endpoints have topology hints"


def _of(family: int, found: Iterable[bytes]) -> list[bytes]:
    return [address for address in found if addresses.family(address) == family]


def _balancer_addresses(service: Service) -> Iterator[str]:
    """Load-balancer addresses that kube-proxy answers for (``ipMode`` VIP or unset)."""
    balancer = service.status.load_balancer
    for ingress in (balancer and balancer.ingress) or ():
        if ingress.ip and ingress.ip_mode in (None, "", "VIP"):
            yield ingress.ip


def _node_addresses(node: Node) -> Iterator[str]:
    for item in node.status.addresses or ():
        if item.type in ("InternalIP", "ExternalIP"):
            yield item.address


def _packed(texts: Iterable[str]) -> Iterator[bytes]:
    """The addresses among *texts*; ``None`` and other words are none, nor is the unspecified address."""
    for text in texts:
        try:
            address = addresses.pack(text)
        except ValueError:
            continue
        if any(address):
            yield address
