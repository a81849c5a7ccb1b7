"""From a moment of a case to the network that plays it: Pods as namespaces, who listens, and what is asked."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from compose.checking.engines.judging import Judge
from compose.checking.suites.cases import Case, Cell, Object
from compose.lab.cluster.reading import read_layout
from compose.lab.listening import Listener, listeners_of
from compose.lab.plan import LabPod, Layout, Plan
from compose.lab.probing import Probe
from schemas import addresses, names
from schemas.addresses import ICMP
from schemas.objects import KubernetesObject, decode_object

NETWORK_KINDS: Final = frozenset(("Node", "Pod", "Service", "EndpointSlice"))
Objects = Mapping[str, Object]
"""All there are, by log key."""


def layout_of(case: Case, objects: Objects) -> Layout:
    """The network of *objects*: bound Pods that have an address, and every address that nobody in the cluster has."""
    found = read_layout(_decoded(objects.values()))
    pods = [_canonical(pod) for pod in found.pods if pod.node and pod.addresses]
    # Of two that claim one address, the lab gives it to the first.
    pods.sort(key=lambda pod: _claim(objects[names.key("Pod", pod.namespace, pod.name)]), reverse=True)
    taken = {address for pod in pods for address in pod.addresses}
    taken.update(address for node in found.nodes for address in (*node.addresses, *node.bridge))
    outside = [address for address in _mentioned(case, objects) if address not in taken]
    return msgspec.structs.replace(found, pods=tuple(pods), externals=tuple(outside))


def _decoded(objects: Iterable[Object]) -> Iterator[KubernetesObject]:
    return (decode_object(item["kind"], msgspec.json.encode(item)) for item in objects if item["kind"] in NETWORK_KINDS)


def _canonical(pod: LabPod) -> LabPod:
    return msgspec.structs.replace(pod, addresses=tuple(map(_text, pod.addresses)))


def _text(address: str) -> str:
    """An address as the kernel writes it, whatever its notation."""
    return addresses.unpack(addresses.pack(address))


def _claim(pod: Object) -> tuple[bool, str]:
    return pod["status"].get("phase") == "Running", pod["metadata"].get("creationTimestamp") or ""


def _mentioned(case: Case, objects: Objects) -> dict[str, None]:
    """Every address that any cell of *case*, any endpoint or any Pod of *objects* names, in order."""
    found: dict[str, None] = {}
    for cell in (cell for step in case.steps for cell in step.cells):
        for name in (cell.source, cell.destination):
            if "/" not in name:
                found[_text(name)] = None
    for item in objects.values():
        if item["kind"] == "Pod":  # a finished one's address may be anybody's now
            found.update((_text(each["ip"]), None) for each in item["status"].get("podIPs") or ())
        if item["kind"] == "EndpointSlice":
            found.update((_text(each), None) for one in item.get("endpoints") or () for each in one["addresses"])
    return found


def ports_of(case: Case, objects: Objects) -> set[tuple[str, int]]:
    """(protocol, port) of every cell of any step, and of every endpoint: what there must be a server for.

    Echo requests are answered without one.
    """
    cells = [cell for step in case.steps for cell in step.cells if cell.protocol != ICMP]
    found = {(addresses.PROTOCOL_NAMES[cell.protocol], cell.port) for cell in cells}
    for item in objects.values():
        if item["kind"] == "EndpointSlice":
            ports = item.get("ports") or ()
            found.update((port.get("protocol", "TCP"), port["port"]) for port in ports if port.get("port"))
    return found


def servers(plan: Plan, ports: Iterable[tuple[str, int]]) -> set[Listener]:
    """A server on each of *ports* in every Pod, at every address beyond the cluster, and on every node itself."""
    wanted = tuple(ports)
    found = listeners_of(plan, wanted)
    served = {(each.netns, each.address) for each in found}
    for node in plan.nodes:
        found.update(
            Listener(netns=node.netns, address=address, protocol=protocol, port=port, identity=f"node {node.name}")
            for address in node.local
            if (node.netns, address) not in served
            for protocol, port in wanted
        )
    return found


class Asking:
    """Turns cells into probes, at one moment."""

    def __init__(self, plan: Plan, judge: Judge) -> None:
        self._judge = judge
        self._outside = plan.outside
        self._pods = {pod.key: pod.netns for pod in plan.pods}
        self._owners = {address: pod.netns for pod in plan.pods for address in pod.routed}
        self._owners |= {address: node.netns for node in plan.nodes for address in node.local}

    def probe(self, cell: Cell) -> Probe:
        """How *cell* is asked: from its source's network, or from wherever the source's address is now.

        Raises `Unknown` for a name that does not exist.
        """
        source, destination = map(addresses.unpack, self._judge.ends(cell))
        netns = self._pods.get(cell.source) or self._owners.get(source, self._outside)
        return Probe(
            source=cell.source,
            netns=netns,
            source_address=source,
            destination=cell.destination,
            address=destination,
            protocol=addresses.PROTOCOL_NAMES[cell.protocol],
            port=cell.port,
        )
