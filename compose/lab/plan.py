"""What a lab should look like, as plain values: nodes, Pods on them, names and addresses.

    fabric (a bridge) ── node (namespace: bridge, routes, DNAT) ── Pod (namespace: eth0)
         └── outside (namespace that holds the addresses beyond the cluster)

Everything between Pods is routed by their nodes, also on one node: a Pod has a host address (/32, /128) and one route,
by way of its node. So any address may be on any node, whatever prefix its neighbours have, and every packet passes the
node's address translation in both directions. Nothing here reads or changes the machine.
"""

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

PREFIX: Final = "ew-lab-"
"""Every namespace of every lab is called ``ew-lab-<lab>-…``."""
DEFAULT_NODES: Final = ("node-1", "node-2")
MAX_NODES: Final = 250
"""The lab's own addresses count nodes in one byte."""


class LabNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node as asked for; a family without an address gets one from the lab's own range."""

    name: str
    addresses: tuple[str, ...] = ()
    bridge: tuple[str, ...] = ()
    """Addresses that it has beside, on its bridge: only its own Pods find them."""


class LabPod(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod as asked for. An empty *node* lets the lab choose, and keep, one."""

    namespace: str
    name: str
    uid: str = ""
    node: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    """(protocol, port) that its containers declare: what `eastwest lab` listens on."""
    host_network: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class VirtualPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a Service, resolved: where its virtual addresses lead now."""

    service: str
    """``namespace/name``, for people."""
    addresses: tuple[str, ...]
    protocol: str = "TCP"
    port: int
    endpoints: tuple[tuple[str, int], ...] = ()
    """(address, target port) of both families; none means that the node refuses."""
    local: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] | None = None
    """In their place where each node uses its own: by node. A node without any drops."""
    node_port: int | None = None


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """All that a lab is asked to be."""

    nodes: tuple[LabNode, ...] = ()
    """None: two nodes."""
    pods: tuple[LabPod, ...] = ()
    services: tuple[VirtualPort, ...] = ()
    externals: tuple[str, ...] = ()
    """Addresses beyond the cluster that answer and ask from the outside namespace."""


class PlannedNode(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    netns: str
    addresses: tuple[str, ...]
    """On the fabric; of both families; the first of a family is the next hop of the others."""
    gateways: tuple[str, str]
    """On its bridge, IPv4 and IPv6: where its Pods' packets go."""
    bridge: tuple[str, ...] = ()
    """On its bridge beside."""

    @property
    def local(self) -> tuple[str, ...]:
        """All that are the node itself."""
        return (*self.addresses, *self.gateways, *self.bridge)


class PlannedPod(msgspec.Struct, frozen=True, kw_only=True):
    pod: LabPod
    """With its node filled in."""
    netns: str
    """Its node's, for a Pod in the host network."""
    link: str
    """The node's end of its veth; empty in the host network. Another node or uid: another link and a new namespace."""
    routed: tuple[str, ...]
    """Its addresses that the lab routes to it: an address that another Pod claimed before is not."""

    @property
    def key(self) -> str:
        return self.pod.key


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    lab: str
    nodes: tuple[PlannedNode, ...] = ()
    pods: tuple[PlannedPod, ...] = ()
    services: tuple[VirtualPort, ...] = ()
    externals: tuple[str, ...] = ()

    @property
    def fabric(self) -> str:
        return f"{PREFIX}{self.lab}-fabric"

    @property
    def outside(self) -> str:
        return f"{PREFIX}{self.lab}-outside"

    def node(self, name: str) -> PlannedNode:
        """Raises `KeyError` with the name of a node that is not planned."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def pod(self, key: str) -> PlannedPod:
        """The Pod ``namespace/name``; raises `KeyError`."""
        for planned in self.pods:
            if planned.key == key:
                return planned
        raise KeyError(key)


def family(address: str) -> int:
    """4 or 6; raises `ValueError` for what is not an address."""
    return ipaddress.ip_address(address).version


def make_plan(lab: str, layout: Layout, previous: Plan | None = None) -> Plan:
    """Plan *layout* for the lab *lab*; what *previous* placed or numbered stays where it is.

    Raises `ValueError` for more than `MAX_NODES` nodes, and for text that is not an address.
    """
    previous = previous or Plan(lab=lab)
    pods = spread(layout.pods, layout.nodes, previous)
    nodes = _number_nodes(lab, layout, pods, previous)
    owners: dict[str, str] = {address: node.name for node in nodes for address in node.local}
    planned = []
    for pod in pods:
        if pod.host_network:
            home = next(node for node in nodes if node.name == pod.node)
            planned.append(PlannedPod(pod=pod, netns=home.netns, link="", routed=()))
            continue
        routed = tuple(address for address in pod.addresses if owners.setdefault(address, pod.key) == pod.key)
        netns = _netns_name(lab, "pod", pod.key.replace("/", "."))
        planned.append(
            PlannedPod(pod=pod, netns=netns, link=link_name(f"{pod.node}/{pod.key}/{pod.uid}"), routed=routed)
        )
    return Plan(
        lab=lab,
        nodes=nodes,
        pods=tuple(planned),
        services=layout.services,
        externals=tuple(dict.fromkeys(layout.externals)),
    )


def spread(pods: Sequence[LabPod], nodes: Sequence[LabNode], previous: Plan | None = None) -> tuple[LabPod, ...]:
    """Give every Pod a node: its own, the one it had in *previous*, or the one with the fewest Pods (first by order).

    A Pod in the host network goes where its address is, and Pods that share a host address share a node.
    """
    previous = previous or Plan(lab="")
    names = [node.name for node in nodes] or list(DEFAULT_NODES)
    before = {planned.pod.uid or planned.key: planned.pod.node for planned in previous.pods}
    homes = {address: node.name for node in previous.nodes for address in node.addresses}
    homes |= {address: node.name for node in nodes for address in node.addresses}
    known = [_settled(pod, before, homes) for pod in pods]
    load = Counter(node for pod, node in zip(pods, known, strict=True) if not pod.host_network)
    hosts = Counter(homes.values())

    placed = []
    for pod, settled in zip(pods, known, strict=True):
        node = settled or _settled(pod, before, homes)  # a Pod before it may have brought its address to a node
        if not node:
            busy = hosts if pod.host_network else load
            node = min(names, key=lambda name: busy[name])
            busy[node] += 1
        if pod.host_network:
            homes |= dict.fromkeys(pod.addresses, node)
        placed.append(msgspec.structs.replace(pod, node=node))
    return tuple(placed)


def _settled(pod: LabPod, before: Mapping[str, str], homes: Mapping[str, str]) -> str:
    """The node that *pod* has, had, or shares an address with; empty if any will do."""
    if pod.node or not pod.host_network:
        return pod.node or before.get(pod.uid or pod.key, "")
    return next((homes[address] for address in pod.addresses if address in homes), "")


def _number_nodes(lab: str, layout: Layout, pods: Sequence[LabPod], previous: Plan) -> tuple[PlannedNode, ...]:
    """Every node that is asked for or that a Pod names, with its addresses."""
    asked = {node.name: node.addresses for node in layout.nodes} or dict.fromkeys(DEFAULT_NODES, ())
    bridges = {node.name: node.bridge for node in layout.nodes}
    asked |= {pod.node: () for pod in pods if pod.node not in asked}
    if len(asked) > MAX_NODES:
        raise ValueError(f"a lab has at most {MAX_NODES} nodes, not {len(asked)}")
    before = {node.name: node for node in previous.nodes}
    free = [
        number
        for number in range(1, MAX_NODES + 1)
        if not any(_gateways(number) == n.gateways for n in before.values())
    ]

    nodes = []
    for name, given in asked.items():
        known = before.get(name)
        number = free.pop(0) if known is None else _number_of(known)
        from_pods = (address for pod in pods if pod.host_network and pod.node == name for address in pod.addresses)
        addresses = dict.fromkeys((*given, *(known.addresses if known else ()), *from_pods))
        present = {family(address) for address in addresses}
        own = (f"100.64.0.{number}", f"fd00:ea57::{number:x}")
        addresses |= dict.fromkeys(address for address in own if family(address) not in present)
        nodes.append(
            PlannedNode(
                name=name,
                netns=_netns_name(lab, "node", name),
                addresses=tuple(addresses),
                gateways=_gateways(number),
                bridge=bridges.get(name, ()),
            )
        )
    return tuple(nodes)


def _gateways(number: int) -> tuple[str, str]:
    """100.64.0.0/10 is shared address space (RFC 6598), which Pods of a cluster have no reason to use."""
    return f"100.64.{number}.1", f"fd00:ea57:{number:x}::1"


def _number_of(node: PlannedNode) -> int:
    return int(node.gateways[0].split(".")[2])


def _netns_name(lab: str, kind: str, name: str) -> str:
    """A namespace is a file name: at most 255 bytes. What does not fit is told apart by a hash."""
    full = f"{PREFIX}{lab}-{kind}.{name}"
    return full if len(full) <= 200 else f"{full[:180]}-{_digest(full)}"


def link_name(text: str) -> str:
    """A name for the link of what *text* says; 14 of the 15 characters that the kernel allows."""
    return "ew" + _digest(text)


def hardware_address(text: str) -> str:
    """A locally administered unicast address for what *text* says."""
    digest = _digest(text)
    return ":".join(["02", *(digest[index : index + 2] for index in range(0, 10, 2))])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
