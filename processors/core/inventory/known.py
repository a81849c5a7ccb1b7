"""What is known of a cluster's objects, and which reports each fact may change."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from processors.core.inventory import nodes
from processors.core.inventory.services import SERVICE_NAME
from processors.core.reading import Fact
from schemas.events import ClusterInfo
from schemas.objects import EndpointSlice, Namespace, Node, Pod, Service
from schemas.reports import ContainerWorkload, Profile, Report, Summary, VirtualService, Workload

ObjectName = tuple[str, str]
"""(namespace, name); the namespace of what has none is empty."""

Mark = tuple[type[Report], ObjectName]
"""A report that may have changed."""

SUMMARY: Mark = (Summary, ("", ""))

K = TypeVar("K")
V = TypeVar("V")


class Known:
    """The objects of one cluster, by name."""

    def __init__(self) -> None:
        self.info = ClusterInfo()
        self.namespaces: dict[str, Namespace] = {}
        self.nodes: dict[str, Node] = {}
        self.pods: dict[ObjectName, Pod] = {}
        self.services: dict[ObjectName, Service] = {}
        self.services_in: Counter[str] = Counter()
        self.slices: dict[ObjectName, EndpointSlice] = {}
        self.policies: defaultdict[str, set[str]] = defaultdict(set)
        """Names, by namespace."""
        self._behind: defaultdict[ObjectName, set[str]] = defaultdict(set)  # Service → names of its slices
        self._nodes_together: nodes.NodesTogether | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Objects per kind."""
        return {
            "Namespace": len(self.namespaces),
            "Node": len(self.nodes),
            "NetworkPolicy": sum(map(len, self.policies.values())),
            "Service": len(self.services),
            "EndpointSlice": len(self.slices),
            "Pod": len(self.pods),
        }

    @property
    def nodes_together(self) -> nodes.NodesTogether:
        if self._nodes_together is None:
            self._nodes_together = nodes.together(self.nodes.values())
        return self._nodes_together

    def behind(self, service: ObjectName) -> Iterator[EndpointSlice]:
        """The slices of *service*."""
        return (self.slices[service[0], name] for name in self._behind.get(service, ()))

    def everything(self) -> Iterator[Mark]:
        """Every report that these objects have."""
        yield from ((ContainerWorkload, name) for name in self.pods)
        yield from ((Workload, ("", name)) for name in self.nodes)
        yield from ((VirtualService, name) for name in self.services)
        yield from ((Profile, ("", name)) for name in self.namespaces)
        yield SUMMARY

    def fold(self, fact: Fact) -> Iterable[Mark]:
        """Take in *fact*; return what it may change by itself (what counts Pods is told by who describes them)."""
        name = (fact.namespace, fact.name)
        match fact.kind:
            case "Pod":
                _set(self.pods, name, fact.object)
                return ((ContainerWorkload, name),)
            case "Node":
                _set(self.nodes, fact.name, fact.object)
                self._nodes_together = None
                return ((Workload, name), SUMMARY)
            case "Namespace":
                _set(self.namespaces, fact.name, fact.object)
                return ((Profile, name), SUMMARY)
            case "Service":
                self.services_in[fact.namespace] += (fact.object is not None) - (name in self.services)
                _set(self.services, name, fact.object)
                return ((VirtualService, name), (Profile, ("", fact.namespace)), SUMMARY)
            case "EndpointSlice":
                return self._fold_slice(name, fact)
            case "NetworkPolicy":
                policies = self.policies[fact.namespace]
                (policies.discard if fact.object is None else policies.add)(fact.name)
                if not policies:
                    del self.policies[fact.namespace]
                return ((Profile, ("", fact.namespace)), SUMMARY)
            case _:
                self.info = fact.object if isinstance(fact.object, ClusterInfo) else ClusterInfo()
                return (SUMMARY,)

    def _fold_slice(self, name: ObjectName, fact: Fact) -> Iterable[Mark]:
        marks = [SUMMARY]
        if service := _service(self.slices.get(name)):
            self._behind[service].discard(fact.name)
            if not self._behind[service]:
                del self._behind[service]
            marks.append((VirtualService, service))
        _set(self.slices, name, fact.object)
        if service := _service(self.slices.get(name)):
            self._behind[service].add(fact.name)
            marks.append((VirtualService, service))
        return marks


def _service(entry: EndpointSlice | None) -> ObjectName | None:
    """The Service that *entry* belongs to; one without the label belongs to none."""
    name = (entry.metadata.labels or {}).get(SERVICE_NAME) if entry else None
    return (entry.metadata.namespace, name) if entry and name else None


def _set(objects: dict[K, V], name: K, value: Any) -> None:
    """Facts are typed by their kind, which the type checker cannot see."""
    if value is None:
        objects.pop(name, None)
    else:
        objects[name] = value
