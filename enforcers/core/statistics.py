"""Latency quantiles over the samples since the last look."""

from schemas.status import Latency


def latency(samples_ms: list[float]) -> Latency:
    """Quantiles of *samples_ms*, in milliseconds, each a sample that occurred (nearest rank)."""
    if not samples_ms:
        return Latency()
    ordered = sorted(samples_ms)

    def quantile(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Latency(samples=len(ordered), p50_ms=quantile(0.5), p99_ms=quantile(0.99), max_ms=ordered[-1])
