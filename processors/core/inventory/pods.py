"""Container workloads: one Pod and the containers inside it."""

from collections.abc import Iterator, Sequence
from typing import Final

from processors.core.privileges import NET_ADMIN, NET_RAW, is_privileged, privileges
from schemas.objects import Container, ContainerStatus, Meta, Pod
from schemas.programs import Mode
from schemas.reports import LISTED, ContainerState, ContainerWorkload, Segmentation

FINISHED_PHASES: Final = ("Succeeded", "Failed")
NAMED: Final = 5
"""A caveat names at most so many Services."""
TEMPLATE_HASH: Final = "pod-template-hash"
"""The label by which a Deployment tells its ReplicaSets apart; their names end with it (apps/v1)."""


def report(pod: Pod, mode: Mode, policies: Sequence[str], exposing: Sequence[str]) -> ContainerWorkload:
    """The report of *pod*, which *policies* select, whose namespace is managed as *mode* says, and to which the
    Services *exposing* let traffic come by its node; both sorted."""
    meta, spec, status = pod.metadata, pod.spec, pod.status
    segmentation = segmentation_of(pod, mode, bool(policies))
    return ContainerWorkload(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        owners=tuple(owners(meta)),
        node=spec.node_name,
        addresses=addresses(pod),
        phase=status.phase,
        ready=any(condition.type == "Ready" and condition.status == "True" for condition in status.conditions or ()),
        terminating=meta.deletion_timestamp is not None,
        labels=meta.labels or {},
        containers=tuple(containers(pod)),
        mode=mode,
        segmentation=segmentation,
        policies=tuple(policies[:LISTED]),
        policies_total=len(policies),
        caveats=tuple(caveats(pod, exposing)) if segmentation in (Segmentation.SEGMENTED, Segmentation.OPEN) else (),
        created=meta.creation_timestamp or "",
    )


def segmentation_of(pod: Pod, mode: Mode, selected: bool) -> Segmentation:
    if finished(pod):
        return Segmentation.FINISHED
    if pod.spec.host_network:
        return Segmentation.HOST_NETWORK
    if mode is Mode.IDLE:
        return Segmentation.IDLE
    if not pod.spec.node_name:
        return Segmentation.UNSCHEDULED
    return Segmentation.SEGMENTED if selected else Segmentation.OPEN


def finished(pod: Pod) -> bool:
    """Whether it has run to its end; its status may still name an address that is no longer its own."""
    return pod.status.phase in FINISHED_PHASES


def addresses(pod: Pod) -> tuple[str, ...]:
    """``podIPs``, or the older ``podIP`` where that is all there is; empty ones left out."""
    several = tuple(entry.ip for entry in pod.status.pod_ips or () if entry.ip)
    return several or ((pod.status.pod_ip,) if pod.status.pod_ip else ())


def owners(meta: Meta) -> Iterator[str]:
    """The controller, and the Deployment behind a ReplicaSet: ``ReplicaSet/web-7d``, ``Deployment/web``.

    ReplicaSets are not watched for this. One made by a Deployment is named after it and the template's hash, which is
    also the Pod's label; a ReplicaSet that somebody made by hand has no such label.
    """
    for owner in meta.owner_references or ():
        if not owner.controller:
            continue
        yield f"{owner.kind}/{owner.name}"
        template = (meta.labels or {}).get(TEMPLATE_HASH, "")
        if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
            yield f"Deployment/{owner.name.removesuffix(f'-{template}')}"
        return


def containers(pod: Pod) -> Iterator[ContainerState]:
    """Init containers and sidecars first, as they start; their states by name."""
    spec, status = pod.spec, pod.status
    states = {
        entry.name: entry for entry in (*(status.init_container_statuses or ()), *(status.container_statuses or ()))
    }
    for container in spec.init_containers or ():
        kind = "sidecar" if container.restart_policy == "Always" else "init"
        yield _container(container, kind, states.get(container.name))
    for container in spec.containers or ():
        yield _container(container, "container", states.get(container.name))
    for container in spec.ephemeral_containers or ():
        yield _container(container, "ephemeral", None)


def _container(container: Container, kind: str, status: ContainerStatus | None) -> ContainerState:
    return ContainerState(
        name=container.name,
        kind=kind,
        image=container.image,
        ports=tuple(port_text(port.name, port.container_port, port.protocol) for port in container.ports or ()),
        state=_state(status),
        ready=bool(status and status.ready),
        restarts=status.restart_count if status else 0,
    )


def _state(status: ContainerStatus | None) -> str:
    if status is None or (state := status.state) is None:
        return ""
    if state.running is not None:
        return "running"
    if state.terminated is not None:
        return f"terminated: {state.terminated.reason or f'exit code {state.terminated.exit_code}'}"
    if state.waiting is not None:
        return f"waiting: {state.waiting.reason or 'no reason given'}"
    return ""


def port_text(name: str, port: int | str | None, protocol: str) -> str:
    """``http:8080/TCP``; without a name ``8080/TCP``; ``*`` for every port."""
    number = "*" if port is None else port
    return f"{name}:{number}/{protocol}" if name else f"{number}/{protocol}"


def caveats(pod: Pod, exposing: Sequence[str]) -> Iterator[str]:
    """Why rules inside this Pod's namespace may not hold (`semantics.md` §5.9), where its peers' rules do; and what
    passes them by way of its node (§2.8)."""
    if exposing:
        rest = f" and {len(exposing) - NAMED} more" if len(exposing) > NAMED else ""
        yield f"exposed through node: by {', '.join(exposing[:NAMED])}{rest}; its own node may always connect"
    for container, granted in privileges(pod):
        if is_privileged(container):
            yield f"advisory: container {container.name} is privileged and can edit its own rules"
        elif NET_ADMIN in granted:
            yield f"advisory: container {container.name} has NET_ADMIN and can edit its own rules"
        elif NET_RAW in granted:
            yield f"bypassable by raw sockets: container {container.name} has NET_RAW"
