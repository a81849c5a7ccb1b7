"""The processor's settings."""

import socket
from typing import ClassVar

import msgspec

from processors.core.policy_fold import PartialService, PolicySettings
from schemas.names import checked_cluster
from schemas.programs import Mode
from streams.settings import Settings


class ProcessorSettings(Settings, frozen=True, kw_only=True):
    """How a processor runs, and what it decides."""

    section: ClassVar[str] = "processor"

    name: str = msgspec.field(default_factory=socket.gethostname)
    """Which processor this is, for people and for itself after a restart: what it owned before, it takes over at once.
    Has to differ between processors. Default: the host's name."""
    clusters: tuple[str, ...] = ()
    """The clusters that it serves. Empty (the default): the one named by ``cluster``."""
    default_mode: Mode = Mode.SELECTIVE
    """How Pods are managed whose namespace no pattern names: ``selective`` (default), or ``idle``: listed only."""
    namespace_modes: dict[str, Mode] = msgspec.field(default_factory=lambda: {"eastwest": Mode.IDLE})
    """Mode by pattern of the namespace's name, the first that fits: ``kube-*=idle,shop=selective``. By default
    eastwest's own namespace is idle; keep that when adding others."""
    partial_service: PartialService = PartialService.DENY
    """What becomes of a Service of which only some endpoints are allowed: ``deny`` (default), or ``allow``."""
    allow_own_node_egress: bool = True
    """Whether Pods whose egress is isolated may reach their own node's addresses, but for node ports. If not: where a
    policy allows it. Default: true."""
    replicas: int = 1
    """Copies of the policy stream and the inventory bucket; 3 with a NATS cluster of three or more. Default: 1."""
    take_over_seconds: float = 5.0
    """How old the newest mark must be before a standby takes over; up to a fifth more by chance. Default: 5."""
    inventory_seconds: float = 0.25
    """At least this long between two publications of the inventory. Default: 0.25."""
    status_seconds: float = 5.0
    """How often the processor says that it is alive. Default: 5."""
    inbox_records: int = 50_000
    """How many records may wait to be folded before the log is read no further. Default: 50,000."""
    drain_seconds: float = 10.0
    """How long to go on after a stop with what was taken in already. Default: 10."""

    def __post_init__(self) -> None:
        for cluster in (self.cluster, *self.clusters):
            checked_cluster(cluster)

    @property
    def served(self) -> tuple[str, ...]:
        """Every cluster, once."""
        return tuple(dict.fromkeys(self.clusters or (self.cluster,)))

    @property
    def policy(self) -> PolicySettings:
        return PolicySettings(
            default_mode=self.default_mode,
            namespace_modes=self.namespace_modes,
            partial_service=self.partial_service,
            allow_own_node_egress=self.allow_own_node_egress,
        )
