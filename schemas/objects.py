"""Projected Kubernetes objects: the fields the product uses, and no others.

The structs have the API's own shape, so one decoder reads both the API server's JSON (unknown fields are skipped
without being built) and the log's. What is not named here never leaves Kubelink: no environment, command, volume,
secret, managed field, or annotation that was not selected.
"""

import msgspec

Labels = dict[str, str]


class Projected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of every projected type: field names as in the API."""


class OwnerReference(Projected, frozen=True, gc=False):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class Annotations(Projected, frozen=True, gc=False):
    """The selected annotations."""

    mirror: str | None = msgspec.field(default=None, name="kubernetes.io/config.mirror")
    """Names a static Pod at the runtime, whose id there is not the API's uid."""


class Meta(Projected, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Labels | None = None
    annotations: Annotations | None = None
    owner_references: tuple[OwnerReference, ...] | None = None


# --- Pod -------------------------------------------------------------------------------------------------------------


class ContainerPort(Projected, frozen=True, gc=False):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int | None = None


class Capabilities(Projected, frozen=True, gc=False):
    add: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None


class SecurityContext(Projected, frozen=True, gc=False):
    privileged: bool | None = None
    capabilities: Capabilities | None = None


class Container(Projected, frozen=True, gc=False):
    name: str = ""
    image: str = ""
    ports: tuple[ContainerPort, ...] | None = None
    security_context: SecurityContext | None = None
    restart_policy: str | None = None
    """``Always`` makes an init container a sidecar, whose ports count (KEP-753)."""


class PodSpec(Projected, frozen=True, gc=False):
    node_name: str = ""
    host_network: bool | None = None
    runtime_class_name: str | None = None
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    ephemeral_containers: tuple[Container, ...] | None = None


class PodIP(Projected, frozen=True, gc=False):
    ip: str = ""


class Condition(Projected, frozen=True, gc=False):
    type: str = ""
    status: str = ""
    reason: str | None = None


class StateRunning(Projected, frozen=True, gc=False):
    started_at: str | None = None


class StateWaiting(Projected, frozen=True, gc=False):
    reason: str | None = None


class StateTerminated(Projected, frozen=True, gc=False):
    reason: str | None = None
    exit_code: int | None = None
    finished_at: str | None = None


class ContainerState(Projected, frozen=True, gc=False):
    running: StateRunning | None = None
    waiting: StateWaiting | None = None
    terminated: StateTerminated | None = None


class ContainerStatus(Projected, frozen=True, gc=False):
    name: str = ""
    image: str = ""
    ready: bool | None = None
    restart_count: int = 0
    state: ContainerState | None = None


class PodStatus(Projected, frozen=True, gc=False):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] | None = msgspec.field(default=None, name="podIPs")
    host_ip: str = msgspec.field(default="", name="hostIP")
    start_time: str | None = None
    conditions: tuple[Condition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(Projected, frozen=True):
    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# --- Node ------------------------------------------------------------------------------------------------------------


class NodeAddress(Projected, frozen=True, gc=False):
    type: str = ""
    address: str = ""


class NodeInfo(Projected, frozen=True, gc=False):
    machine_id: str = msgspec.field(default="", name="machineID")
    os_image: str = ""
    operating_system: str = ""
    architecture: str = ""
    kernel_version: str = ""
    kubelet_version: str = ""
    container_runtime_version: str = ""


class NodeSpec(Projected, frozen=True, gc=False):
    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] | None = msgspec.field(default=None, name="podCIDRs")
    unschedulable: bool | None = None


class NodeStatus(Projected, frozen=True, gc=False):
    addresses: tuple[NodeAddress, ...] | None = None
    conditions: tuple[Condition, ...] | None = None
    node_info: NodeInfo | None = None


class Node(Projected, frozen=True):
    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# --- Namespace -------------------------------------------------------------------------------------------------------


class NamespaceStatus(Projected, frozen=True, gc=False):
    phase: str = ""


class Namespace(Projected, frozen=True):
    metadata: Meta
    status: NamespaceStatus = NamespaceStatus()


# --- Service, EndpointSlice ------------------------------------------------------------------------------------------


class ServicePort(Projected, frozen=True, gc=False):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int | None = None


class ServiceSpec(Projected, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] | None = msgspec.field(default=None, name="clusterIPs")
    external_ips: tuple[str, ...] | None = msgspec.field(default=None, name="externalIPs")
    external_name: str = ""
    ip_families: tuple[str, ...] | None = None
    ports: tuple[ServicePort, ...] | None = None
    selector: Labels | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    publish_not_ready_addresses: bool | None = None


class LoadBalancerIngress(Projected, frozen=True, gc=False):
    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancer(Projected, frozen=True, gc=False):
    ingress: tuple[LoadBalancerIngress, ...] | None = None


class ServiceStatus(Projected, frozen=True, gc=False):
    load_balancer: LoadBalancer | None = None


class Service(Projected, frozen=True):
    metadata: Meta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(Projected, frozen=True, gc=False):
    """``None`` means ready, serving as ready says, not terminating (discovery/v1 field comments)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Projected, frozen=True, gc=False):
    name: str = ""


class EndpointHints(Projected, frozen=True, gc=False):
    """Who is to use an endpoint, where not everybody (KEP-2433, KEP-3015)."""

    for_zones: tuple[Hint, ...] | None = None
    for_nodes: tuple[Hint, ...] | None = None


class TargetReference(Projected, frozen=True, gc=False):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Endpoint(Projected, frozen=True, gc=False):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: TargetReference | None = None
    node_name: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(Projected, frozen=True, gc=False):
    name: str = ""
    protocol: str = "TCP"
    port: int | None = None


class EndpointSlice(Projected, frozen=True):
    metadata: Meta
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None


# --- NetworkPolicy ---------------------------------------------------------------------------------------------------


class NetworkPolicy(Projected, frozen=True):
    """A policy whose specification is kept as it came.

    It is read part by part by the policy fold: an unreadable part must not hide the rest, since a policy that cannot
    be read whole still isolates what its selector selects. Nothing in it is secret.
    """

    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"{}")


KubernetesObject = Pod | Node | Namespace | Service | EndpointSlice | NetworkPolicy

TYPES: dict[str, type[KubernetesObject]] = {
    "Namespace": Namespace,
    "Node": Node,
    "NetworkPolicy": NetworkPolicy,
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Pod": Pod,
}

DECODERS = {kind: msgspec.json.Decoder(type_) for kind, type_ in TYPES.items()}


def decode_object(kind: str, data: bytes | msgspec.Raw) -> KubernetesObject:
    """Decode a projection of *kind*; raises `msgspec.MsgspecError` naming the field, `KeyError` for another kind."""
    decoded: KubernetesObject = DECODERS[kind].decode(data)
    return decoded
