"""Rows of the policy fold: from what the log says to programs and sets, whole and for one change."""

import gc
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from processors.cluster_processor import FOLD_RECORDS
from processors.core.cluster_fold import ClusterFold
from processors.core.policy_fold import PolicyFold, PolicySettings
from processors.core.reading import Fact
from schemas.objects import KubernetesObject, Labels, Namespace, NetworkPolicy, Pod
from tests.bench import workloads
from tests.bench.measuring import Figure, at_least, each_timed, quantile, settled_memory, timed, uncollected

NAIVE: Final = "pair by pair"
"""Every selector asked of every Pod."""
SAMPLE: Final = 50
"""Policies that the naive way is measured with; it is linear in them."""


def fold(scale: float) -> list[Figure]:
    """10,000 Pods and 1,000 policies (*cluster*), from the log's bytes to programs, sets and reports, in the
    processor's own steps. The limit reads the same bytes and folds nothing. Ratio: times the naive way's speed, which
    does no more than find who is selected by what."""
    objects = list(workloads.cluster(at_least(100 * scale), at_least(10 * scale)))
    records = workloads.records(workloads.entries(objects))
    whole = ClusterFold("bench", PolicySettings())

    def ours() -> None:
        for start in range(0, len(records), FOLD_RECORDS):
            whole.advance(records[start : start + FOLD_RECORDS])
            gc.freeze()

    with settled_memory():
        _, seconds = timed(ours)
    _, reading = timed(partial(workloads.facts, records))
    naive = naive_seconds(objects)
    return [
        Figure(
            row="fold", unit="s", ours=seconds, limit=reading, alternative=naive, alternative_name=NAIVE,
            ratio=naive / seconds, goal="≥ 5 times the alternative", holds=naive >= 5 * seconds,
        )
    ]  # fmt: skip


def fold_small(scale: float) -> list[Figure]:
    """*small*: 25,000 namespaces, 100,000 Pods, 75,000 policies. See `_initial`."""
    return [_initial("fold-small", workloads.small(at_least(25_000 * scale)), 1.2)]


def fold_large(scale: float) -> list[Figure]:
    """*large*: 100 namespaces, 100,000 Pods, 10,100 policies. See `_initial`."""
    return [_initial("fold-large", workloads.large(at_least(100 * scale)), 0.5)]


def fold_per_pod(scale: float) -> list[Figure]:
    """*per pod*: 10,000 Pods in pairs, each with its own policy. See `_initial`."""
    return [_initial("per-pod", workloads.per_pod(at_least(10_000 * scale, 2)), 0.15)]


def _initial(row: str, objects: Iterable[KubernetesObject], goal_seconds: float) -> Figure:
    """Facts that were read before into programs and sets, at once, as other controllers' benchmarks begin: with the
    objects in memory; without the garbage collector, which a processor keeps off what it has built. The limit is the
    reading. Ratio: times the naive way's speed."""
    known = list(objects)
    records = workloads.records(workloads.entries(known))
    facts, reading = timed(partial(workloads.facts, records))
    policy = PolicyFold(PolicySettings())
    with settled_memory(), uncollected():
        _, seconds = timed(partial(policy.fold, facts))
    naive = naive_seconds(known)
    return Figure(
        row=row, unit="s", ours=seconds, limit=reading, alternative=naive, alternative_name=NAIVE,
        ratio=naive / seconds, goal=f"≤ {goal_seconds:g} s", holds=seconds <= goal_seconds,
    )  # fmt: skip


def address_change(scale: float) -> list[Figure]:
    """One Pod's address changes, in *small* with a tenth of its namespaces. The limit: one Python set loses a member
    and gains one. Ratio: times the naive way's speed, which asks every selector again."""
    objects = list(workloads.small(at_least(2_500 * scale, 2)))
    policy = _folded(objects)
    dice = random.Random(workloads.SEED)
    free = sum(isinstance(each, Pod) for each in objects)
    changed = [
        replace(found, status=workloads.running(workloads.address(free + index)))
        for index, found in enumerate(dice.choices(_pods(objects), k=at_least(2_000 * scale, 20)))
    ]
    seconds = _changes(policy, changed)
    members = {workloads.address(number).encode() for number in range(free)}
    moves = [(workloads.address(index).encode(), workloads.address(free + index).encode()) for index in range(100)]

    def move(before: bytes, after: bytes) -> None:
        members.discard(before)
        members.add(after)

    limit = quantile(each_timed([partial(move, *ends) for ends in moves]), 0.5)
    naive = quantile(each_timed(_naive_changes(objects, changed[:10])), 0.5)
    return [
        _change("address-change", seconds, share=0.5, limit=limit, naive=naive, goal=25e-6),
        _change("address-change-p99", seconds, share=0.99, limit=limit, naive=naive, goal=100e-6),
    ]


def label_change(scale: float) -> list[Figure]:
    """A Pod's label changes, between two values that no policy asks for, beside 10,000 selectors that have nothing to
    do with it. The limit: the same beside 10 of them; flat is a ratio near 1. The alternative is the naive way."""
    many = _label_changes(at_least(10_000 * scale))
    few = _label_changes(10)
    limit = quantile(few[0], 0.5)
    ours = quantile(many[0], 0.5)
    naive = quantile(each_timed(many[1]), 0.5)
    return [
        Figure(
            row="label-change", unit="µs", ours=ours * 1e6, limit=limit * 1e6, alternative=naive * 1e6,
            alternative_name=NAIVE, ratio=ours / limit, goal="flat: ≤ 1.2 times the limit, ≤ 10 µs",
            holds=ours <= 1.2 * limit and ours <= 10e-6,
        )
    ]  # fmt: skip


def _label_changes(selectors: int) -> tuple[list[float], list[Callable[[], object]]]:
    """Seconds of each change, and the same changes done the naive way."""
    pods = [workloads.pod("unrelated", f"pod-{number}", number, {"app": "one"}) for number in range(200)]
    objects = [*workloads.unrelated(selectors), *pods]
    changed = [
        replace(found, metadata=replace(found.metadata, labels={"app": f"other-{turn}"}))
        for turn in range(5)
        for found in pods
    ]
    return _changes(_folded(objects), changed), _naive_changes(objects, changed[:10])


def _folded(objects: Iterable[KubernetesObject]) -> PolicyFold:
    policy = PolicyFold(PolicySettings())
    policy.fold(workloads.facts(workloads.records(workloads.entries(objects))))
    return policy


def _changes(policy: PolicyFold, changed: Iterable[Pod]) -> list[float]:
    """Seconds of each change on its own, garbage collection set up as in a processor."""
    facts: Iterator[Fact] = map(workloads.fact, changed)
    with settled_memory():
        return each_timed([partial(policy.fold, (each,)) for each in facts])


def _change(row: str, seconds: Sequence[float], *, share: float, limit: float, naive: float, goal: float) -> Figure:
    ours = quantile(seconds, share)
    return Figure(
        row=row, unit="µs", ours=ours * 1e6, limit=limit * 1e6, alternative=naive * 1e6, alternative_name=NAIVE,
        ratio=naive / ours, goal=f"≤ {goal * 1e6:g} µs", holds=ours <= goal,
    )  # fmt: skip


# --- the naive way ---------------------------------------------------------------------------------------------------


def naive_seconds(objects: Sequence[KubernetesObject]) -> float:
    """Seconds to ask every policy's selectors of every Pod, extrapolated from `SAMPLE` policies."""
    pods, spaces = _pods(objects), _spaces(objects)
    policies = _policies(objects)
    sample = random.Random(workloads.SEED).sample(policies, min(SAMPLE, len(policies)))
    _, seconds = timed(lambda: [_selected(each, pods, spaces) for each in sample])
    return seconds * len(policies) / len(sample)


def _naive_changes(objects: Sequence[KubernetesObject], changed: Iterable[Pod]) -> list[Callable[[], object]]:
    policies, spaces = _policies(objects), _spaces(objects)

    def again(pod: Pod) -> None:
        for each in policies:
            _selected(each, (pod,), spaces)

    return [partial(again, pod) for pod in changed]


Peer = tuple[Labels, Labels | None]
Naive = tuple[str, Labels, list[Peer]]


def _selected(policy: Naive, pods: Iterable[Pod], spaces: dict[str, Labels]) -> tuple[list[Pod], list[Pod]]:
    """The Pods that *policy* isolates, and those that it admits."""
    space, subject, peers = policy
    isolated = [pod for pod in pods if pod.metadata.namespace == space and _fits(subject, pod.metadata.labels)]
    admitted = [
        pod
        for labels, wanted in peers
        for pod in pods
        if (pod.metadata.namespace == space if wanted is None else _fits(wanted, spaces[pod.metadata.namespace]))
        and _fits(labels, pod.metadata.labels)
    ]
    return isolated, admitted


def _fits(wanted: Labels, labels: Labels | None) -> bool:
    return all((labels or {}).get(key) == value for key, value in wanted.items())


def _policies(objects: Iterable[KubernetesObject]) -> list[Naive]:
    found = []
    for item in objects:
        if isinstance(item, NetworkPolicy):
            spec: dict[str, Any] = msgspec.json.decode(item.spec)
            peers = [
                (peer["podSelector"]["matchLabels"], peer.get("namespaceSelector", {}).get("matchLabels"))
                for rule in spec["ingress"]
                for peer in rule["from"]
            ]
            found.append((item.metadata.namespace, spec["podSelector"]["matchLabels"], peers))
    return found


def _pods(objects: Iterable[KubernetesObject]) -> list[Pod]:
    return [item for item in objects if isinstance(item, Pod)]


def _spaces(objects: Iterable[KubernetesObject]) -> dict[str, Labels]:
    return {item.metadata.name: item.metadata.labels or {} for item in objects if isinstance(item, Namespace)}
