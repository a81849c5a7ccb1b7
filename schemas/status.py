"""What every component says of itself: a heartbeat with what always changes.

JSON on ``status.<cluster>.<component>.<name>``; the newest value replaces the one before. Nothing here is needed to
enforce: a component whose status is lost goes on with its work.
"""

from enum import StrEnum
from typing import Final

import msgspec

HEARTBEAT_SECONDS: Final = 5.0
DEGRADED_AFTER: Final = 3
"""Missed heartbeats."""
OFFLINE_AFTER: Final = 12


class Component(StrEnum):
    """Second to last token of the subject."""

    CVEN = "c-ven"
    KUBELINK = "kubelink"
    PROCESSOR = "processor"
    RUNTIME = "runtime"
    """A C-VEN again, on what its node's container runtime reports: large, and sent only when it changes."""


class Connectivity(StrEnum):
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    """Nothing is known of what it does; a C-VEN's rules stand nevertheless."""


class PodState(StrEnum):
    """What a C-VEN has made of a Pod's program (`semantics.md` §5.9)."""

    ENFORCED = "enforced"
    ADVISORY = "advisory"
    """A container may edit the Pod's own rules; the peers' side still blocks."""
    UNENFORCEABLE = "unenforceable"
    """No rule can hold in its namespace: another kernel or another namespace has its traffic. Nothing is claimed."""
    HOST_NETWORK = "host network"
    OPEN = "no policy"
    """Nothing isolates it: it has no rules."""
    IDLE = "idle"
    PENDING = "pending"
    """A program is here, and no running Pod for it yet."""
    OBSERVED = "observed"
    """Its node observes: nothing is written."""
    PAUSED = "paused"
    """The C-VEN writes nothing, by order."""
    RELEASED = "released"
    """It would have rules, and has none of ours, by order."""
    CONTESTED = "contested"
    """Someone else keeps changing our rules."""
    ERROR = "error"
    UNKNOWN = "unknown"
    """No enforcer says so, but whoever reads: its enforcer is offline, so nobody confirms what it said last."""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What somebody on the node ordered its enforcer by hand, until it is undone."""

    release: str = ""
    """No rules of ours: in the Pod ``namespace/name``, in a ``namespace``, or in all (``*``). Empty: a pause, nothing
    is written at all."""
    since: str = ""
    """RFC 3339; empty where it stands in the settings."""
    by: str = ""
    """The user, as the node knows it."""
    reason: str = ""

    def covers(self, namespace: str, name: str) -> bool:
        """Whether it releases this Pod."""
        return self.release in ("*", namespace, f"{namespace}/{name}")

    def __str__(self) -> str:
        what = f"released: {self.release}" if self.release else "paused"
        since = f" since {self.since}" if self.since else ""
        return f"{what}, by {self.by or 'unknown'}{since}" + (f": {self.reason}" if self.reason else "")


class PodException(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A Pod that the realized revision does not hold for."""

    uid: str
    namespace: str = ""
    name: str = ""
    reason: str
    """What could not be done, and why."""


class DriftKind(StrEnum):
    """What of ours someone changed."""

    TABLE = "table"
    CHAIN = "chain"
    JUMP = "jump"
    SET = "set"
    LINK = "link"
    """Not ours, but what our rules name."""


class Difference(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing of ours that is not as it was written."""

    kind: DriftKind
    object: str
    """``mangle EW-IN (IPv4)``, ``set ew-…-4``."""
    before: str
    """As it should be, in short."""
    after: str
    """As it was found."""

    def __str__(self) -> str:
        return f"{self.object}: {self.before} before, now {self.after}"


class Tampering(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Someone else changed what is ours in a Pod's network namespace."""

    time: str
    """When it was found, RFC 3339."""
    uid: str
    namespace: str
    name: str
    differences: tuple[Difference, ...]
    """The first of them."""
    more: int = 0
    """How many further ones there were."""
    processes: tuple[str, ...] = ()
    """Who changed rules there since they were last known to be right: name and process id, as the node counts. Some of
    them may have left ours alone. Empty where nobody told: changes of ipsets have no name."""
    seconds: float | None = None
    """From its first sign until it was put back; ``None``: it was not yet."""

    def __str__(self) -> str:
        by = f" by {', '.join(self.processes)}" if self.processes else ""
        what = "; ".join([*map(str, self.differences), *([f"and {self.more} more"] if self.more else [])])
        end = "not put back yet" if self.seconds is None else f"put back after {self.seconds * 1000:.0f} ms"
        return f"{self.namespace}/{self.name} tampered with{by}: {what}; {end}"


class Cut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A connection that was ended, since nothing allows it any more."""

    time: str
    """RFC 3339, by the enforcer's clock."""
    pod: str
    """``namespace/name``."""
    connection: str
    """For people, from where it began: ``TCP 10.0.0.1 → 10.0.0.2 port 80``."""
    reason: str
    """As verdicts say it (`schemas.verdict.Reason`)."""
    rule: str = ""
    """Id of the blocking rule, as in the kernel: ``default-…``, or ``virtual-…`` (`schemas.programs.denial_id`)."""
    policies: tuple[str, ...] = ()
    """Those that isolate the Pod in that direction."""

    def __str__(self) -> str:
        by = " of ".join(filter(None, (self.rule, ", ".join(self.policies))))
        return f"cut {self.pod}: {self.connection}: {self.reason} ({by})"


class ContainerDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One container, as the node's runtime reports it."""

    name: str
    """Name of the container."""
    image: str = ""
    """Image, as the runtime names it."""
    id: str = ""
    """With the runtime's scheme: ``containerd://…``."""
    state: str = ""
    """``created``, ``running``, ``exited``, ``unknown``."""
    started_at: str = ""
    """RFC 3339; empty: not started."""
    restarts: int = 0
    """How often it was restarted."""


class PodDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One Pod on the C-VEN's node."""

    uid: str
    """As the API server knows it, also of a static Pod."""
    namespace: str
    """Namespace of the Pod."""
    name: str
    """Name of the Pod."""
    state: PodState = PodState.PENDING
    """What became of its program (docs/node.md)."""
    bypassable: bool = False
    """May send raw packets past its rules (NET_RAW), beside its state."""
    problems: tuple[str, ...] = ()
    """What is wrong with it though it may hold what it should: rules of others, a connection table nearly full."""
    containers: tuple[ContainerDetail, ...] = ()
    """As the runtime tells."""


class Latency(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """From an event's observation to the kernel, over the last heartbeats, in milliseconds."""

    samples: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class CvenStatus(msgspec.Struct, frozen=True, kw_only=True, tag="c-ven", tag_field="component"):
    """An enforcer: one per node."""

    node: str
    version: str = ""
    heartbeat: str
    """When it was sent, RFC 3339, by the sender's clock; ages are taken from when it was stored."""
    realized: int = -1
    """Newest revision that every Pod of the node has, but for *exceptions*; -1: none yet."""
    exceptions: tuple[PodException, ...] = ()
    pods: dict[PodState, int] = {}
    """How many Pods are in which state."""
    bypassable: int = 0
    """How many of those with rules may send raw packets past them."""
    healed: int = 0
    """Times something was put back that someone else had changed, since the start."""
    tampering: tuple[Tampering, ...] = ()
    """The newest few, oldest first."""
    latency: Latency = Latency()
    from_disk: bool = False
    """Enforces the snapshot that it kept: it has not heard from NATS since its start."""
    paused: bool = False
    orders: tuple[Order, ...] = ()
    """What was ordered by hand on the node and is not undone."""
    observing: bool = False
    """Plans and reports; programs nothing."""
    problems: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()
    """The newest connections that were cut, oldest first."""


class Enforcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an enforcer confirmed, for audit: a record of the status topic, keyed by node.

    One is written when it differs from the one before, at most once a second; a take-over may repeat the newest.
    """

    node: str
    version: str = ""
    heartbeat: str
    """When the enforcer said so, RFC 3339, by its clock. The log's own time is when it was written down."""
    realized: int = -1
    """Newest revision that every Pod of the node has, but for *exceptions*; -1: none yet."""
    exceptions: tuple[PodException, ...] = ()
    healed: int = 0
    """Times something was put back that someone else had changed, since the enforcer's start."""
    tampering: tuple[Tampering, ...] = ()
    """The newest few, oldest first."""
    from_disk: bool = False
    paused: bool = False
    orders: tuple[Order, ...] = ()
    """What was ordered by hand on the node and is not undone."""
    observing: bool = False
    problems: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()
    """As in the status: also in later records, as long as they are among the newest."""


class RuntimeStatus(msgspec.Struct, frozen=True, kw_only=True, tag="runtime", tag_field="component"):
    """The Pods of one node with their containers, as its runtime reports them. Has no heartbeat of its own."""

    node: str
    runtime: str = ""
    """Name and version, as it says; empty: Pods are found by name, as in the lab."""
    pods: tuple[PodDetail, ...] = ()


class KubelinkStatus(msgspec.Struct, frozen=True, kw_only=True, tag="kubelink", tag_field="component"):
    """A producer."""

    name: str
    version: str = ""
    heartbeat: str
    """See `CvenStatus.heartbeat`."""
    leading: bool = False
    """Holds the Lease and writes."""
    epoch: int = -1
    """Offset of its Epoch record; -1: it has not written yet."""
    lag_seconds: float = 0.0
    """Age of the oldest change that was observed and is not in the log yet."""
    synced: tuple[str, ...] = ()
    """Kinds whose list is complete in this epoch."""
    source: str = ""
    """What it reads from: the API server's address, a folder, a capture."""
    problems: tuple[str, ...] = ()


class ProcessorStatus(msgspec.Struct, frozen=True, kw_only=True, tag="processor", tag_field="component"):
    """A processor, in its role for this cluster."""

    name: str
    version: str = ""
    heartbeat: str
    """See `CvenStatus.heartbeat`."""
    owner: bool = False
    """Publishes; else it stands by."""
    token: str = ""
    """Its ownership, while it is the owner."""
    revision: int = -1
    """Newest revision folded."""
    marked: int = -1
    """Newest revision complete in the policy stream."""
    lag: int = 0
    """Records between what it has folded and the log's end."""
    problems: tuple[str, ...] = ()


Status = CvenStatus | RuntimeStatus | KubelinkStatus | ProcessorStatus


def connectivity(age_seconds: float, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Connectivity:
    """What to think of a component whose newest status is *age_seconds* old."""
    missed = age_seconds / heartbeat_seconds
    if missed >= OFFLINE_AFTER:
        return Connectivity.OFFLINE
    return Connectivity.DEGRADED if missed >= DEGRADED_AFTER else Connectivity.ONLINE


def component_of(status: Status) -> tuple[Component, str]:
    """The component and its name: the last two tokens of its subject."""
    if isinstance(status, CvenStatus | RuntimeStatus):
        return (Component.CVEN if isinstance(status, CvenStatus) else Component.RUNTIME), status.node
    return (Component.KUBELINK if isinstance(status, KubelinkStatus) else Component.PROCESSOR), status.name


def enforcement_of(status: CvenStatus) -> Enforcement:
    """What of *status* is for audit."""
    return Enforcement(**{name: getattr(status, name) for name in Enforcement.__struct_fields__})


encode_status = msgspec.json.Encoder().encode
decode_status = msgspec.json.Decoder(Status).decode
encode_enforcement = msgspec.json.Encoder().encode
decode_enforcement = msgspec.json.Decoder(Enforcement).decode
