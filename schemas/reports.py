"""The five reports: what the inventory bucket holds, one value per key, JSON.

They hold only what changes when the cluster changes. What always changes (heartbeats, lag, realized revisions, what a
node's runtime says of its containers) travels as status, and whoever shows a report joins the two.
"""

from enum import StrEnum
from typing import ClassVar, Final

import msgspec

from schemas import names
from schemas.programs import Mode

LISTED: Final = 500
"""A report lists at most this many of anything that a cluster may have thousands of; a count beside it says all."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the five."""

    title: ClassVar[str] = ""


class Segmentation(StrEnum):
    """How a Pod is segmented, as far as can be known before its node speaks."""

    SEGMENTED = "segmented"
    """Some policy selects it, and its rules are to be enforced."""
    OPEN = "no policy"
    """Managed, and nothing isolates it: everything may reach it, and it everything."""
    HOST_NETWORK = "host network"
    """It has its node's network: policies do not apply to it (`semantics.md` §2.9)."""
    IDLE = "idle"
    """Its namespace is listed only: nothing is programmed."""
    UNSCHEDULED = "not scheduled"
    """It has no node yet."""
    FINISHED = "finished"
    """It has run to its end; nothing is left to enforce."""


class Trouble(msgspec.Struct, frozen=True, order=True, gc=False):
    """Something wrong with one object."""

    object: str
    """``<Kind>/<namespace or ->/<name>``."""
    message: str
    """What is wrong, and what is done about it."""


class Summary(Report, frozen=True, kw_only=True):
    """The cluster as a whole. Key ``summary``."""

    title: ClassVar[str] = "Summary"

    cluster: str
    """Name of the cluster."""
    version: str = ""
    """Kubernetes version, as the API server says."""
    platform: str = ""
    """Operating system and architecture of the API server."""
    runtimes: dict[str, int] = {}
    """Container runtimes with version, and the nodes that run each."""
    pod_ranges: tuple[str, ...] = ()
    """Address ranges of the nodes' Pods."""
    service_ranges: tuple[str, ...] = ()
    """Address ranges of the Services, where the cluster says."""
    counts: dict[str, int] = {}
    """Objects per kind."""
    nodes_ready: int = 0
    """Nodes that report ready."""
    segmentation: dict[str, int] = {}
    """Pods by how they are segmented."""
    errors: tuple[Trouble, ...] = ()
    """What is wrong with objects, sorted; at most 500."""
    errors_total: int = 0
    """How many there are."""
    warnings: tuple[Trouble, ...] = ()
    """What works otherwise than one might think, sorted; at most 500."""
    warnings_total: int = 0
    """How many there are."""
    synced: bool = False
    """Whether every kind was listed completely in the current epoch."""
    waiting_for: tuple[str, ...] = ()
    """The kinds that were not."""


class Workload(Report, frozen=True, kw_only=True):
    """A node. Key ``workload.<node>``."""

    title: ClassVar[str] = "Workloads"

    name: str
    """Name of the node."""
    uid: str = ""
    """The API's id of the node."""
    machine_id: str = ""
    """The machine's own id."""
    addresses: tuple[tuple[str, str], ...] = ()
    """(type, address): InternalIP, ExternalIP, Hostname; all families."""
    pod_ranges: tuple[str, ...] = ()
    """Address ranges of its Pods."""
    labels: dict[str, str] = {}
    """Labels of the node."""
    os: str = ""
    """Operating system image."""
    architecture: str = ""
    """Machine architecture."""
    kernel: str = ""
    """Kernel version."""
    kubelet: str = ""
    """Kubelet version."""
    runtime: str = ""
    """Container runtime with version."""
    ready: bool = False
    """Whether the node reports ready."""
    reason: str = ""
    """Why it is not."""
    schedulable: bool = True
    """Whether new Pods may be bound to it."""
    pods: int = 0
    """Pods bound to it that have not finished."""
    created: str = ""
    """When the object was created, RFC 3339."""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One container inside a Pod. It cannot be segmented from its neighbours in the same Pod."""

    name: str
    """Name of the container."""
    kind: str = "container"
    """``container``, ``init``, ``sidecar`` or ``ephemeral``."""
    image: str = ""
    """Image, as the specification names it."""
    ports: tuple[str, ...] = ()
    """Declared ports: ``name:8080/TCP``."""
    state: str = ""
    """``running``, ``waiting: <reason>`` or ``terminated: <reason>``; empty while nothing is known."""
    ready: bool = False
    """Whether it reports ready."""
    restarts: int = 0
    """How often it was restarted."""


class ContainerWorkload(Report, frozen=True, kw_only=True):
    """A Pod. Key ``container-workload.<namespace>.<pod>``."""

    title: ClassVar[str] = "Container Workloads"

    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    uid: str = ""
    """The API's id of the Pod."""
    owners: tuple[str, ...] = ()
    """Who made it, nearest first: ``ReplicaSet/web-7d``, ``Deployment/web``."""
    node: str = ""
    """The node it is bound to."""
    addresses: tuple[str, ...] = ()
    """Its addresses, all families."""
    phase: str = ""
    """Pending, Running, Succeeded, Failed or Unknown."""
    ready: bool = False
    """Whether it reports ready."""
    terminating: bool = False
    """Whether its deletion has begun."""
    labels: dict[str, str] = {}
    """Labels of the Pod."""
    containers: tuple[ContainerState, ...] = ()
    """The containers inside."""
    mode: Mode = Mode.SELECTIVE
    """How Pods of its namespace are managed."""
    segmentation: Segmentation = Segmentation.OPEN
    """How it is segmented."""
    policies: tuple[str, ...] = ()
    """The policies that select it, sorted; at most 500."""
    policies_total: int = 0
    """How many there are."""
    caveats: tuple[str, ...] = ()
    """Why its rules may not hold: it may edit them, or send packets past them, or its node lets others in."""
    created: str = ""
    """When the object was created, RFC 3339."""


class VirtualPort(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One port of a Service."""

    port: int
    """The port at the virtual address."""
    protocol: str = "TCP"
    """TCP, UDP or SCTP."""
    name: str = ""
    """Its name, where it has one."""
    target: str = ""
    """The port at the Pod, number or name."""
    node_port: int = 0
    """The port at every node, 0 for none."""


class Backend(msgspec.Struct, frozen=True, kw_only=True, order=True, gc=False):
    """One endpoint behind a Service."""

    state: str
    """``ready``, ``terminating`` (still serving) or ``not ready``."""
    address: str
    """Its address."""
    target: str = ""
    """The object behind it: ``Pod/<namespace>/<name>``; empty for an endpoint written by hand."""
    node: str = ""
    """The node it is on."""
    ports: tuple[str, ...] = ()
    """Target ports there: ``name:8080/TCP``."""


class VirtualService(Report, frozen=True, kw_only=True):
    """A Service. Key ``virtual-service.<namespace>.<service>``."""

    title: ClassVar[str] = "Virtual Services"

    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    uid: str = ""
    """The API's id of the Service."""
    type: str = "ClusterIP"
    """ClusterIP, NodePort, LoadBalancer or ExternalName."""
    addresses: tuple[str, ...] = ()
    """Its cluster addresses, all families."""
    external_addresses: tuple[str, ...] = ()
    """External and load-balancer addresses and host names."""
    external_name: str = ""
    """The DNS name it stands for (ExternalName)."""
    headless: bool = False
    """It has no virtual address: clients see the endpoints."""
    selectorless: bool = False
    """Its endpoints are written by hand, not found by labels."""
    labels: dict[str, str] = {}
    """Labels of the Service."""
    selector: dict[str, str] = {}
    """The labels of the Pods behind it."""
    ports: tuple[VirtualPort, ...] = ()
    """Its ports."""
    backends: tuple[Backend, ...] = ()
    """The endpoints behind it, by readiness, then address; at most 500."""
    backends_total: dict[str, int] = {}
    """How many there are, by readiness."""
    created: str = ""
    """When the object was created, RFC 3339."""


class Profile(Report, frozen=True, kw_only=True):
    """A namespace and how its Pods are managed. Key ``profile.<namespace>``."""

    title: ClassVar[str] = "Container Workload Profiles"

    namespace: str
    """Name of the namespace."""
    phase: str = ""
    """Active or Terminating."""
    labels: dict[str, str] = {}
    """Labels of the namespace."""
    mode: Mode = Mode.SELECTIVE
    """How its Pods are managed."""
    visibility: str = "off"
    """What of its traffic is recorded."""
    pods: int = 0
    """Pods in it."""
    services: int = 0
    """Services in it."""
    segmentation: dict[str, int] = {}
    """Its Pods by how they are segmented."""
    policies: tuple[str, ...] = ()
    """Names of the policies in it, sorted; at most 500."""
    policies_total: int = 0
    """How many there are."""
    created: str = ""
    """When the object was created, RFC 3339."""


AnyReport = Summary | Workload | ContainerWorkload | VirtualService | Profile

PREFIXES: Final[dict[str, type[AnyReport]]] = {
    "summary": Summary,
    "workload": Workload,
    "container-workload": ContainerWorkload,
    "virtual-service": VirtualService,
    "profile": Profile,
}
"""The type of a value, by the first token of its key."""

_PREFIX_OF: Final[dict[type[Report], str]] = {type_: prefix for prefix, type_ in PREFIXES.items()}


def report_key(type_: type[Report], namespace: str = "", name: str = "") -> str:
    """The bucket key of the report of one object: ``container-workload.<namespace>.<pod>``; ``summary`` has no name."""
    return ".".join(filter(None, (_PREFIX_OF[type_], namespace, names.token(name))))


encode_report = msgspec.json.Encoder(order="sorted").encode
"""Names in sorted order, so that equal reports are equal bytes."""

_DECODERS = {prefix: msgspec.json.Decoder(type_) for prefix, type_ in PREFIXES.items()}


def decode_report(key: str, value: bytes) -> AnyReport:
    """The report under *key*; raises KeyError for a key of no report, `msgspec.MsgspecError` for what is unreadable."""
    report: AnyReport = _DECODERS[key.partition(".")[0]].decode(value)
    return report
