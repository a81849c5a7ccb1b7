"""What an enforcer counts."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.status import PodState


class Metrics:
    """The C-VEN's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.patches = Counter("eastwest_patches", "Patches written to Pods.", registry=registry)
        self.failures = Counter("eastwest_patch_failures", "Pods that could not be programmed.", registry=registry)
        self.cuts = Counter("eastwest_connections_cut", "Connections that a tightening ended.", registry=registry)
        self.realized = Gauge("eastwest_revision_realized", "Newest revision realized.", registry=registry)
        self.pods = Gauge("eastwest_pods", "Pods by what became of their program.", ("state",), registry=registry)
        self.bypassable = Gauge(
            "eastwest_pods_bypassable", "Pods with rules that may send raw packets past them.", registry=registry
        )
        self.sets = Gauge("eastwest_sets", "Address sets that this node's programs name.", registry=registry)
        self.set_members = Gauge("eastwest_set_members", "Members of all of them, each once.", registry=registry)
        self.drift_healed = Counter(
            "eastwest_drift_healed",
            "Times something of ours was put back that someone else had changed.",
            ("kind",),
            registry=registry,
        )
        self.healing_seconds = Histogram(
            "eastwest_drift_healing_seconds",
            "From the first sign that someone changed something of ours until it was put back.",
            buckets=(0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 60),
            registry=registry,
        )
        self.fullest = Gauge(
            "eastwest_connection_table_fullest",
            "How full the fullest connection table of a Pod is, from 0 to 1.",
            registry=registry,
        )
        self.patch_seconds = Histogram(
            "eastwest_patch_seconds",
            "Time to bring one Pod up to date.",
            buckets=(0.0001, 0.001, 0.005, 0.02, 0.1, 1),
            registry=registry,
        )
        self.enforced_after_seconds = Histogram(
            "eastwest_sandbox_to_enforced_seconds",
            "From the creation of a sandbox to its first rules, of new Pods that a policy isolates.",
            buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=registry,
        )

    def count_pods(self, states: Mapping[PodState, int], bypassable: int) -> None:
        """Every state has its count, so that one that nobody is in any more goes back to zero."""
        for state in PodState:
            self.pods.labels(state).set(states.get(state, 0))
        self.bypassable.set(bypassable)
