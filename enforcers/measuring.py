"""What is so on a node at this moment, as metrics: computed when they are asked for, so that nothing goes stale."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from enforcers.cven import Cven
from schemas.status import PodState

POD: Final = ("namespace", "pod")


class Measures(Collector):
    """The gauges of *cven*. A Pod's own last as long as the Pod does."""

    def __init__(self, cven: Cven) -> None:
        self._cven = cven

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For whoever asks; on the C-VEN's own loop."""
        yield GaugeMetricFamily(
            "eastwest_revision_realized", "Newest revision realized; -1: none yet.", self._cven.revision
        )
        yield from self._of_pods()
        yield from self._of_sets()
        yield from self._of_connections()

    def _of_pods(self) -> Iterator[GaugeMetricFamily]:
        states = self._cven.states()
        counted = GaugeMetricFamily("eastwest_pods", "Pods by what became of their program.", labels=("state",))
        for state in PodState:  # also those that nobody is in
            counted.add_metric((state,), states[state])
        yield counted
        yield GaugeMetricFamily(
            "eastwest_pods_bypassable",
            "Pods with rules that may send raw packets past them.",
            self._cven.standing.bypassable(),
        )

    def _of_sets(self) -> Iterator[GaugeMetricFamily]:
        sets = self._cven.node.policy.sets
        yield GaugeMetricFamily("eastwest_sets", "Address sets that this node's programs name.", len(sets))
        yield GaugeMetricFamily(
            "eastwest_set_members",
            "Members of all of them, each once.",
            sum(len(each.members) for each in sets.values()),
        )

    def _of_connections(self) -> Iterator[GaugeMetricFamily]:
        tracked = GaugeMetricFamily(
            "eastwest_pod_connections", "Connections tracked in the network namespace of a Pod with rules.", labels=POD
        )
        limits = GaugeMetricFamily(
            "eastwest_pod_connections_limit", "How many may be; beyond, the kernel drops new ones.", labels=POD
        )
        fullest = 0.0
        for pod in self._cven.node.pods.values():
            seen = pod.connections.inspected
            if seen.limit:
                where = (pod.sandbox.namespace, pod.sandbox.name)
                tracked.add_metric(where, seen.connections)
                limits.add_metric(where, seen.limit)
                fullest = max(fullest, seen.share)
        yield tracked
        yield limits
        yield GaugeMetricFamily(
            "eastwest_connection_table_fullest", "How full the fullest of these tables is, from 0 to 1.", fullest
        )
