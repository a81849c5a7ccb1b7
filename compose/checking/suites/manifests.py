"""Shorthand for Kubernetes objects: what a policy test must say of a Pod, a Service or a Namespace, and no more.

The rest is made up the same way every time: addresses in order, a running Pod with one container, EndpointSlices as
the endpoint-slice controller would write them.
"""

from collections.abc import Iterator
from typing import Any, Final

from compose.lab.cluster.reading import BRIDGE_ADDRESS
from schemas import addresses

Object = dict[str, Any]
POD_FIELDS: Final = frozenset(
    ("labels", "ports", "ip", "node", "phase", "deleting", "hostNetwork", "uid", "created", "initContainers")
)
SERVICE_FIELDS: Final = frozenset(
    (
        *("type", "clusterIP", "clusterIPs", "externalIPs", "loadBalancer", "ports", "endpoints", "externalName"),
        *("internalTrafficPolicy", "externalTrafficPolicy"),
    )
)
NODE_ADDRESSES: Final = {"internal": "InternalIP", "external": "ExternalIP", "bridge": BRIDGE_ADDRESS}
"""The types of a node's addresses, by word."""


class Misspelt(ValueError):
    """Shorthand that says something it has no word for."""


class World:
    """Turns shorthand into objects; remembers what it said of each, so that a later word changes only that."""

    def __init__(self) -> None:
        self._pods: dict[str, Object] = {}
        self._services: dict[str, Object] = {}
        self._slices: dict[str, set[str]] = {}
        self._given = 0

    def namespace(self, name: str, labels: Object | None) -> Object:
        """A Namespace; it carries its own name as a label, as API servers see to."""
        labels = {"kubernetes.io/metadata.name": name, **(labels or {})}
        return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}}

    def node(self, name: str, found: object) -> Object:
        """A Node: its addresses; or ``internal`` and ``external`` ones, and on its ``bridge`` some that the API does
        not know."""
        given = found if isinstance(found, dict) else {"internal": found}
        said = checked(name, given, frozenset(NODE_ADDRESSES))
        listed = [{"type": NODE_ADDRESSES[word], "address": one} for word, several in said.items() for one in several]
        status = {"addresses": listed}
        return {"kind": "Node", "metadata": {"name": name}, "status": status}

    def policy(self, ref: str, spec: object) -> Object:
        """A NetworkPolicy with *spec* as it stands, right or wrong."""
        namespace, name = split(ref)
        return {"kind": "NetworkPolicy", "metadata": {"namespace": namespace, "name": name}, "spec": spec}

    def pod(self, ref: str, said: Object | None) -> Object:
        """A Pod: ``labels``, ``ports`` (name: number or number/PROTOCOL), ``ip`` (one, several, or none), ``node``…"""
        namespace, name = split(ref)
        known = checked(ref, said or {}, POD_FIELDS)
        known = self._pods[ref] = {**self._pods.get(ref, {}), **known}
        if "ip" not in known:
            self._given += 1
            known["ip"] = f"10.244.0.{self._given}"
        found = known["ip"] if isinstance(known["ip"], list) else [known["ip"]]
        found = [address for address in found if address not in (None, "none")]
        meta: Object = {"namespace": namespace, "name": name, "labels": known.get("labels") or {}}
        if "uid" in known:
            meta["uid"] = known["uid"]
        if known.get("created"):
            meta["creationTimestamp"] = known["created"]
        if known.get("deleting"):
            meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        spec: Object = {"containers": [{"name": "main", "ports": list(_ports(known.get("ports")))}]}
        if "initContainers" in known:
            spec["initContainers"] = known["initContainers"]
        if "node" in known:
            spec["nodeName"] = known["node"] or ""
        if known.get("hostNetwork"):
            spec["hostNetwork"] = True
        status: Object = {"phase": known.get("phase", "Running"), "podIPs": [{"ip": address} for address in found]}
        if found:
            status["podIP"] = found[0]
        return {"kind": "Pod", "metadata": meta, "spec": spec, "status": status}

    def service(self, ref: str, said: Object | None) -> tuple[list[Object], list[str]]:
        """A Service and its EndpointSlices; and the names of slices that it no longer has."""
        namespace, name = split(ref)
        known = checked(ref, said or {}, SERVICE_FIELDS)
        known = self._services[ref] = {**self._services.get(ref, {}), **known}
        ports = [_service_port(port) for port in known.get("ports", ())]
        spec: Object = {key: value for key, value in known.items() if key not in ("endpoints", "loadBalancer")}
        spec["ports"] = ports
        if spec.get("type") != "ExternalName":
            if "clusterIP" not in spec and "clusterIPs" not in spec:
                self._given += 1
                known["clusterIP"] = spec["clusterIP"] = f"10.96.0.{self._given}"
            spec.setdefault("clusterIPs", [spec.get("clusterIP")])
            spec.setdefault("clusterIP", spec["clusterIPs"][0])
        meta = {"namespace": namespace, "name": name}
        service = {"kind": "Service", "metadata": meta, "spec": spec}
        if "loadBalancer" in known:
            service["status"] = {"loadBalancer": {"ingress": known["loadBalancer"]}}
        slices = list(self._endpoint_slices(ref, ports, known.get("endpoints") or ()))
        names = {item["metadata"]["name"] for item in slices}
        gone = sorted(self._slices.get(ref, set()) - names)
        self._slices[ref] = names
        return [service, *slices], gone

    def forget_service(self, ref: str) -> list[str]:
        """The slices that go with a Service."""
        self._services.pop(ref, None)
        return sorted(self._slices.pop(ref, set()))

    def forget_pod(self, ref: str) -> None:
        self._pods.pop(ref, None)

    def _endpoint_slices(self, ref: str, ports: list[Object], endpoints: object) -> Iterator[Object]:
        """One slice per family and set of target ports: named target ports differ from Pod to Pod."""
        namespace, name = split(ref)
        grouped: dict[tuple[str, tuple[int | None, ...]], list[Object]] = {}
        for item in endpoints if isinstance(endpoints, list) else ():
            given = item if isinstance(item, dict) else {"to": item}
            pod = self._pods.get(given["to"])
            found = [given["to"]] if pod is None else pod["ip"] if isinstance(pod["ip"], list) else [pod["ip"]]
            conditions = {key: given[key] for key in ("ready", "serving", "terminating") if key in given}
            for address in found:
                kind = f"IPv{addresses.family(addresses.pack(address))}"
                numbers = tuple(_target(port, pod) for port in ports)
                endpoint = {"addresses": [address], "conditions": conditions}
                if pod is not None and pod.get("node"):
                    endpoint["nodeName"] = pod["node"]
                grouped.setdefault((kind, numbers), []).append(endpoint)
        for index, ((kind, numbers), members) in enumerate(sorted(grouped.items(), key=repr), 1):
            yield {
                "kind": "EndpointSlice",
                "metadata": {
                    "namespace": namespace,
                    "name": f"{name}-{index}",
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": kind,
                "endpoints": members,
                "ports": [
                    {"name": port.get("name", ""), "protocol": port["protocol"], "port": number}
                    for port, number in zip(ports, numbers, strict=True)
                    if number is not None
                ],
            }


def split(ref: str) -> tuple[str, str]:
    """``namespace/name`` in two; raises `Misspelt`."""
    namespace, slash, name = ref.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise Misspelt(f"{ref!r} is not namespace/name")
    return namespace, name


def checked(ref: str, said: object, known: frozenset[str]) -> Object:
    """*said* if it uses only *known* words; raises `Misspelt`."""
    if not isinstance(said, dict):
        raise Misspelt(f"{ref}: {said!r} is not a mapping")
    if unknown := sorted(map(str, said.keys() - known)):
        raise Misspelt(f"{ref}: unknown word {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return said


def _ports(said: Object | None) -> Iterator[Object]:
    for name, number in (said or {}).items():
        port, _, protocol = str(number).partition("/")
        yield {"name": name, "containerPort": int(port), "protocol": protocol or "TCP"}


def _service_port(said: object) -> Object:
    port = dict(said) if isinstance(said, dict) else {"port": said}
    port.setdefault("protocol", "TCP")
    port.setdefault("targetPort", port["port"])
    return port


def _target(port: Object, pod: Object | None) -> int | None:
    """The number that a target port is at an endpoint; ``None``: the Pod has no port of that name."""
    target = port["targetPort"]
    if isinstance(target, int):
        return target
    for item in _ports(pod.get("ports") if pod else None):
        if (item["name"], item["protocol"]) == (target, port["protocol"]):
            return int(item["containerPort"])
    return None
