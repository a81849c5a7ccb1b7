"""What a processor counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The processor's metrics, by cluster."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter("eastwest_records_folded", "Records folded.", ["cluster"], registry=registry)
        self.poison = Counter(
            "eastwest_records_unreadable", "Records that cannot be read.", ["cluster"], registry=registry
        )
        self.revision = Gauge("eastwest_revision", "Newest revision folded.", ["cluster"], registry=registry)
        self.marked = Gauge(
            "eastwest_revision_marked", "Newest revision marked as complete.", ["cluster"], registry=registry
        )
        self.lag = Gauge(
            "eastwest_lag_records", "Records between what is folded and the log's end.", ["cluster"], registry=registry
        )
        self.owner = Gauge("eastwest_owner", "1 while this processor publishes.", ["cluster"], registry=registry)
        self.take_overs = Counter(
            "eastwest_take_overs", "Take-overs of the policy stream.", ["cluster"], registry=registry
        )
        self.refused = Counter(
            "eastwest_programs_refused", "Programs too large for a message.", ["cluster"], registry=registry
        )
        self.fold_seconds = Histogram(
            "eastwest_fold_seconds",
            "Time to fold one batch.",
            ["cluster"],
            buckets=(0.0001, 0.001, 0.01, 0.1, 1),
            registry=registry,
        )
