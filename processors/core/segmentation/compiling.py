"""From policies and cohorts to the directions that programs share.

Policy ─▶ Side (ingress, egress) ─┐
Cohort (who selects it?) ─────────┴▶ Compiled (one direction, shared by every cohort it fits)
"""

import msgspec

from processors.core.segmentation.address_sets import AddressSet
from processors.core.segmentation.policies import PolicySpec, RuleSpec, read_spec
from processors.core.segmentation.rules import Peers, Side, resolution
from processors.core.segmentation.selection.members import Cohort, Selection
from processors.core.segmentation.selection.population import Population
from processors.core.segmentation.virtual_addresses.signatures import Signature
from processors.core.segmentation.virtual_addresses.virtual import Virtuals
from schemas import names
from schemas.programs import Direction

Resolution = tuple[tuple[tuple[int, str], tuple[int, ...]], ...]


class Policy:
    """One NetworkPolicy: its newest version, and the version that stands.

    They differ where the newest one's selector cannot be read. Then the last version of the same object whose
    selector could be read stands whole, since a slip of the hand must not open what was closed, nor close a namespace.
    This depends on history, and only on the part of it that is in the log: per key, the newest record and the newest
    one with a readable selector. Every fold of one log, however it is cut, repeated or restarted, agrees. Compaction
    keeps the older of the two for its lag of seven days; a fold that starts after that finds no version that stands,
    and the policy selects nothing. All the while it is reported as a problem of the object.
    """

    __slots__ = ("egress", "ingress", "name", "problems", "raw", "standing", "subject")

    def __init__(self, name: str) -> None:
        self.name = name
        """``NetworkPolicy/<namespace>/<name>``."""
        self.raw = b""
        self.standing: PolicySpec | None = None
        self.subject: Selection | None = None
        self.ingress: Side | None = None
        self.egress: Side | None = None
        self.problems: tuple[str, ...] = ()


class Compiled:
    """A direction in use."""

    __slots__ = ("direction", "key", "sets", "signature", "users")

    def __init__(
        self,
        key: tuple[tuple[Side, ...], Resolution],
        direction: Direction,
        sets: frozenset[AddressSet],
        signature: Signature | None,
    ) -> None:
        self.key = key
        self.direction = direction
        self.sets = sets
        self.signature = signature
        """Egress only: what decides about virtual addresses."""
        self.users = 0
        """How many cohorts it is in use for."""


class Compiler:
    """All policies, and the directions in use."""

    def __init__(self, population: Population, peers: Peers, virtuals: Virtuals) -> None:
        self.policies: dict[tuple[str, str], Policy] = {}
        self._population = population
        self._peers = peers
        self._virtuals = virtuals
        self._ingress: dict[tuple[tuple[Side, ...], Resolution], Compiled] = {}
        self._egress: dict[tuple[tuple[Side, ...], Resolution], Compiled] = {}

    # --- policies ----------------------------------------------------------------------------------------------------

    def put(self, namespace: str, name: str, raw: bytes) -> None:
        """A policy is now as *raw* says; one of the same name and another uid must have been removed before."""
        policy = self.policies.get((namespace, name))
        if policy is None:
            policy = self.policies[namespace, name] = Policy(names.key("NetworkPolicy", namespace, name))
        elif policy.raw == raw:
            return
        spec = read_spec(raw)
        policy.raw, policy.problems = raw, spec.problems
        if spec.subject is not None:
            policy.standing = spec
        elif policy.standing is not None:
            policy.problems += ("its selector cannot be read: the last version that could be read stands",)
        else:
            policy.problems += ("its selector cannot be read, nor was there a version before: it selects nothing",)
        self._stand(policy, namespace)

    def remove(self, namespace: str, name: str) -> None:
        """A policy is gone."""
        policy = self.policies.pop((namespace, name), None)
        if policy is not None:
            policy.standing = None
            self._stand(policy, namespace)

    def _stand(self, policy: Policy, namespace: str) -> None:
        """Make *policy* mean what its standing version says; acquire the new before releasing the old."""
        spec = policy.standing
        old_subject, old_sides = policy.subject, (policy.ingress, policy.egress)
        policy.subject = None
        if spec is not None and spec.subject is not None:
            policy.subject = self._population.acquire(namespace, spec.subject)
        policy.ingress = self._side(policy, "ingress", spec.ingress if spec else None, old_sides[0])
        policy.egress = self._side(policy, "egress", spec.egress if spec else None, old_sides[1])
        if policy.subject is not old_subject or (policy.ingress, policy.egress) != old_sides:
            for selection in (old_subject, policy.subject):
                if selection is not None:
                    self._population.dirty.update(selection.cohorts)
        if policy.subject is not old_subject:
            if old_subject is not None:
                del old_subject.policies[policy]
            if policy.subject is not None:
                policy.subject.policies[policy] = None
        if old_subject is not None:
            self._population.release(old_subject)
        for side in old_sides:
            if side is not None and side not in (policy.ingress, policy.egress):
                side.close(self._peers)

    def _side(
        self, policy: Policy, direction: str, specs: tuple[RuleSpec, ...] | None, old: Side | None
    ) -> Side | None:
        if specs is None:
            return None
        if old is not None and old.specs == specs:
            return old
        return Side(policy.name, direction, specs, self._peers)

    # --- directions --------------------------------------------------------------------------------------------------

    def compile(self) -> dict[Cohort, Signature | None]:
        """Give every dirty cohort its directions; return the egress signature that each changed one had before."""
        population = self._population
        before: dict[Cohort, Signature | None] = {}
        replaced: list[Compiled | None] = []
        for cohort in population.dirty:
            selecting = cohort.policies()
            cohort.selected_by = tuple(sorted(policy.name for policy in selecting))
            population.changed.update(cohort.workloads)
            old_ingress, old_egress = cohort.ingress, cohort.egress
            cohort.ingress = cohort.egress = None
            if cohort.enforced:
                sides = sorted((policy.ingress for policy in selecting if policy.ingress), key=_policy)
                cohort.ingress = self._acquire(self._ingress, tuple(sides), resolution(sides, cohort), cohort)
                sides = sorted((policy.egress for policy in selecting if policy.egress), key=_policy)
                cohort.egress = self._acquire(self._egress, tuple(sides), (), cohort)
            old, new = (item.signature if item else None for item in (old_egress, cohort.egress))
            if old is not new:
                before[cohort] = old
                if old is not None:
                    del old.cohorts[cohort]
                if new is not None:
                    new.cohorts[cohort] = None
            replaced += (old_ingress, old_egress)
        for compiled in replaced:  # after all: what moved from one cohort to another is not built twice
            if compiled is not None:
                self._release(compiled)
        return before

    def _acquire(
        self,
        table: dict[tuple[tuple[Side, ...], Resolution], Compiled],
        sides: tuple[Side, ...],
        ports: Resolution,
        cohort: Cohort,
    ) -> Compiled | None:
        if not sides:
            return None
        compiled = table.get((sides, ports))
        if compiled is None:
            rules = tuple(rule for side in sides for rule in side.rules(cohort.numbers))
            named = {name for rule in rules for name in rule.sets or ()}
            sets = {item for side in sides for item in side.sets() if item.id in named}
            direction = Direction(isolating=tuple(side.policy for side in sides), rules=rules)
            signature = None
            if table is self._egress:
                signature = self._virtuals.enter(direction, frozenset(sets))
                own_node = self._virtuals.own_node
                direction = msgspec.structs.replace(direction, virtual=signature.virtual, own_node=own_node)
                sets |= {self._virtuals.fronts.addresses, self._virtuals.fronts.ports, signature.allowed}
            compiled = table[sides, ports] = Compiled((sides, ports), direction, frozenset(sets), signature)
            for item in compiled.sets:
                item.name()
        compiled.users += 1
        return compiled

    def _release(self, compiled: Compiled) -> None:
        compiled.users -= 1
        if compiled.users:
            return
        del (self._ingress if compiled.signature is None else self._egress)[compiled.key]
        for item in compiled.sets:
            item.release()
        if compiled.signature is not None:
            self._virtuals.leave(compiled.signature)


def _policy(side: Side) -> str:
    return side.policy
