"""Egress signatures: the egress of all Pods that the same policies isolate, and what virtual addresses it opens."""

from collections.abc import Iterable

from processors.core.segmentation.address_sets import AddressSet, Ledger
from processors.core.segmentation.selection.members import Cohort, Workload
from processors.core.segmentation.virtual_addresses.services import ServiceKey, ServiceView
from schemas import sets as set_names
from schemas import verdict
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.sets import SetKind
from schemas.verdict import Flow

Holder = tuple[str, ...]
"""("node", name) or ("pod", namespace, name): whose own addresses make the difference."""
Outcome = tuple[frozenset[bytes] | None, frozenset[bytes]]
"""Of one door: the endpoints that keep it shut (``None``: it has none); and those that it lacks, if it has others."""


Shape = frozenset[tuple[PortRange, ...] | None]
"""The ports of the rules that look at no Pod: those for any peer and for blocks. ``None`` is any port."""


class HeldSet(AddressSet):
    """A set whose content is kept whether programs name it or not."""

    __slots__ = ("content",)

    def __init__(self, ledger: Ledger, kind: SetKind, definition: str) -> None:
        super().__init__(ledger, kind, definition)
        self.content: set[bytes] = set()

    def fill(self) -> Iterable[bytes]:
        return self.content

    def put(self, member: bytes) -> None:
        self.content.add(member)
        if self.named or self.published:
            self.add(member)

    def drop(self, member: bytes) -> None:
        self.content.discard(member)
        if self.named or self.published:
            self.discard(member)


class Signature:
    """The egress of all Pods that the same policies isolate."""

    def __init__(self, ledger: Ledger, isolating: tuple[str, ...], addresses: str, ports: str) -> None:
        self.isolating = isolating
        self.definition = "virtual|" + "|".join(isolating)
        self.allowed = HeldSet(ledger, SetKind.TUPLES, self.definition)
        self.virtual = Virtual(addresses=addresses, ports=ports, allowed=(self.allowed.id,))
        self.cohorts: dict[Cohort, None] = {}
        self.users = 0
        self.sets: dict[str, AddressSet] = {}
        """By id, those that its rules name."""
        self.outcomes: dict[ServiceKey, tuple[ServiceView, tuple[Outcome, ...]]] = {}
        self.extras: dict[Holder, HeldSet] = {}
        self.held: dict[bytes, tuple[Holder, ...]] = {}
        """Of each tuple that is open to some only: to whom."""
        self.shape: Shape = frozenset()
        self._program = Program(uid="", namespace="", name="", node="")

    def say(self, direction: Direction, named: frozenset[AddressSet]) -> bool:
        """Take over rules; return whether they differ from those before."""
        if (
            self._program.egress is not None
            and self._program.egress.rules == direction.rules
            and not (named ^ set(self.sets.values()))
        ):
            return False
        self.unwatch()
        self._program = Program(uid="", namespace="", name="", node="", egress=direction)
        self.sets = {item.id: item for item in named}
        self.shape = frozenset(rule.ports for rule in direction.rules if _about_addresses(rule))
        for item in named:
            item.watchers.add(self)
        return True

    def unwatch(self) -> None:
        for item in self.sets.values():
            item.watchers.discard(self)

    def passes(self, address: bytes, protocol: int, port: int) -> bool:
        """Whether a rule allows this, as the interpreter says."""
        return verdict.judge_egress(self._program, Flow(b"", address, protocol, port), self._members).allowed

    def lacks(self, key: ServiceKey) -> tuple[frozenset[bytes], ...]:
        """By door, the endpoints of the Service *key* that it lacks while it has others; empty where it lacks none."""
        _, outcomes = self.outcomes.get(key, (None, ()))
        missing = tuple(lacked for _, lacked in outcomes)
        return missing if any(missing) else ()

    def _members(self, identity: str) -> set[bytes]:
        return self.sets[identity].members

    def extras_of(self, workload: Workload) -> tuple[HeldSet, ...]:
        """The sets that are open to this Pod beside the signature's own."""
        view = workload.view
        holders = (("node", view.node), ("pod", view.namespace, view.name))
        return tuple(extra for holder in holders if (extra := self.extras.get(holder)) is not None)


def _about_addresses(rule: Rule) -> bool:
    """Whether *rule* may allow an address that is no Pod's."""
    return rule.sets is None or any(set_names.kind_of(identity) is SetKind.BLOCKS for identity in rule.sets)
