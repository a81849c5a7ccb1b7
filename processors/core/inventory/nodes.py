"""Workloads: one node."""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from schemas.objects import Node, NodeInfo
from schemas.reports import LISTED, Workload


def report(node: Node, pods: int) -> Workload:
    """The report of *node*, to which *pods* unfinished Pods are bound."""
    meta, info = node.metadata, node.status.node_info or NodeInfo()
    ready = {condition.type: condition for condition in node.status.conditions or ()}.get("Ready")
    holds = ready is not None and ready.status == "True"
    return Workload(
        name=meta.name,
        uid=meta.uid,
        machine_id=info.machine_id,
        addresses=tuple((entry.type, entry.address) for entry in node.status.addresses or ()),
        pod_ranges=pod_ranges(node),
        labels=meta.labels or {},
        os=info.os_image,
        architecture=info.architecture,
        kernel=info.kernel_version,
        kubelet=info.kubelet_version,
        runtime=info.container_runtime_version,
        ready=holds,
        reason="" if holds else (ready.reason or ready.status) if ready is not None else "the node has not reported",
        schedulable=not node.spec.unschedulable,
        pods=pods,
        created=meta.creation_timestamp or "",
    )


def pod_ranges(node: Node) -> tuple[str, ...]:
    """``podCIDRs``, or the older ``podCIDR``; networks that take addresses elsewhere leave both empty."""
    return node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())


class NodesTogether(msgspec.Struct, frozen=True):
    """What the summary says of all nodes."""

    ready: int
    runtimes: dict[str, int]
    pod_ranges: tuple[str, ...]


def together(nodes: Iterable[Node]) -> NodesTogether:
    ready, runtimes, ranges = 0, Counter[str](), set[str]()
    for node in nodes:
        ready += any(
            condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or ()
        )
        if info := node.status.node_info:
            runtimes[info.container_runtime_version] += 1
        ranges.update(pod_ranges(node))
    return NodesTogether(ready, dict(sorted(runtimes.items())), tuple(_collapsed(ranges))[:LISTED])


def _collapsed(ranges: Iterable[str]) -> Iterator[str]:
    """Neighbouring ranges as one, IPv4 first; what is no range stands as it is, at the end."""
    networks: dict[int, list[ipaddress.IPv4Network | ipaddress.IPv6Network]] = {4: [], 6: []}
    unreadable = []
    for text in ranges:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            unreadable.append(text)
        else:
            networks[network.version].append(network)
    for family in networks.values():
        yield from map(str, ipaddress.collapse_addresses(family))  # type: ignore[type-var]  # one family at a time
    yield from sorted(unreadable)
