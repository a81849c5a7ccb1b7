"""What an enforcer counts. What is so at a moment is measured instead (`measuring`)."""

from prometheus_client import CollectorRegistry, Counter, Histogram


class Metrics:
    """The C-VEN's counters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.patches = Counter("eastwest_patches", "Patches written to Pods.", registry=registry)
        self.failures = Counter("eastwest_patch_failures", "Pods that could not be programmed.", registry=registry)
        self.cuts = Counter("eastwest_connections_cut", "Connections that a tightening ended.", registry=registry)
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
        self.latency_seconds = Histogram(
            "eastwest_event_to_kernel_seconds",
            "From Kubelink's observation of a change to its acknowledgement by this node.",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=registry,
        )
