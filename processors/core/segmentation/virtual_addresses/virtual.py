"""Virtual addresses: which of them an isolated Pod may reach.

A packet to a Service still carries the virtual address where the Pod's rules see it. So a virtual (address, protocol,
port) is open iff *every* endpoint behind it passes the Pod's whole egress. That depends on the policies that isolate
and hardly on the Pod: one set per *signature*, the names of the isolating policies. What is the Pod's own (its
addresses count as allowed, and so do its node's) makes an extra set, only where it makes a difference.
"""

from collections.abc import Collection, Iterable, Iterator

from processors.core.segmentation.address_sets import AddressSet, Ledger
from processors.core.segmentation.selection.members import Cohort, Workload
from processors.core.segmentation.selection.population import Population
from processors.core.segmentation.virtual_addresses.fronts import Fronts, shift
from processors.core.segmentation.virtual_addresses.reach import Reach
from processors.core.segmentation.virtual_addresses.services import NOTHING, Door, ServiceKey, Services
from processors.core.segmentation.virtual_addresses.signatures import HeldSet, Holder, Outcome, Signature
from schemas.programs import Direction
from schemas.sets import SetKind


class Virtuals:
    """All virtual addresses, and what is open to whom."""

    def __init__(
        self, ledger: Ledger, population: Population, services: Services, *, partial: bool, own_node: bool
    ) -> None:
        """*partial*: a Service opens although some of its endpoints are shut."""
        self.fronts = Fronts(ledger, services)
        self.signatures: dict[tuple[str, ...], Signature] = {}
        self.own_node = own_node
        """Whether every Pod may reach its own node."""
        self.lacking: dict[ServiceKey, dict[Signature, None]] = {}
        """Services of which some Pods may reach only some endpoints, and these Pods' signatures."""
        self.noticed = False
        """Whether this batch changed a view, or what is lacking where."""
        self._ledger = ledger
        self._population = population
        self._services = services
        self._partial = partial
        self._behind: dict[bytes, dict[ServiceKey, None]] = {}
        self._judged: dict[ServiceKey, dict[Signature, None]] = {}
        self._rivals: dict[ServiceKey, None] = {}
        self._reach = Reach()
        self._dirty: dict[Signature, None] = {}
        self._left: dict[Signature, None] = {}
        self._pairs: dict[tuple[Signature, ServiceKey], None] = {}
        self._touched: dict[tuple[Signature, Holder], None] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered."""
        return (
            self._reach.empty
            and self.fronts.empty
            and not (self.signatures or self.lacking or self._behind or self._judged)
        )

    # --- signatures --------------------------------------------------------------------------------------------------

    def enter(self, direction: Direction, named: frozenset[AddressSet]) -> Signature:
        """The signature of the policies that isolate in *direction*, used once more."""
        signature = self.signatures.get(direction.isolating)
        if signature is None:
            signature = Signature(self._ledger, direction.isolating, self.fronts.addresses.id, self.fronts.ports.id)
            self.signatures[direction.isolating] = signature
        if signature.say(direction, named):
            self._dirty[signature] = None
        signature.users += 1
        return signature

    def leave(self, signature: Signature) -> None:
        """*signature* is used once less; it goes when the batch ends."""
        signature.users -= 1
        if not signature.users:
            self._left[signature] = None

    def exposing(self, workload: Workload) -> tuple[str, ...]:
        """The Services whose outside traffic comes to *workload* from a node's address, sorted: ``namespace/name``."""
        behind = {key for address in workload.owned for key in self._behind.get(address, ())}
        return tuple(sorted("/".join(key) for key in behind if self.fronts.views[key].through_node))

    # --- one batch ---------------------------------------------------------------------------------------------------

    def settle(self, before: dict[Cohort, Signature | None], nodes: Iterable[bytes]) -> None:
        """Bring what is open up to date.

        *before* says which cohorts changed their signature, and from which; *nodes* are addresses that came to a node
        or went. The sets of the rules must be current.
        """
        self.noticed = False
        for signature in self._left:
            if not signature.users:
                self._forget(signature)
        changed = [key for key in self._services.dirty if self._refresh(key)]
        changed += [key for address in nodes for key in self._behind.get(address, ())]
        changed += self._rivals
        for signature in self._dirty:
            if signature.users:
                self._reach.file(signature, self.fronts.views.items())
        for key in changed:
            self._pairs.update({(signature, key): None for signature in self._concerned(key)})
        for signature in self._dirty:
            if signature.users:
                self._pairs.update({(signature, key): None for key in self._in_reach(signature)})
        self._follow_members()
        self._follow_owners(before)
        for signature, key in self._pairs:
            if signature.users:
                self._evaluate(signature, key)
        for signature, holder in self._touched:
            self._reprogram(signature, holder)
        for batch in (self._services.dirty, self._left, self._dirty, self._pairs, self._touched, self._rivals):
            batch.clear()

    def _forget(self, signature: Signature) -> None:
        signature.unwatch()
        self._reach.discard(signature)
        for key in signature.outcomes:
            _drop(self._judged, key, signature)
            if signature.lacks(key):
                _drop(self.lacking, key, signature)
                self.noticed = True
        del self.signatures[signature.isolating]

    def _concerned(self, key: ServiceKey) -> Iterator[Signature]:
        """The signatures that a Service was judged for, or to which it may be open now."""
        yield from self._judged.get(key, ())
        yield from self._reach.signatures(key)
        for address in {target.address for target in self.fronts.views.get(key, NOTHING).targets}:
            if address in self._services.nodes_at:
                yield from self.signatures.values()
            owner = self._population.owners.get(address)
            if owner is None or owner.cohort is None:
                continue
            if owner.cohort.egress is not None and owner.cohort.egress.signature is not None:
                yield owner.cohort.egress.signature
            for selection in owner.cohort.selections:
                for live in selection.live:
                    yield from live.watchers

    def _in_reach(self, signature: Signature) -> Iterator[ServiceKey]:
        """The Services that were judged for *signature*, or may be open to it or to one of its Pods now."""
        yield from signature.outcomes
        yield from self._reach.services(signature)
        behind = self._behind
        sources: list[Collection[bytes]] = [self._services.nodes_at.keys()]
        sources += [item.members for item in signature.sets.values() if item.id[0] == SetKind.ADDRESSES]
        sources += [workload.owned for cohort in signature.cohorts for workload in cohort.workloads]
        sources += [
            {member[:-3] for member in item.members} for item in signature.sets.values() if item.id[0] == SetKind.TUPLES
        ]
        for found in sources:
            few, many = (behind, found) if len(behind) < len(found) else (found, behind)
            for address in few:
                if address in many:
                    yield from behind[address]

    def _follow_members(self) -> None:
        """Who joined or left a set matters to the Services it stands behind, for the signatures that name the set."""
        for touched in self._ledger.touched:
            if not touched.watchers:
                continue
            width = -3 if touched.id[0] == SetKind.TUPLES else None
            for member in touched.moved():
                for key in self._behind.get(member[:width], ()):
                    self._pairs.update({(signature, key): None for signature in touched.watchers})

    def _follow_owners(self, before: dict[Cohort, Signature | None]) -> None:
        """Whose an address is matters to its owner's signature: to the Pod itself it counts as allowed."""
        moved = dict(self._population.moved)
        for cohort in before:
            moved.update({(address, cohort): None for workload in cohort.workloads for address in workload.owned})
        for address, cohort in moved:
            for key in self._behind.get(address, ()):
                for signature in (before.get(cohort), cohort.egress.signature if cohort.egress else None):
                    if signature is not None:
                        self._pairs[signature, key] = None

    def _refresh(self, key: ServiceKey) -> bool:
        """Read a Service anew; return whether it changed."""
        old, new = self.fronts.views.get(key, NOTHING), self._services.view(key)
        if old == new:
            return False
        self.noticed = True
        self._rivals.update(dict.fromkeys(self.fronts.replace(key, new)))
        self._reach.refresh(key, new)
        before, after = ({target.address for target in view.targets} for view in (old, new))
        shift(self._behind, key, before, after)
        exposed = [found if view.through_node else set() for view, found in ((old, before), (new, after))]
        for address in exposed[0] ^ exposed[1]:
            if (owner := self._population.owners.get(address)) is not None:
                self._population.changed[owner] = None
        return True

    def _evaluate(self, signature: Signature, key: ServiceKey) -> None:
        """Judge one Service for one signature, and put its front doors where they belong."""
        view = self.fronts.views.get(key, NOTHING)
        tuples = {item for door in view.doors for item in door.tuples}
        lacked = signature.lacks(key)
        if (known := signature.outcomes.pop(key, None)) is not None:
            _drop(self._judged, key, signature)
            tuples.update(item for door in known[0].doors for item in door.tuples)
        if view.doors:
            self._judged.setdefault(key, {})[signature] = None
            signature.outcomes[key] = (view, tuple(self._judge(signature, door) for door in view.doors))
        if (lacks := signature.lacks(key)) != lacked:
            self.noticed = True
            if lacked:
                _drop(self.lacking, key, signature)
            if lacks:
                self.lacking.setdefault(key, {})[signature] = None
        tuples.update([every for item in tuples for every in self.fronts.behind_every(item)])
        for item in tuples:
            self._place(signature, item)

    def _judge(self, signature: Signature, door: Door) -> Outcome:
        if not door.targets:
            return None, frozenset()
        failing = frozenset(t.address for t in door.targets if not signature.passes(t.address, t.protocol, t.port))
        passing = any(t.address not in failing for t in door.targets)
        missing = failing if passing else frozenset()
        return (frozenset() if self._partial and passing else failing), missing

    def _place(self, signature: Signature, item: bytes) -> None:
        """Decide to whom the tuple *item* is open; where several Services claim it, all must agree."""
        shut = self._shut(signature, item)
        (signature.allowed.put if shut == frozenset() else signature.allowed.drop)(item)
        holders = tuple(sorted(set(self._holders(signature, shut)))) if shut else ()
        before = signature.held.pop(item, ())
        if holders:
            signature.held[item] = holders
        for holder in before:
            if holder not in holders:
                signature.extras[holder].drop(item)
                self._touched[signature, holder] = None
        for holder in holders:
            if holder not in signature.extras:
                definition = "|".join((signature.definition, *holder))
                signature.extras[holder] = HeldSet(self._ledger, SetKind.TUPLES, definition)
                self._touched[signature, holder] = None
            signature.extras[holder].put(item)

    def _shut(self, signature: Signature, item: bytes) -> frozenset[bytes] | None:
        """The endpoints that keep *item* shut; ``None``: shut to all."""
        shut: frozenset[bytes] | None = None
        for key, index in self.fronts.claims(item):
            view, outcomes = signature.outcomes.get(key, (NOTHING, ()))
            if view is not self.fronts.views[key] or (failing := outcomes[index][0]) is None:
                return None
            shut = failing | (shut or frozenset())
        return shut

    def _holders(self, signature: Signature, shut: frozenset[bytes]) -> Iterable[Holder]:
        """Those to whom every endpoint in *shut* is their own: Pods of *signature*, and all of it on a node."""
        nodes = self._services.nodes if self.own_node else {}
        for name in self._services.nodes_at.get(next(iter(shut)), ()):
            if shut <= nodes.get(name, frozenset()):
                yield "node", name
        for address in shut:
            workload = self._population.owners.get(address)
            if workload is None or workload.cohort not in signature.cohorts or not workload.enforced:
                continue
            near = nodes.get(workload.view.node, frozenset())
            if len(shut) <= len(workload.owned) + len(near) and shut <= workload.owned | near:
                yield "pod", workload.view.namespace, workload.view.name

    def _reprogram(self, signature: Signature, holder: Holder) -> None:
        """An extra set has appeared, or may have emptied: the programs that name it change."""
        if not signature.extras[holder].content:
            del signature.extras[holder]
        changed = self._population.changed
        if holder[0] == "pod":
            workload = self._population.workloads.get((holder[1], holder[2]))
            if workload is not None:
                changed[workload] = None
            return
        for cohort in signature.cohorts:
            changed.update({item: None for item in cohort.workloads if item.view.node == holder[1]})


def _drop(index: dict[ServiceKey, dict[Signature, None]], key: ServiceKey, signature: Signature) -> None:
    del index[key][signature]
    if not index[key]:
        del index[key]
