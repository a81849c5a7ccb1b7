"""What programs and address sets say of a case's connections: the engine *interpreter*."""

import functools
from collections.abc import Iterator, Mapping
from typing import Final

from compose.checking.suites.cases import Cell, Object
from schemas import addresses, names, verdict
from schemas.addresses import ECHO, ICMP, ICMPV6
from schemas.policy import Policy
from schemas.programs import Program
from schemas.verdict import Flow, Judgement, Reason

SERVICE: Final = "service:"
"""Before a destination that is a Service: its first ClusterIP."""


_pack = functools.lru_cache(maxsize=1 << 14)(addresses.pack)  # a case asks about the same few addresses ever again


class Unknown(ValueError):
    """A cell names something that is not there now."""


class Judge:
    """Judges connections between the *objects* of one moment under the *policy* of the same moment."""

    def __init__(self, objects: Mapping[str, Object], policy: Policy) -> None:
        self._objects = objects
        self._sets = policy.sets
        self._programs: Mapping[str, Program] = {program.uid: program for program in policy.programs.values()}

    def judge(self, cell: Cell) -> Judgement:
        """The verdict on *cell*: the source's egress, then the destination's ingress; of several ways in, any block.

        Raises `Unknown` for a name that does not exist.
        """
        source, destination = self.ends(cell)
        sender = self._pod(cell.source)
        flow = _flow(cell, source, destination)
        judgement = verdict.judge_egress(self._program(sender), flow, self._members, self._node(sender))
        for receiver, arriving in self._arriving(cell, flow):
            if not judgement.allowed:
                break
            found = verdict.judge_ingress(self._program(receiver), arriving, self._members, self._node(receiver))
            if judgement.reason is not Reason.LOOPBACK or not found.allowed:
                judgement = found
        return judgement

    def ends(self, cell: Cell) -> tuple[bytes, bytes]:
        """The addresses of *cell*'s source and destination, of one family. Raises `Unknown`."""
        family = None if "/" in cell.source else addresses.family(_pack(cell.source))
        destination = self._address(cell.destination, cell, family)
        return self._address(cell.source, cell, addresses.family(destination)), destination

    def _arriving(self, cell: Cell, flow: Flow) -> Iterator[tuple[Object, Flow]]:
        """The Pods at which the connection may end, and how it looks there."""
        if not cell.destination.startswith(SERVICE):
            receiver = self._pod(cell.destination) or self._owner(flow.destination)
            if receiver is not None:
                yield receiver, flow
            return
        for address, port in self._endpoints(cell, addresses.family(flow.destination)):
            if (receiver := self._owner(address)) is not None:
                yield receiver, Flow(flow.source, address, flow.protocol, port)

    def _endpoints(self, cell: Cell, family: int) -> Iterator[tuple[bytes, int]]:
        """(address, port) behind the Service's port, whatever their condition."""
        namespace, _, name = cell.destination.removeprefix(SERVICE).partition("/")
        service = self._objects[names.key("Service", namespace, name)]
        wanted = {port.get("name", "") for port in service["spec"]["ports"] if port["port"] == cell.port}
        for item in self._objects.values():
            labels = item["metadata"].get("labels") or {}
            if item["kind"] != "EndpointSlice" or labels.get("kubernetes.io/service-name") != name:
                continue
            if item["metadata"].get("namespace") != namespace or item["addressType"] != f"IPv{family}":
                continue
            for port in item.get("ports") or ():
                if port.get("name", "") in wanted and port.get("port"):  # one without a number is none for kube-proxy
                    for endpoint in item.get("endpoints") or ():
                        yield _pack(endpoint["addresses"][0]), port["port"]

    def _owner(self, address: bytes) -> Object | None:
        """The Pod that answers at *address*."""
        for item in self._objects.values():
            running = item["kind"] == "Pod" and item.get("status", {}).get("phase") not in ("Succeeded", "Failed")
            if running and address in _pod_addresses(item):
                return item
        return None

    def _address(self, name: str, cell: Cell, family: int | None = None) -> bytes:
        """The address that *name* stands for; of a Pod the first one, or the first of *family*.

        Raises `Unknown`, and `ValueError` for what is neither a name nor an address.
        """
        if "/" not in name:
            return _pack(name)
        if name.startswith(SERVICE):
            namespace, _, service = name.removeprefix(SERVICE).partition("/")
            found = self._objects.get(names.key("Service", namespace, service))
            spec = found["spec"] if found else {}
            texts = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
            if texts[0] not in ("", "None"):
                return _pack(texts[0])
        pod = self._pod(name)
        for address in _pod_addresses(pod) if pod is not None else ():
            if family is None or addresses.family(address) == family:
                return address
        raise Unknown(f"{cell}: {name} does not exist, or has no address of that family")

    def _pod(self, name: str) -> Object | None:
        namespace, _, pod = name.partition("/")
        return self._objects.get(names.key("Pod", namespace, pod))

    def _program(self, pod: Object | None) -> Program | None:
        return self._programs.get(pod["metadata"]["uid"]) if pod is not None else None

    def _members(self, identity: str) -> frozenset[bytes]:
        return self._sets[identity]

    def _node(self, pod: Object | None) -> tuple[bytes, ...]:
        node = self._objects.get(names.key("Node", "", pod["spec"].get("nodeName", ""))) if pod is not None else None
        if node is None:
            return ()
        return tuple(_pack(item["address"]) for item in node["status"]["addresses"])


def _flow(cell: Cell, source: bytes, destination: bytes) -> Flow:
    if cell.protocol == ICMP and addresses.family(destination) == 6:
        return Flow(source, destination, ICMPV6, ECHO[ICMPV6])
    return Flow(source, destination, cell.protocol, cell.port)


def _pod_addresses(pod: Object) -> tuple[bytes, ...]:
    status = pod.get("status", {})
    texts = [item["ip"] for item in status.get("podIPs") or ()] or list(filter(None, [status.get("podIP")]))
    return tuple(map(_pack, texts))
