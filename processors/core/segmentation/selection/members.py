"""The nodes of the graph that says who is selected by what; `population` keeps their links.

    Pod ─▶ Cohort (same namespace, labels, named ports) ◀─ many to many ─▶ Selection (where, which Pods)

A selector meets a cohort, never a Pod: a thousand replicas are matched once.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from processors.core.segmentation.address_sets import AddressSet, Ledger
from processors.core.segmentation.selection.pods import NamedPort, PodView
from processors.core.segmentation.selection.selector_index import LabelIndex, SelectorIndex
from processors.core.segmentation.selection.selectors import LabelPairs, Selector
from schemas import sets
from schemas.objects import Labels
from schemas.programs import Mode
from schemas.sets import SetKind

if TYPE_CHECKING:  # what the compiler hangs on the nodes
    from processors.core.segmentation.compiling import Compiled, Policy

ScopeKey = str | Selector
"""A namespace by name, or namespaces by label."""


class Workload:
    """One Pod."""

    __slots__ = ("cohort", "owned", "published", "segmentation", "view")

    def __init__(self, view: PodView) -> None:
        self.view = view
        self.cohort: Cohort | None = None
        """``None``: no policy concerns it (on the host's network, finished, or gone)."""
        self.owned: set[bytes] = set()
        """The addresses that count as its own."""
        self.published: tuple[str, str] | None = None
        """(node, uid) of its program, as of the batch before."""
        self.segmentation: tuple[object, ...] | None = None
        """What was last said of it: its mode, the policies that select it, the Services that expose it."""

    @property
    def enforced(self) -> bool:
        """Whether it has a program with rules."""
        return self.cohort is not None and bool(self.view.node) and self.cohort.place.mode is not Mode.IDLE


class Cohort:
    """Pods that no policy can tell apart."""

    __slots__ = ("egress", "enforced", "ingress", "labels", "place", "ports", "selected_by", "selections", "workloads")

    def __init__(self, place: "Place", labels: LabelPairs, ports: tuple[NamedPort, ...]) -> None:
        self.place = place
        self.labels = dict(labels)
        self.ports = ports
        self.workloads: dict[Workload, None] = {}
        self.selections: dict[Selection, None] = {}
        self.selected_by: tuple[str, ...] = ()
        """Names of the policies that select it, sorted, as of the batch before."""
        self.enforced = 0
        """How many of the workloads have a program with rules."""
        self.ingress: Compiled | None = None
        self.egress: Compiled | None = None
        """The directions in use; ``None``: not isolated, or not enforced."""

    @property
    def key(self) -> tuple[LabelPairs, tuple[NamedPort, ...]]:
        return tuple(self.labels.items()), self.ports

    def policies(self) -> "set[Policy]":
        """The policies that select it."""
        return {policy for selection in self.selections for policy in selection.policies}

    def numbers(self, protocol: int, name: str) -> Iterator[int]:
        """The ports that the Pods call *name*."""
        return (number for its, called, number in self.ports if its == protocol and called == name)


class Place:
    """A namespace: what is known of it and who is in it."""

    __slots__ = ("cohorts", "index", "labels", "mode", "name", "own", "scopes")

    def __init__(self, name: str, mode: Mode) -> None:
        self.name = name
        self.mode = mode
        self.labels: Labels | None = None
        """``None``: no such namespace is known, so no namespace selector matches it; its own policies apply."""
        self.cohorts: dict[tuple[LabelPairs, tuple[NamedPort, ...]], Cohort] = {}
        self.index: LabelIndex[Cohort] = LabelIndex()
        self.own: Scope | None = None
        self.scopes: dict[Scope, None] = {}
        """Namespace selectors that match it."""

    @property
    def empty(self) -> bool:
        return self.labels is None and not self.cohorts and self.own is None

    def all_scopes(self) -> Iterator["Scope"]:
        if self.own is not None:
            yield self.own
        yield from self.scopes


class Scope:
    """Where a selection looks: one namespace, or those that a selector matches."""

    __slots__ = ("index", "key", "places", "selections")

    def __init__(self, key: ScopeKey) -> None:
        self.key = key
        self.places: dict[Place, None] = {}
        self.selections: dict[Selector, Selection] = {}
        self.index: SelectorIndex[Selection] = SelectorIndex()


class Selection:
    """Pods by label, in one scope; subjects of policies, peers of rules, or both."""

    __slots__ = ("cohorts", "live", "policies", "scope", "selector", "sets", "uses")

    def __init__(self, scope: Scope, selector: Selector) -> None:
        self.scope = scope
        self.selector = selector
        self.cohorts: dict[Cohort, None] = {}
        self.policies: dict[Policy, None] = {}
        """The policies whose subjects these are."""
        self.sets: dict[tuple[int, str] | None, SelectionSet] = {}
        self.live: list[SelectionSet] = []
        """Those of its sets that are kept current."""
        self.uses = 0

    @property
    def definition(self) -> str:
        key = self.scope.key
        where = f"={key}" if isinstance(key, str) else f"~{key.text}"
        return f"pods|{where}|{self.selector.text}"


class SelectionSet(AddressSet):
    """The addresses of a selection's Pods; or, for a named port, their (address, protocol, port), and echo requests."""

    __slots__ = ("_port", "_selection")

    def __init__(self, ledger: Ledger, selection: Selection, port: tuple[int, str] | None) -> None:
        if port is None:
            super().__init__(ledger, SetKind.ADDRESSES, selection.definition)
        else:
            super().__init__(ledger, SetKind.TUPLES, f"{selection.definition}|{port[0]}|{port[1]}")
        self._selection = selection
        self._port = port

    def fill(self) -> Iterable[bytes]:
        if self not in self._selection.live:
            self._selection.live.append(self)
        for cohort in self._selection.cohorts:
            for workload in cohort.workloads:
                for address in workload.owned:
                    yield from self.of(cohort, address)

    def rest(self) -> None:
        if self in self._selection.live:
            self._selection.live.remove(self)

    def of(self, cohort: Cohort, address: bytes) -> Iterable[bytes]:
        """The members that *address* of a Pod of *cohort* makes."""
        if self._port is None:
            return (address,)
        protocol, name = self._port
        found = [sets.endpoint(address, protocol, number) for number in cohort.numbers(protocol, name)]
        return [*found, sets.echo(address)] if found else ()
