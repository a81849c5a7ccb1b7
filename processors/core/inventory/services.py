"""Virtual services: one Service and the endpoints behind it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from processors.core.inventory.pods import port_text
from schemas.objects import Endpoint, EndpointSlice, Service
from schemas.reports import LISTED, Backend, VirtualPort, VirtualService

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""The label by which an EndpointSlice belongs to a Service (discovery.k8s.io/v1)."""

READY, TERMINATING, NOT_READY = "ready", "terminating", "not ready"
_ORDER: Final = {READY: 0, TERMINATING: 1, NOT_READY: 2}


def report(service: Service, slices: Iterable[EndpointSlice]) -> VirtualService:
    """The report of *service*, behind which *slices* are."""
    meta, spec = service.metadata, service.spec
    headless = spec.cluster_ip == "None"
    external = spec.type == "ExternalName"
    found = sorted(set(backends(slices)), key=lambda backend: (_ORDER[backend.state], backend))
    totals = Counter(backend.state for backend in found)
    return VirtualService(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        type=spec.type,
        addresses=() if headless or external else cluster_addresses(service),
        external_addresses=tuple(external_addresses(service)),
        external_name=spec.external_name if external else "",
        headless=headless,
        selectorless=not spec.selector and not external,
        labels=meta.labels or {},
        selector=spec.selector or {},
        ports=tuple(
            VirtualPort(
                port=port.port,
                protocol=port.protocol,
                name=port.name,
                target=str(port.port if port.target_port is None else port.target_port),
                node_port=port.node_port or 0,
            )
            for port in spec.ports or ()
        ),
        backends=tuple(found[:LISTED]),
        backends_total={state: totals[state] for state in _ORDER if totals[state]},
        created=meta.creation_timestamp or "",
    )


def cluster_addresses(service: Service) -> tuple[str, ...]:
    """``clusterIPs``, or the older ``clusterIP``; none for one that has none."""
    several = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return tuple(address for address in several if address and address != "None")


def external_addresses(service: Service) -> Iterator[str]:
    yield from service.spec.external_ips or ()
    if balancer := service.status.load_balancer:
        for ingress in balancer.ingress or ():
            if address := ingress.ip or ingress.hostname:
                yield address


def backends(slices: Iterable[EndpointSlice]) -> Iterator[Backend]:
    """Every address of every endpoint. One that moves between slices is for a moment in both: once is enough."""
    for entry in slices:
        ports = tuple(sorted(port_text(port.name, port.port, port.protocol) for port in entry.ports or ()))
        for endpoint in entry.endpoints or ():
            reference = endpoint.target_ref
            target = f"{reference.kind}/{reference.namespace or '-'}/{reference.name}" if reference else ""
            for address in endpoint.addresses:
                yield Backend(
                    state=readiness(endpoint),
                    address=address,
                    target=target,
                    node=endpoint.node_name or "",
                    ports=ports,
                )


def readiness(endpoint: Endpoint) -> str:
    """As kube-proxy reads the conditions (discovery/v1): an absent *ready* is ready, an absent *serving* is not."""
    conditions = endpoint.conditions
    ready = conditions.ready is None or conditions.ready
    if ready:
        return READY
    return TERMINATING if conditions.serving and conditions.terminating else NOT_READY
