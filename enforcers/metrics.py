"""What an enforcer counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The C-VEN's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.patches = Counter("eastwest_patches", "Patches written to Pods.", registry=registry)
        self.failures = Counter("eastwest_patch_failures", "Pods that could not be programmed.", registry=registry)
        self.cuts = Counter("eastwest_connections_cut", "Connections that a tightening ended.", registry=registry)
        self.realized = Gauge("eastwest_revision_realized", "Newest revision realized.", registry=registry)
        self.patch_seconds = Histogram(
            "eastwest_patch_seconds",
            "Time to bring one Pod up to date.",
            buckets=(0.0001, 0.001, 0.005, 0.02, 0.1, 1),
            registry=registry,
        )
