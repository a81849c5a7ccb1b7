"""Services: which virtual addresses there are, and which endpoints stand behind each.

    Service ─┐
    slices  ─┼▶ ServiceView: front doors (address, protocol, port), each with the endpoints that traffic goes to
    Nodes   ─┘

Endpoints are kube-proxy's: the ready ones; if none, those that serve while they terminate (KEP-1669); over all slices
of the Service and all nodes. Sources: ``Service``, ``EndpointSlice`` field comments; kube-proxy skips headless and
ExternalName Services, families without a ClusterIP, and every endpoint address but the first.
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
    """Its tuples at external and load-balancer addresses, and at node ports."""
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
    """Whether it is of type NodePort or LoadBalancer."""
    local: bool = False
    """Whether ``internalTrafficPolicy`` is Local: each node uses its own endpoints only."""
    from_nodes: bool = False
    """Whether outside traffic arrives from node addresses (``externalTrafficPolicy`` Cluster)."""

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
        slices = self._slices.get(key, {}).values()
        return ServiceView(
            addresses=cluster,
            doors=tuple(
                self._door(port, kind, fronts[family], slices)
                for port in spec.ports or ()
                if port.protocol in PROTOCOLS
                for kind, family in FAMILY.items()
                if fronts[family][0]
            ),
            through_node=spec.type in ("NodePort", "LoadBalancer"),
            local=spec.internal_traffic_policy == "Local",
            from_nodes=spec.external_traffic_policy != "Local",
        )

    def _door(
        self, port: ServicePort, kind: str, fronts: tuple[list[bytes], list[bytes]], slices: Iterable[EndpointSlice]
    ) -> Door:
        """The door of *port* at *fronts*, ClusterIPs and addresses from outside, all of the family *kind*."""
        protocol = PROTOCOLS[port.protocol]
        cluster, outside = fronts
        outer = {sets.endpoint(address, protocol, port.port) for address in outside}
        if port.node_port:
            nodes = _of(FAMILY[kind], (address for node in self.nodes.values() for address in node))
            outer |= {sets.endpoint(address, protocol, port.node_port) for address in nodes}
        return Door(
            label=" ".join(filter(None, (port.name, f"{port.port}/{port.protocol}", kind))),
            cluster=frozenset(sets.endpoint(address, protocol, port.port) for address in cluster),
            outer=frozenset(outer),
            targets=_targets(port, kind, slices),
        )


def _of(family: int, found: Iterable[bytes]) -> list[bytes]:
    return [address for address in found if addresses.family(address) == family]


def _targets(port: ServicePort, kind: str, slices: Iterable[EndpointSlice]) -> tuple[Target, ...]:
    """The endpoints behind *port*. One that cannot be read might be any: then none is known, and the door is shut."""
    ready: set[Target] = set()
    leaving: set[Target] = set()
    for found in slices:
        if found.address_type != kind:
            continue
        numbers = [
            item.port
            for item in found.ports or ()
            if item.name == port.name and item.protocol == port.protocol and item.port is not None
        ]
        for endpoint in found.endpoints or ():
            into = _standing(endpoint, ready, leaving)
            if into is None or not endpoint.addresses:
                continue
            try:
                address = addresses.pack(endpoint.addresses[0])
            except ValueError:
                return ()
            into.update(Target(address, PROTOCOLS[port.protocol], number) for number in numbers)
    return tuple(sorted(ready or leaving))


def _standing(endpoint: Endpoint, ready: set[Target], leaving: set[Target]) -> set[Target] | None:
    """Which of the two an endpoint belongs to, if any; a condition that is absent means ready and not terminating."""
    conditions = endpoint.conditions
    is_ready = conditions.ready is not False
    if is_ready:
        return ready
    serving = is_ready if conditions.serving is None else conditions.serving
    return leaving if serving and conditions.terminating else None


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
    """The addresses among *texts*; ``None`` and other words are none."""
    for text in texts:
        try:
            yield addresses.pack(text)
        except ValueError:
            continue
