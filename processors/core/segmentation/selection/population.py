"""Who is selected by what, kept current: the work for one change is that of the links it really changes.

A Pod that only changes its address touches the sets of its cohort's selections and nothing else; a label change
meets the selectors that require one of its labels, however many others there are. Removals of what nobody uses wait
for the end of a batch (`Population.sweep`), so that what goes and comes back within one is not built twice.
"""

from collections.abc import Callable

from processors.core.segmentation.address_sets import Ledger
from processors.core.segmentation.selection.members import (
    Cohort,
    Place,
    Scope,
    ScopeKey,
    Selection,
    SelectionSet,
    Workload,
)
from processors.core.segmentation.selection.ownership import Owners
from processors.core.segmentation.selection.pods import PodView
from processors.core.segmentation.selection.selector_index import LabelIndex, SelectorIndex
from processors.core.segmentation.selection.selectors import Selector
from schemas.objects import Labels
from schemas.programs import Mode


class Population:
    """All namespaces, Pods and selections."""

    def __init__(self, ledger: Ledger, mode_of: Callable[[str], Mode]) -> None:
        self.workloads: dict[tuple[str, str], Workload] = {}
        """By namespace and name."""
        self.owners = Owners()
        self.dirty: dict[Cohort, None] = {}
        """Cohorts whose policies, or whose need for them, may have changed in this batch."""
        self.changed: dict[Workload, None] = {}
        """Pods whose program may have changed in this batch, those that are gone included."""
        self.readdressed: dict[Workload, None] = {}
        """Pods that may own other addresses since this batch."""
        self.moved: dict[tuple[bytes, Cohort], None] = {}
        """Addresses that joined, left or changed node in a cohort in this batch."""
        self._ledger = ledger
        self._mode_of = mode_of
        self._places: dict[str, Place] = {}
        self._known: LabelIndex[Place] = LabelIndex()
        self._scopes: dict[ScopeKey, Scope] = {}
        self._by_labels: SelectorIndex[Scope] = SelectorIndex()
        self._unused: dict[Selection, None] = {}
        self._left: dict[Cohort, None] = {}
        self._quiet: dict[Place, None] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered at all."""
        return not (self.workloads or self._places or self._scopes or len(self.owners))

    # --- namespaces --------------------------------------------------------------------------------------------------

    def set_namespace(self, name: str, labels: Labels | None) -> None:
        """The namespace *name* has *labels*; ``None``: it is gone."""
        place = self._place(name)
        if place.labels == labels:
            return
        self._known.discard(place)
        place.labels = labels
        matching: dict[Scope, None] = {}
        if labels is not None:
            self._known.add(place, labels)
            matching = dict.fromkeys(self._by_labels.matching(labels))
        for scope in [scope for scope in place.scopes if scope not in matching]:
            del place.scopes[scope], scope.places[place]
            for cohort in place.cohorts.values():
                for selection in [selection for selection in cohort.selections if selection.scope is scope]:
                    self._unlink(selection, cohort)
        for scope in matching:
            if scope not in place.scopes:
                place.scopes[scope] = scope.places[place] = None
                for cohort in place.cohorts.values():
                    for selection in scope.index.matching(cohort.labels):
                        self._link(selection, cohort)

    def _place(self, name: str) -> Place:
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = Place(name, self._mode_of(name))
        self._quiet[place] = None
        return place

    # --- selections --------------------------------------------------------------------------------------------------

    def acquire(self, key: ScopeKey, selector: Selector) -> Selection:
        """The selection of *selector* in the scope *key*, used once more."""
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = Scope(key)
            if isinstance(key, str):
                place = self._place(key)
                place.own = scope
                scope.places[place] = None
            else:
                self._by_labels.add(scope, key)
                for place in self._known.matching(key):
                    place.scopes[scope] = scope.places[place] = None
        selection = scope.selections.get(selector)
        if selection is None:
            selection = scope.selections[selector] = Selection(scope, selector)
            scope.index.add(selection, selector)
            for place in scope.places:
                for cohort in place.index.matching(selector):
                    self._link(selection, cohort)
        selection.uses += 1
        return selection

    def release(self, selection: Selection) -> None:
        """*selection* is used once less."""
        selection.uses -= 1
        if not selection.uses:
            self._unused[selection] = None

    def set_of(self, selection: Selection, port: tuple[int, str] | None = None) -> SelectionSet:
        """The address set of *selection*, or of its Pods' port (protocol, name)."""
        found = selection.sets.get(port)
        if found is None:
            found = selection.sets[port] = SelectionSet(self._ledger, selection, port)
        return found

    def _link(self, selection: Selection, cohort: Cohort) -> None:
        selection.cohorts[cohort] = cohort.selections[selection] = None
        if selection.policies:
            self.dirty[cohort] = None
        if selection.live:
            for workload in cohort.workloads:
                for address in workload.owned:
                    _add(selection, cohort, address)

    def _unlink(self, selection: Selection, cohort: Cohort) -> None:
        del selection.cohorts[cohort], cohort.selections[selection]
        if selection.policies:
            self.dirty[cohort] = None
        if selection.live:
            for workload in cohort.workloads:
                for address in workload.owned:
                    _discard(selection, cohort, address)

    # --- Pods --------------------------------------------------------------------------------------------------------

    def put(self, view: PodView) -> None:
        """A Pod is now as *view* says."""
        key = (view.namespace, view.name)
        workload = self.workloads.get(key)
        if workload is None:
            workload = self.workloads[key] = Workload(view)
            self._move(workload, None, view)
        elif workload.view != view:
            self._move(workload, workload.view, view)

    def remove(self, namespace: str, name: str) -> None:
        """A Pod is gone."""
        workload = self.workloads.pop((namespace, name), None)
        if workload is not None:
            self._move(workload, workload.view, None)

    def _move(self, workload: Workload, old: PodView | None, new: PodView | None) -> None:
        before = old.claims if old else frozenset()
        after = new.claims if new else frozenset()
        stays = old is not None and new is not None and _kind(old) == _kind(new)
        if stays and old and new and old.node == new.node:
            affected = before ^ after
            if old.rank != new.rank:
                affected |= self.owners.contested(before & after)
        else:
            affected = before | after
        if not (stays and old and new and (old.node, old.uid, old.mirror) == (new.node, new.uid, new.mirror)):
            self.changed[workload] = None
        for address in affected:
            self._take_from(self.owners.unsettle(address), address)
        self.owners.withdraw(workload, before - after)
        self._seat(workload, new, stays)
        self.owners.claim(workload, after - before)
        for address in affected:
            self._give_to(self.owners.settle(address), address)

    def _seat(self, workload: Workload, view: PodView | None, stays: bool) -> None:
        """Put *workload* into the cohort that *view* belongs to."""
        old = workload.cohort
        if old is not None and workload.enforced:
            old.enforced -= 1
            if not old.enforced:
                self.dirty[old] = None
        if view is not None:
            workload.view = view
        if not stays:
            if old is not None:
                del old.workloads[workload]
                self._left[old] = None
            workload.cohort = self._cohort(view) if view is not None and view.subject else None
            if workload.cohort is not None:
                workload.cohort.workloads[workload] = None
        new = workload.cohort
        if new is not None and workload.enforced:
            new.enforced += 1
            if new.enforced == 1:
                self.dirty[new] = None

    def _cohort(self, view: PodView) -> Cohort:
        place = self._place(view.namespace)
        cohort = place.cohorts.get((view.labels, view.ports))
        if cohort is None:
            cohort = place.cohorts[view.labels, view.ports] = Cohort(place, view.labels, view.ports)
            place.index.add(cohort, cohort.labels)
            for scope in place.all_scopes():
                for selection in scope.index.matching(cohort.labels):
                    self._link(selection, cohort)
        return cohort

    def _take_from(self, owner: Workload | None, address: bytes) -> None:
        if owner is None or owner.cohort is None:
            return
        owner.owned.discard(address)
        self.readdressed[owner] = None
        self.moved[address, owner.cohort] = None
        for selection in owner.cohort.selections:
            if selection.live:
                _discard(selection, owner.cohort, address)

    def _give_to(self, owner: Workload | None, address: bytes) -> None:
        if owner is None or owner.cohort is None:
            return
        owner.owned.add(address)
        self.readdressed[owner] = None
        self.moved[address, owner.cohort] = None
        for selection in owner.cohort.selections:
            if selection.live:
                _add(selection, owner.cohort, address)

    # --- the end of a batch ------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Forget what nobody uses any more, and what this batch changed."""
        for cohort in self._left:
            if not cohort.workloads and cohort.place.cohorts.get(cohort.key) is cohort:
                for selection in list(cohort.selections):
                    self._unlink(selection, cohort)
                cohort.place.index.discard(cohort)
                del cohort.place.cohorts[cohort.key]
                self._quiet[cohort.place] = None
        for selection in self._unused:
            if not selection.uses:
                self._drop(selection)
        for place in self._quiet:
            if place.empty:
                self._places.pop(place.name, None)
        for batch in (self._left, self._unused, self._quiet, self.dirty, self.changed, self.readdressed, self.moved):
            batch.clear()
        self.owners.forget_former()

    def _drop(self, selection: Selection) -> None:
        scope = selection.scope
        for cohort in list(selection.cohorts):
            self._unlink(selection, cohort)
        scope.index.discard(selection)
        del scope.selections[selection.selector]
        if scope.selections:
            return
        del self._scopes[scope.key]
        if not isinstance(scope.key, str):
            self._by_labels.discard(scope)
        for place in scope.places:
            place.scopes.pop(scope, None)
            if place.own is scope:
                place.own = None
            self._quiet[place] = None


def _kind(view: PodView) -> tuple[object, ...]:
    """Equal for Pods that no policy can tell apart."""
    return view.namespace, view.subject, view.labels, view.ports


def _add(selection: Selection, cohort: Cohort, address: bytes) -> None:
    for live in selection.live:
        for member in live.of(cohort, address):
            live.add(member)


def _discard(selection: Selection, cohort: Cohort, address: bytes) -> None:
    for live in selection.live:
        for member in live.of(cohort, address):
            live.discard(member)
