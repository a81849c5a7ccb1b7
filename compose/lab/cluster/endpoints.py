"""Endpoints as the EndpointSlice controller makes them, for a world that has none."""

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from compose.lab.cluster.reading import SERVICE_NAME, containers_with_ports, has_sandbox, pod_addresses
from producers.core.manifests import made_uid
from schemas.objects import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Meta,
    Pod,
    Service,
    TargetReference,
)

VERSIONS: Final = {"IPv4": 4, "IPv6": 6}


def endpoint_slices(service: Service, pods: Iterable[Pod]) -> list[EndpointSlice]:
    """What the EndpointSlice controller makes of the Pods that *service* selects: one per family and set of ports.

    Named target ports are resolved Pod by Pod, so Pods that disagree get slices of their own. None without selector.
    """
    selector = service.spec.selector
    if not selector or service.spec.type == "ExternalName":
        return []
    groups: dict[tuple[str, tuple[EndpointPort, ...]], list[Endpoint]] = {}
    for address_type in _families(service):
        for pod in pods:
            labels = pod.metadata.labels or {}
            addresses = [a for a in pod_addresses(pod) if ipaddress.ip_address(a).version == VERSIONS[address_type]]
            if pod.metadata.namespace != service.metadata.namespace or not addresses or not has_sandbox(pod):
                continue
            if selector.items() <= labels.items():
                ports = tuple(_target_ports(service, pod))
                groups.setdefault((address_type, ports), []).append(_endpoint(service, pod, addresses[0]))
    slices = []
    for (address_type, ports), endpoints in groups.items():
        suffix = hashlib.sha256(repr((address_type, ports)).encode()).hexdigest()[:5]
        meta = Meta(
            name=f"{service.metadata.name}-{suffix}",
            namespace=service.metadata.namespace,
            labels={SERVICE_NAME: service.metadata.name},
        )
        slices.append(
            EndpointSlice(
                metadata=with_uid("EndpointSlice", meta),
                address_type=address_type,
                endpoints=tuple(endpoints),
                ports=ports,
            )
        )
    return slices


def _endpoint(service: Service, pod: Pod, address: str) -> Endpoint:
    ready = any(item.type == "Ready" and item.status == "True" for item in pod.status.conditions or ())
    ending = pod.metadata.deletion_timestamp is not None
    published = bool(service.spec.publish_not_ready_addresses)
    meta = pod.metadata
    return Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(
            ready=published or (ready and not ending), serving=published or ready, terminating=ending
        ),
        target_ref=TargetReference(kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        node_name=pod.spec.node_name,
    )


def _target_ports(service: Service, pod: Pod) -> Iterator[EndpointPort]:
    for port in service.spec.ports or ():
        target = port.target_port
        number: int | None = port.port if target in (None, 0, "") else target if isinstance(target, int) else None
        if isinstance(target, str) and target:
            declared = (item for container in containers_with_ports(pod) for item in container.ports or ())
            matching = (p.container_port for p in declared if (p.name, p.protocol) == (target, port.protocol))
            number = next(matching, None)
        if number is not None:
            yield EndpointPort(name=port.name, protocol=port.protocol, port=number)


def _families(service: Service) -> tuple[str, ...]:
    if service.spec.ip_families:
        return service.spec.ip_families
    given = service.spec.cluster_ips or (service.spec.cluster_ip,)
    versions = {ipaddress.ip_address(address).version for address in given if address not in ("", "None")}
    return tuple(name for name, version in VERSIONS.items() if version in versions) or ("IPv4",)


def with_uid(kind: str, meta: Meta) -> Meta:
    """*meta* with a uid: an object that states none has one that follows from its name."""
    return meta if meta.uid else replace(meta, uid=made_uid(kind, meta.namespace, meta.name))
