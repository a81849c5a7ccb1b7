"""One direction of one policy, as rules over address sets; and named ports, where they can be resolved.

Ingress ports are the Pod's own: a name becomes numbers once per cohort. Egress ports are the peer's: a name becomes a
set of (address, protocol, port), one for each set of peers, and says nothing about blocks, which have no names.
"""

from collections.abc import Callable, Iterable, Iterator
from weakref import WeakValueDictionary

import msgspec

from processors.core.segmentation.address_sets import AddressSet, FixedSet, Ledger
from processors.core.segmentation.peers import BlockPeer, Peer, PodPeer, PortMatch, joined
from processors.core.segmentation.policies import RuleSpec
from processors.core.segmentation.selection.members import Cohort, Selection
from processors.core.segmentation.selection.population import Population
from processors.core.segmentation.selection.selectors import EVERYTHING
from schemas.programs import PortRange, Rule, rule_id
from schemas.sets import SetKind

PortName = tuple[int, str]
"""Protocol and name."""


class Part(msgspec.Struct, frozen=True):
    """A rule, but for the named ports that are still to be resolved."""

    index: int
    sets: tuple[AddressSet, ...] | None
    """``None``: any peer."""
    ports: tuple[PortRange, ...] | None
    """``None``: any port."""
    names: tuple[PortName, ...] = ()
    """Ports to be resolved on the Pod itself."""


class Side:
    """One direction of one policy. Its identity stands for its meaning: an unchanged policy keeps its sides."""

    __slots__ = ("_rules", "_selections", "direction", "names", "parts", "policy", "specs")

    def __init__(self, policy: str, direction: str, specs: tuple[RuleSpec, ...], peers: "Peers") -> None:
        self.policy = policy
        """``NetworkPolicy/<namespace>/<name>``."""
        self.direction = direction
        self.specs = specs
        self._selections: list[Selection] = []
        build = self._ingress if direction == "ingress" else self._egress
        self.parts: tuple[Part, ...] = tuple(part for spec in specs for part in build(spec, peers))
        self.names = frozenset(name for part in self.parts for name in part.names)
        self._rules: tuple[Rule, ...] | None = None

    def rules(self, numbers: Callable[[int, str], Iterable[int]]) -> tuple[Rule, ...]:
        """The rules for Pods whose ports have the *numbers* that a protocol and a name give."""
        if self._rules is not None:
            return self._rules
        found = []
        for part in self.parts:
            ports = part.ports
            if ports is not None and part.names:
                resolved = [PortRange(name[0], n, n) for name in part.names for n in numbers(*name)]
                ports = merged((*ports, *resolved))
            if ports == ():
                continue
            members = None if part.sets is None else tuple(sorted({item.id for item in part.sets}))
            shown = ("any",) if ports is None else tuple(map(str, ports))
            identity = rule_id(self.policy, self.direction, str(part.index), *(members or ("any",)), *shown)
            found.append(Rule(id=identity, policy=self.policy, sets=members, ports=ports))
        rules = tuple(found)
        if not self.names:
            self._rules = rules
        return rules

    def sets(self) -> Iterator[AddressSet]:
        """Every set that its rules may name."""
        for part in self.parts:
            yield from part.sets or ()

    def close(self, peers: "Peers") -> None:
        """The policy no longer says this."""
        for selection in self._selections:
            peers.population.release(selection)

    def _ingress(self, spec: RuleSpec, peers: "Peers") -> Iterator[Part]:
        sets = self._sets(spec, peers)
        if sets == ():
            return
        numeric, names = _sorted_ports(spec.ports)
        yield Part(spec.index, sets, numeric, names)

    def _egress(self, spec: RuleSpec, peers: "Peers") -> Iterator[Part]:
        numeric, names = _sorted_ports(spec.ports)
        sets = self._sets(spec, peers)
        if numeric != () and sets != ():
            yield Part(spec.index, sets, numeric)
        if names:
            pods = (ANY_POD,) if spec.peers is None else [peer for peer in spec.peers if isinstance(peer, PodPeer)]
            selections = [self._selection(peer, peers) for peer in pods]
            tuples = tuple(peers.population.set_of(selection, name) for selection in selections for name in names)
            if tuples:
                yield Part(spec.index, tuples, None)

    def _sets(self, spec: RuleSpec, peers: "Peers") -> tuple[AddressSet, ...] | None:
        return None if spec.peers is None else tuple(self._set(peer, peers) for peer in joined(spec.peers))

    def _set(self, peer: Peer, peers: "Peers") -> AddressSet:
        if isinstance(peer, BlockPeer):
            return peers.block(peer)
        return peers.population.set_of(self._selection(peer, peers))

    def _selection(self, peer: PodPeer, peers: "Peers") -> Selection:
        where = peers.namespace_of(self.policy) if peer.namespaces is None else peer.namespaces
        selection = peers.population.acquire(where, peer.pods)
        self._selections.append(selection)
        return selection


class Peers:
    """Where sides find the sets of their peers."""

    def __init__(self, population: Population, ledger: Ledger) -> None:
        self.population = population
        self._ledger = ledger
        self._blocks: WeakValueDictionary[str, FixedSet] = WeakValueDictionary()

    def block(self, peer: BlockPeer) -> FixedSet:
        """The set of a block; shared by all who mean the same block."""
        found = self._blocks.get(peer.definition)
        if found is None:
            found = FixedSet(self._ledger, SetKind.BLOCKS, f"block|{peer.definition}", peer.members)
            self._blocks[peer.definition] = found
        return found

    @staticmethod
    def namespace_of(policy: str) -> str:
        return policy.split("/")[1]


ANY_POD = PodPeer(EVERYTHING, EVERYTHING)


def resolution(sides: Iterable[Side], cohort: Cohort) -> tuple[tuple[PortName, tuple[int, ...]], ...]:
    """What the ports named by *sides* are in *cohort*: cohorts with the same answer share a direction."""
    names = sorted({name for side in sides for name in side.names})
    return tuple((name, tuple(cohort.numbers(*name))) for name in names)


def merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """*ranges* sorted, those that overlap or touch joined."""
    found: list[PortRange] = []
    for item in sorted(ranges):
        last = found[-1] if found else None
        if last is not None and last.protocol == item.protocol and item.first <= last.last + 1:
            found[-1] = PortRange(last.protocol, last.first, max(last.last, item.last))
        else:
            found.append(item)
    return tuple(found)


def _sorted_ports(ports: tuple[PortMatch, ...] | None) -> tuple[tuple[PortRange, ...] | None, tuple[PortName, ...]]:
    """Numbers and names apart; the numbers are ``None`` for any port."""
    if ports is None:
        return None, ()
    numeric = merged(PortRange(port.protocol, port.first, port.last) for port in ports if not port.name)
    return numeric, tuple(sorted({(port.protocol, port.name) for port in ports if port.name}))
