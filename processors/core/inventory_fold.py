"""The inventory fold: facts in, changed reports out.

    facts ──▶ fold ──▶ marks: Pods, nodes, Services, namespaces ──▶ take_changes ──▶ {bucket key: report or None}
                         ▲
       policy fold ──▶ touch(Pods whose policies changed)

Receiving only marks: a Pod that changes a hundred times between two takings is described once. What a taking returns
is compared by digest with what was taken before, so what changes nothing that is reported says nothing.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from processors.core.inventory import nodes, pods, services
from processors.core.inventory.known import SUMMARY, Known, Mark, ObjectName
from processors.core.reading import Fact, Poison
from schemas.programs import Mode
from schemas.reports import (
    LISTED,
    AnyReport,
    ContainerWorkload,
    Profile,
    Report,
    Segmentation,
    Summary,
    Trouble,
    VirtualService,
    Workload,
    encode_report,
    report_key,
)

DIGEST_BYTES: Final = 12

ORDER: Final[tuple[type[Report], ...]] = (ContainerWorkload, Workload, VirtualService, Profile, Summary)
"""In which reports are described: Pods first, since nodes, namespaces and the summary count them."""


class Segmenting(Protocol):
    """What the inventory asks of the policy fold."""

    def selecting(self, namespace: str, pod: str) -> Sequence[str]:
        """The policies that select this Pod: ``NetworkPolicy/<namespace>/<name>``, sorted."""
        ...

    def exposing(self, namespace: str, pod: str) -> Sequence[str]:
        """The Services by which outside traffic reaches this isolated Pod from a node's address: sorted."""
        ...

    @property
    def problems(self) -> Mapping[str, tuple[str, ...]]:
        """What could not be read, by object key."""
        ...

    @property
    def warnings(self) -> Mapping[str, tuple[str, ...]]:
        """What works otherwise than one might think, by object key."""
        ...


class _Note(msgspec.Struct, frozen=True, gc=False):
    """What other reports count of a Pod, as it was when its own report was last made."""

    segmentation: Segmentation
    node: str
    """Empty for one that is not bound, or has finished."""


class InventoryFold:
    """The inventory of one cluster: its objects, and a digest of every report that was taken."""

    def __init__(self, cluster: str, segmenting: Segmenting, mode_of: Callable[[str], Mode]) -> None:
        """*mode_of* says how the Pods of a namespace are managed."""
        self.cluster = cluster
        self._segmenting = segmenting
        self._mode_of = mode_of
        self._known = Known()
        self._unreadable: dict[str, Poison] = {}  # by log key
        self._waiting_for: tuple[str, ...] | None = None
        self.warnings: frozenset[Trouble] = frozenset()
        """All of them, as of the last summary."""

        self._notes: dict[ObjectName, _Note] = {}
        self._by_namespace: defaultdict[str, Counter[Segmentation]] = defaultdict(Counter)
        self._by_node: Counter[str] = Counter()

        self._dirty: dict[type[Report], set[ObjectName]] = {type_: set() for type_ in ORDER}
        self._surplus: set[str] = set()  # published keys of which nothing was said since
        self._taken: dict[str, bytes] = {}  # bucket key → digest
        self._mark(SUMMARY)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def fold(self, facts: Iterable[Fact]) -> None:
        """Take in *facts* and mark what they may change."""
        for fact in facts:
            if (bad := self._unreadable.get(fact.key)) is not None and bad.offset < fact.offset:
                del self._unreadable[fact.key]
                self._mark(SUMMARY)
            for mark in self._known.fold(fact):
                self._mark(mark)

    def fold_poison(self, poison: Iterable[Poison]) -> None:
        """Remember what could not be read, until its key can be. Of one batch, come before its facts."""
        for record in poison:
            self._unreadable[record.key] = record
            self._mark(SUMMARY)

    def touch(self, touched: Iterable[ObjectName]) -> None:
        """The policies that select these Pods changed."""
        for name in touched:
            self._mark((ContainerWorkload, name))
            self._mark(SUMMARY)  # errors and warnings of policies may have changed with them

    def notice(self) -> None:
        """What works otherwise than one might think has changed."""
        self._mark(SUMMARY)

    def wait_for(self, kinds: Iterable[str] | None) -> None:
        """These kinds are still to be listed in this epoch; ``None`` before the first epoch."""
        waiting = None if kinds is None else tuple(sorted(kinds))
        if waiting != self._waiting_for:
            self._waiting_for = waiting
            self._mark(SUMMARY)

    def _mark(self, mark: Mark) -> None:
        type_, name = mark
        self._dirty[type_].add(name)

    # --- taking ------------------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether anything may have changed since the last taking."""
        return bool(self._surplus) or any(self._dirty.values())

    def begin_again(self, published: Iterable[str]) -> None:
        """Somebody else's reports are there under the keys *published*: the next takings are everything.

        They also name, as gone, every such key that has no report here.
        """
        self._taken = dict.fromkeys(published, b"")
        self._surplus = set(self._taken)
        for mark in self._known.everything():
            self._mark(mark)

    def take_changes(self, limit: int | None = None) -> dict[str, AnyReport | None]:
        """The reports that changed since they were last taken, by bucket key; ``None`` for one that is gone.

        At most *limit* objects are described, so that a caller may breathe between; ask again while `dirty`.
        """
        changes: dict[str, AnyReport | None] = {}
        for key, report in self._describe(limit):
            self._surplus.discard(key)
            if report is None:
                if self._taken.pop(key, None) is not None:
                    changes[key] = None
            elif (digest := _digest(encode_report(report))) != self._taken.get(key):
                self._taken[key] = digest
                changes[key] = report
        return dict(sorted(changes.items()))

    def _describe(self, limit: int | None) -> Iterator[tuple[str, AnyReport | None]]:
        described = 0
        for type_ in ORDER:
            dirty = self._dirty[type_]
            while dirty:
                if described == limit:
                    return
                described += 1
                name = dirty.pop()
                yield report_key(type_, *name), self._report(type_, name)
        yield from ((key, None) for key in sorted(self._surplus))

    def _report(self, type_: type[Report], name: ObjectName) -> AnyReport | None:
        if type_ is ContainerWorkload:
            return self._container_workload(name)
        if type_ is Workload:
            node = self._known.nodes.get(name[1])
            return nodes.report(node, self._by_node[name[1]]) if node is not None else None
        if type_ is VirtualService:
            service = self._known.services.get(name)
            return services.report(service, self._known.behind(name)) if service is not None else None
        if type_ is Profile:
            return self._profile(name[1])
        return self._summary()

    def _container_workload(self, name: ObjectName) -> ContainerWorkload | None:
        pod = self._known.pods.get(name)
        report, note = None, None
        if pod is not None:
            report = pods.report(
                pod, self._mode_of(name[0]), self._segmenting.selecting(*name), self._segmenting.exposing(*name)
            )
            note = _Note(report.segmentation, "" if pods.finished(pod) else report.node)
        if note != (before := self._notes.get(name)):
            self._recount(name, before, note)
        return report

    def _recount(self, name: ObjectName, before: _Note | None, after: _Note | None) -> None:
        """Let namespace, node and summary know that what they count of this Pod changed."""
        for counted, step in ((before, -1), (after, 1)):
            if counted is None:
                continue
            self._by_namespace[name[0]][counted.segmentation] += step
            if counted.node:
                self._by_node[counted.node] += step
                self._mark((Workload, ("", counted.node)))
        if after is None:
            del self._notes[name]
        else:
            self._notes[name] = after
        self._mark((Profile, ("", name[0])))
        self._mark(SUMMARY)

    def _profile(self, name: str) -> Profile | None:
        namespace = self._known.namespaces.get(name)
        if namespace is None:
            return None
        policies = self._known.policies.get(name, ())
        return Profile(
            namespace=name,
            phase=namespace.status.phase,
            labels=namespace.metadata.labels or {},
            mode=self._mode_of(name),
            pods=self._by_namespace[name].total(),
            services=self._known.services_in[name],
            segmentation=_counts((self._by_namespace[name],)),
            policies=tuple(sorted(policies)[:LISTED]),
            policies_total=len(policies),
            created=namespace.metadata.creation_timestamp or "",
        )

    def _summary(self) -> Summary:
        info, together = self._known.info, self._known.nodes_together
        unreadable = (Trouble(key, f"cannot be read or used: {bad.reason}") for key, bad in self._unreadable.items())
        errors = sorted((*_troubles(self._segmenting.problems), *unreadable))
        self.warnings = frozenset(_troubles(self._segmenting.warnings))
        warnings = sorted(self.warnings)
        return Summary(
            cluster=self.cluster,
            version=info.version,
            platform=info.platform,
            runtimes=together.runtimes,
            pod_ranges=together.pod_ranges,
            service_ranges=info.service_ranges,
            counts=self._known.counts,
            nodes_ready=together.ready,
            segmentation=_counts(self._by_namespace.values()),
            errors=tuple(errors[:LISTED]),
            errors_total=len(errors),
            warnings=tuple(warnings[:LISTED]),
            warnings_total=len(warnings),
            synced=self._waiting_for == (),
            waiting_for=self._waiting_for or (),
        )


def _troubles(by_object: Mapping[str, tuple[str, ...]]) -> Iterator[Trouble]:
    return (Trouble(key, message) for key, messages in by_object.items() for message in messages)


def _counts(counters: Iterable[Counter[Segmentation]]) -> dict[str, int]:
    total: Counter[Segmentation] = Counter()
    for counter in counters:
        total.update(counter)
    return {str(state): total[state] for state in Segmentation if total[state]}


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()
