"""The kernel while a patch is written, listed after every single member that a backend adds or takes away."""

from collections.abc import Iterable, Mapping

import pytest
from msgspec.structs import replace

from enforcers.core.difference import Contents, Membership, advance, compare, desire, realized
from enforcers.core.layout import FAMILIES, NODE_SET, Interface
from enforcers.core.node_state import NodeState
from enforcers.core.observation import NOTHING, ObservedSets
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel import tables
from enforcers.kernel.rules.chain_backends import RestoreChains
from enforcers.kernel.sets.set_backends import SetBackend
from schemas.addresses import TCP
from schemas.policy import NodeUpdate, SetChange
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, address_of, endpoint, kind_of, set_id
from tests.enforcers.kernel.set_scenes import host, scene

pytestmark = pytest.mark.netns

OLD, NEW, PORTS = set_id(SetKind.ADDRESSES, "old"), set_id(SetKind.ADDRESSES, "new"), set_id(SetKind.TUPLES, "ports")
SETS = (OLD, NEW, PORTS)
RULES = tuple(Rule(id=f"r{each}", policy="p", sets=(each,)) for each in SETS)
PROGRAM = Program(uid="u", namespace="n", name="u", node="n", ingress=Direction(isolating=("p",), rules=RULES))

HANDED, RELABELLED, KEPT = (tuple(host(number, family) for family in FAMILIES) for number in (1, 2, 3))
"""Of three Pods that are called old: one goes and a new one gets its addresses, one is called new, one is replaced."""


class Watched:
    """Writes by *sets*, a member at a time, and lists what there is after each."""

    def __init__(self, sets: SetBackend) -> None:
        self._sets = sets
        self.seen: list[dict[bytes, set[str]]] = []
        """Which sets hold an address, at each instant."""

    async def create(self, wholes: Iterable[Contents]) -> None:
        await self._sets.create(wholes)

    async def replace(self, wholes: Iterable[Contents]) -> None:
        await self._sets.replace(wholes)

    async def change(self, memberships: Iterable[Membership]) -> None:
        for each in memberships:
            for member in each.added:
                await self._sets.change([replace(each, added=(member,), removed=())])
                self._note((await self.read()).members)
            for member in each.removed:
                await self._sets.change([replace(each, added=(), removed=(member,))])
                self._note((await self.read()).members)

    async def destroy(self, name: str) -> None:
        await self._sets.destroy(name)

    async def read(self) -> ObservedSets:
        return await self._sets.read()

    def _note(self, found: Mapping[tuple[str, int], frozenset[bytes] | None]) -> None:
        holding: dict[bytes, set[str]] = {address: set() for address in (*HANDED, *RELABELLED, *KEPT)}
        for (identity, _), members in found.items():
            for member in members or ():
                holding[address_of(kind_of(identity), member)].add(identity)
        self.seen.append(holding)


def change(identity: str, *, added: Iterable[bytes] = (), removed: Iterable[bytes] = ()) -> SetChange:
    if kind_of(identity) is SetKind.TUPLES:
        added, removed = ([endpoint(each, TCP, 80) for each in some] for some in (added, removed))
    return SetChange(id=identity, added=frozenset(added), removed=frozenset(removed))


AT_ONCE = [
    NodeUpdate(
        sets=(
            change(OLD, removed=(*HANDED, *RELABELLED)),
            change(NEW, added=(*HANDED, *RELABELLED)),
            change(PORTS, removed=(*HANDED, *RELABELLED)),
        ),
        released=frozenset((*HANDED, *KEPT)),
    )
]
ONE_AFTER_THE_OTHER = [
    NodeUpdate(
        sets=(change(OLD, removed=HANDED), change(PORTS, removed=HANDED)),
        released=frozenset(HANDED),
    ),
    NodeUpdate(sets=(change(NEW, added=HANDED),)),
    NodeUpdate(sets=(change(OLD, removed=KEPT),), released=frozenset(KEPT)),
    NodeUpdate(sets=(change(OLD, added=KEPT), change(NEW, added=RELABELLED))),
    NodeUpdate(sets=(change(OLD, removed=RELABELLED), change(PORTS, removed=RELABELLED))),
]


@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize("updates", [AT_ONCE, ONE_AFTER_THE_OTHER], ids=["at once", "one after the other"])
@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_at_no_instant_do_two_owners_sets_hold_an_address_nor_none_that_of_a_relabelled_pod(backend, updates):
    everyone = (*HANDED, *RELABELLED, *KEPT)
    state = NodeState()
    sets = (change(OLD, added=everyone), change(NEW), change(PORTS, added=everyone))
    state.apply(NodeUpdate(sets=sets, programs=(PROGRAM,)))
    known_sets = {**state.sets, NODE_SET: TrackedSet()}
    desired = desire(PROGRAM, Interface("eth0"))
    with scene(backend) as it:
        watched, chains = Watched(it.sets), RestoreChains(it.path)
        await tables.write(it.path, compare(desired, NOTHING, known_sets), watched, chains)
        known = realized(desired, known_sets)

        for update in updates:
            state.apply(update)
        await tables.write(it.path, advance(desired, known, known_sets), watched, chains)

    assert len(watched.seen) == 12, "of two addresses in two families: one set gains and two lose"
    for holding in watched.seen:
        assert all(NEW not in holding[each] or holding[each] == {NEW} for each in HANDED), "of two owners"
        assert all(holding[each] & {OLD, NEW} for each in RELABELLED), "shut out"
        assert all(OLD in holding[each] for each in KEPT), "it blinks"
    assert all(watched.seen[-1][each] == {NEW} for each in (*HANDED, *RELABELLED))
