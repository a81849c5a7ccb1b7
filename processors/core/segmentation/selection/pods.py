"""A Pod as policy sees it, and who owns an address that several Pods claim."""

from collections.abc import Iterator
from typing import Final

import msgspec

from processors.core.privileges import privileges
from processors.core.segmentation.selection.selectors import LabelPairs
from schemas import addresses
from schemas.addresses import PROTOCOLS
from schemas.objects import Container, Pod

TERMINAL: Final = frozenset(("Succeeded", "Failed"))
NamedPort = tuple[int, str, int]
"""Protocol, name, number."""


class PodView(msgspec.Struct, frozen=True):
    """The fields of a Pod that decide about policy. Equal views: nothing to do."""

    namespace: str
    name: str
    uid: str
    node: str
    """Empty until it is bound."""
    mirror: str
    labels: LabelPairs
    ports: tuple[NamedPort, ...]
    """Its named container ports, sorted; those of restartable init containers count (KEP-753)."""
    claims: frozenset[bytes]
    """Its addresses; none where it is on the host's network or has finished: it is then nobody's peer."""
    rank: tuple[bool, bool, str, str]
    """The greater rank owns an address that several Pods claim."""
    subject: bool
    """Whether policies apply to it: neither on the host's network nor finished."""
    privileges: frozenset[str]
    """Which of NET_ADMIN and NET_RAW any of its containers has."""


def view(pod: Pod) -> tuple[PodView, tuple[str, ...]]:
    """*pod* as policy sees it, and what of it could not be read."""
    meta, status = pod.metadata, pod.status
    subject = not pod.spec.host_network and status.phase not in TERMINAL
    claims: set[bytes] = set()
    problems: list[str] = []
    if subject:
        for text in _addresses(pod):
            try:
                claims.add(addresses.pack(text))
            except ValueError:
                problems.append(f"status.podIPs: {text!r} is not an address")
    return (
        PodView(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            node=pod.spec.node_name,
            mirror=(meta.annotations and meta.annotations.mirror) or "",
            labels=tuple(sorted(meta.labels.items())) if meta.labels else (),
            ports=tuple(sorted(set(_named_ports(pod)))),
            claims=frozenset(claims),
            rank=(status.phase == "Running", not meta.deletion_timestamp, meta.creation_timestamp or "", meta.uid),
            subject=subject,
            privileges=frozenset().union(*(granted for _, granted in privileges(pod))),
        ),
        tuple(problems),
    )


def _addresses(pod: Pod) -> Iterator[str]:
    """``podIPs``, and ``podIP`` where an older writer set only that."""
    if pod.status.pod_ips:
        yield from (item.ip for item in pod.status.pod_ips if item.ip)
    elif pod.status.pod_ip:
        yield pod.status.pod_ip


def _named_ports(pod: Pod) -> Iterator[NamedPort]:
    for container in _listening(pod):
        for port in container.ports or ():
            if port.name and port.protocol in PROTOCOLS:
                yield PROTOCOLS[port.protocol], port.name, port.container_port


def _listening(pod: Pod) -> Iterator[Container]:
    yield from pod.spec.containers or ()
    yield from (item for item in pod.spec.init_containers or () if item.restart_policy == "Always")
