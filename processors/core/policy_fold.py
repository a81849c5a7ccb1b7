"""The policy fold: facts in, changes of programs and address sets out.

    facts ─▶ population, policies, services ─▶ dirty cohorts ─▶ directions ─▶ virtual addresses ─▶ programs
                        └────────────── members of address sets, netted per batch ──────────────┘

Facts only mark what they touch; a batch is worked off once, at its end. The result depends on the facts, not on the
path: any order across keys, any cut, any repetition ends in the same policy.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import cast

import msgspec
from msgspec.structs import replace

from processors.core.privileges import NET_ADMIN, NET_RAW
from processors.core.reading import Fact
from processors.core.segmentation.address_sets import AddressSet, Ledger
from processors.core.segmentation.compiling import Compiler
from processors.core.segmentation.rules import Peers
from processors.core.segmentation.selection.members import Workload
from processors.core.segmentation.selection.pods import view
from processors.core.segmentation.selection.population import Population
from processors.core.segmentation.virtual_addresses import notices
from processors.core.segmentation.virtual_addresses.services import Services
from processors.core.segmentation.virtual_addresses.virtual import Virtuals
from schemas.objects import EndpointSlice, Namespace, NetworkPolicy, Node, Pod, Service
from schemas.policy import Policy, PolicyChange
from schemas.programs import Direction, Mode, Program

PodRef = tuple[str, str]
"""Namespace and name."""


class PartialService(StrEnum):
    """What becomes of a Service of which only some endpoints are allowed; either way a warning names the others."""

    DENY = "deny"
    """It stays shut: a connection to it may end at any endpoint."""
    ALLOW = "allow"
    """It opens, and some of its connections end where no policy allows."""


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator decides about policy."""

    default_mode: Mode = Mode.SELECTIVE
    """Mode of a namespace that no pattern names."""
    namespace_modes: dict[str, Mode] = msgspec.field(default_factory=lambda: {"eastwest": Mode.IDLE})
    """Mode by pattern of the namespace's name (``*``, ``?``, ``[…]``); the first that fits counts. By default
    eastwest's own namespace is idle, so that no policy cuts the parts off from each other: keep it when adding."""
    partial_service: PartialService = PartialService.DENY
    """What becomes of a Service of which only some endpoints are allowed."""
    allow_own_node_egress: bool = True
    """Whether Pods whose egress is isolated may reach their own node's addresses, but for node ports. If not, only
    where a policy allows it."""

    def mode_of(self, namespace: str) -> Mode:
        for pattern, mode in self.namespace_modes.items():
            if fnmatch.fnmatchcase(namespace, pattern):
                return mode
        return self.default_mode


class Step(msgspec.Struct, frozen=True):
    """What a batch of facts changed."""

    change: PolicyChange
    touched: frozenset[PodRef]
    """Pods of which `PolicyFold.selecting` or `exposing`, or whether and how they are segmented, may differ now; those
    gone too."""
    noticed: bool = False
    """Whether `PolicyFold.warnings` may differ now, beside what *touched* and the facts themselves tell."""


class PolicyFold:
    """All policy of one cluster, folded."""

    def __init__(self, settings: PolicySettings) -> None:
        self._ledger = Ledger()
        self._population = Population(self._ledger, settings.mode_of)
        self._services = Services()
        self._virtuals = Virtuals(
            self._ledger,
            self._population,
            self._services,
            partial=settings.partial_service is PartialService.ALLOW,
            own_node=settings.allow_own_node_egress,
        )
        self._compiler = Compiler(self._population, Peers(self._population, self._ledger), self._virtuals)
        self._programs: dict[tuple[str, str], Program] = {}
        self._extras: dict[Workload, tuple[AddressSet, ...]] = {}
        self._pod_problems: dict[str, tuple[str, ...]] = {}
        self._node_addresses: set[bytes] = set()
        self._take: dict[str, Callable[[Fact], None]] = {
            "Namespace": self._take_namespace,
            "Node": self._take_node,
            "NetworkPolicy": self._take_policy,
            "Service": self._take_service,
            "EndpointSlice": self._take_slice,
            "Pod": self._take_pod,
        }

    # --- reading -----------------------------------------------------------------------------------------------------

    def policy(self) -> Policy:
        """The whole desired state."""
        return Policy(
            programs=dict(self._programs),
            sets={identity: frozenset(found.members) for identity, found in self._ledger.published.items()},
        )

    def selecting(self, namespace: str, pod: str) -> tuple[str, ...]:
        """The policies that select a Pod, in either direction, sorted: ``NetworkPolicy/<namespace>/<name>``."""
        workload = self._population.workloads.get((namespace, pod))
        return workload.cohort.selected_by if workload is not None and workload.cohort is not None else ()

    def exposing(self, namespace: str, pod: str) -> tuple[str, ...]:
        """The Services by which traffic comes from outside to an ingress-isolated Pod with a node's address, sorted."""
        workload = self._population.workloads.get((namespace, pod))
        return self._exposing(workload) if workload is not None else ()

    def _exposing(self, workload: Workload) -> tuple[str, ...]:
        isolated = workload.cohort is not None and workload.cohort.ingress is not None
        return self._virtuals.exposing(workload) if isolated else ()

    @property
    def problems(self) -> Mapping[str, tuple[str, ...]]:
        """What could not be read, by object key: what, where, why, and what was done about it."""
        policies = {policy.name: policy.problems for policy in self._compiler.policies.values() if policy.problems}
        return policies | self._pod_problems

    @property
    def warnings(self) -> Mapping[str, tuple[str, ...]]:
        """What works as configured and may surprise, by object key. Looks at every Service: for reports."""
        return notices.of_services(self._virtuals, self._population, self._services)

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered: as before the first fact."""
        return (
            self._population.empty
            and self._services.empty
            and self._virtuals.empty
            and not (
                self._compiler.policies
                or self._programs
                or self._extras
                or self._pod_problems
                or self._ledger.published
            )
        )

    # --- folding -----------------------------------------------------------------------------------------------------

    def fold(self, facts: Sequence[Fact]) -> Step:
        """Advance by *facts*; return what changed, netted over all of them."""
        for fact in facts:
            if (take := self._take.get(fact.kind)) is not None:
                take(fact)
        before = self._compiler.compile()
        self._virtuals.settle(before, self._node_addresses)
        self._node_addresses = set()
        programs, gone, touched = self._program()
        released = self._population.owners.released
        change = PolicyChange(sets=self._ledger.settle(), programs=programs, gone=gone, released=released)
        self._population.sweep()
        return Step(change, touched, self._virtuals.noticed)

    def _take_namespace(self, fact: Fact) -> None:
        found = cast("Namespace | None", fact.object)
        self._population.set_namespace(fact.name, None if found is None else found.metadata.labels or {})

    def _take_node(self, fact: Fact) -> None:
        self._node_addresses |= self._services.put_node(fact.name, cast("Node | None", fact.object))

    def _take_policy(self, fact: Fact) -> None:
        found = cast("NetworkPolicy | None", fact.object)
        if found is None:
            self._compiler.remove(fact.namespace, fact.name)
        else:
            self._compiler.put(fact.namespace, fact.name, bytes(found.spec))

    def _take_service(self, fact: Fact) -> None:
        self._services.put_service((fact.namespace, fact.name), cast("Service | None", fact.object))

    def _take_slice(self, fact: Fact) -> None:
        self._services.put_slice((fact.namespace, fact.name), cast("EndpointSlice | None", fact.object))

    def _take_pod(self, fact: Fact) -> None:
        found = cast("Pod | None", fact.object)
        self._pod_problems.pop(fact.key, None)
        if found is None:
            self._population.remove(fact.namespace, fact.name)
            return
        seen, problems = view(found)
        if problems:
            self._pod_problems[fact.key] = problems
        self._population.put(seen)

    # --- programs ----------------------------------------------------------------------------------------------------

    def _program(self) -> tuple[tuple[Program, ...], tuple[tuple[str, str], ...], frozenset[PodRef]]:
        """Programs of the Pods that this batch concerns: those that differ, those that are gone; and who is touched."""
        wanted: dict[tuple[str, str], Program] = {}
        old_keys: set[tuple[str, str]] = set()
        touched: set[PodRef] = set()
        for workload in self._population.changed:
            ref = (workload.view.namespace, workload.view.name)
            alive = self._population.workloads.get(ref) is workload
            if workload.published is not None:
                old_keys.add(workload.published)
                workload.published = None
            if alive and workload.cohort is not None and workload.view.node:
                program = self._build(workload)
                workload.published = (program.node, program.uid)
                wanted[workload.published] = program
            self._name_extras(workload)
            if self._is_touched(workload, alive):
                touched.add(ref)
        # Of those that changed in nothing else, nothing else is looked at.
        for workload in self._population.readdressed.keys() - self._population.changed.keys():
            if (key := workload.published) is not None:
                wanted[key] = replace(self._programs[key], addresses=_addresses(workload))
            if self._is_touched(workload, True):
                touched.add((workload.view.namespace, workload.view.name))
        gone = tuple(sorted(old_keys - wanted.keys()))
        for key in gone:
            del self._programs[key]
        # Shared directions are the same object in both, so this compares little.
        changed = [program for key, program in wanted.items() if self._programs.get(key) != program]
        self._programs.update({(program.node, program.uid): program for program in changed})
        changed.sort(key=lambda program: (program.node, program.uid))
        return tuple(changed), gone, frozenset(touched)

    def _is_touched(self, workload: Workload, alive: bool) -> bool:
        """Whether something else has to be said of *workload* than before."""
        before = workload.segmentation
        workload.segmentation = (*_segmentation(workload), self._exposing(workload)) if alive else None
        return workload.segmentation != before

    def _build(self, workload: Workload) -> Program:
        """The program of a bound Pod that policy concerns."""
        seen = workload.view
        ingress: Direction | None = None
        egress: Direction | None = None
        cohort = workload.cohort
        enforced = workload.enforced
        if enforced and cohort is not None:
            ingress = cohort.ingress.direction if cohort.ingress else None
            if cohort.egress is not None and cohort.egress.signature is not None:
                egress = cohort.egress.direction
                if extras := cohort.egress.signature.extras_of(workload):
                    egress = _with_extras(egress, extras)
        return Program(
            uid=seen.uid,
            namespace=seen.namespace,
            name=seen.name,
            node=seen.node,
            mode=cohort.place.mode if cohort is not None else Mode.IDLE,
            mirror=seen.mirror,
            advisory=NET_ADMIN in seen.privileges,
            bypassable=NET_RAW in seen.privileges,
            ingress=ingress,
            egress=egress,
            addresses=_addresses(workload),
        )

    def _name_extras(self, workload: Workload) -> None:
        """Name the sets that only this Pod's program names, and no longer those that it named before."""
        old = self._extras.pop(workload, ())
        new: tuple[AddressSet, ...] = ()
        if workload.published is not None and workload.enforced and workload.cohort is not None:
            egress = workload.cohort.egress
            new = egress.signature.extras_of(workload) if egress is not None and egress.signature is not None else ()
        for extra in new:
            extra.name()
        for extra in old:
            extra.release()
        if new:
            self._extras[workload] = new


def _addresses(workload: Workload) -> tuple[bytes, ...]:
    return tuple(sorted(workload.owned))


def _segmentation(workload: Workload) -> tuple[object, ...]:
    cohort = workload.cohort
    if cohort is None:
        return ()
    return cohort.place.mode, bool(workload.view.node), cohort.selected_by


def _with_extras(direction: Direction, extras: tuple[AddressSet, ...]) -> Direction:
    virtual = direction.virtual
    if virtual is None:
        return direction
    allowed = (*virtual.allowed, *(extra.id for extra in extras))
    return replace(direction, virtual=replace(virtual, allowed=allowed))
