"""An address that gets another owner is never in the sets of both; a Pod that is relabelled is never shut out."""

from collections.abc import Iterator, Mapping

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcers.core.difference import Patch, advance, compare, desire, realized
from enforcers.core.layout import NODE_SET, Interface
from enforcers.core.node_state import NodeState
from enforcers.core.observation import NOTHING
from enforcers.core.tracked_sets import RELEASES, Releases, TrackedSet
from schemas.addresses import TCP
from schemas.policy import NodeUpdate, SetChange
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, endpoint, kind_of, set_id

KINDS = (SetKind.ADDRESSES, SetKind.ADDRESSES, SetKind.TUPLES)
SETS = [set_id(kind, name) for kind, name in zip(KINDS, "xyz", strict=True)]
ADDRESSES = [bytes((10, 0, 0, number)) for number in (1, 2)]
RULES = tuple(Rule(id=f"r{name}", policy="p", sets=(name,)) for name in SETS)
PROGRAM = Program(uid="u", namespace="n", name="u", node="n", ingress=Direction(isolating=("p",), rules=RULES))


class Owner(msgspec.Struct, frozen=True):
    """A Pod at an address; *sets* are what its labels come to."""

    name: str
    sets: frozenset[str]


NOBODY = Owner("", frozenset())
owners = st.one_of(
    st.just(NOBODY), st.builds(Owner, st.sampled_from("AB"), st.frozensets(st.sampled_from(SETS), max_size=2))
)
events = st.tuples(st.sampled_from(ADDRESSES), owners)
rounds = st.lists(st.lists(st.lists(events, max_size=3), min_size=1, max_size=3), max_size=6)
"""Of a kernel that follows, the updates that come meanwhile, and of each the revisions that it tells."""


def member(identity: str, address: bytes) -> bytes:
    return endpoint(address, TCP, 80) if kind_of(identity) is SetKind.TUPLES else address


class Cluster:
    """Who owns what, and what a node is told of it."""

    def __init__(self) -> None:
        self.now = dict.fromkeys(ADDRESSES, NOBODY)
        self.since = {address: [NOBODY] for address in ADDRESSES}
        """Every owner since the kernel followed last, he included who had the address then."""
        self.untold: set[bytes] = set()
        """Addresses that another Pod got since then of which no set of the node tells."""

    def update(self, revisions: list[tuple[bytes, Owner]]) -> NodeUpdate:
        before, released = dict(self.now), set[bytes]()
        for address, owner in revisions:
            was, self.now[address] = self.now[address], owner
            self.since[address].append(owner)
            if was.name and was.name != owner.name:  # a set tells of it by losing the address
                (released if was.sets - owner.sets else self.untold).add(address)
        return NodeUpdate(
            sets=tuple(
                SetChange(id=each, added=now - old, removed=old - now)
                for each in SETS
                if (old := members(each, before)) != (now := members(each, self.now))
            ),
            released=frozenset(released),
        )

    def followed(self) -> None:
        self.since = {address: [owner] for address, owner in self.now.items()}
        self.untold.clear()


def members(identity: str, now: Mapping[bytes, Owner]) -> frozenset[bytes]:
    return frozenset(member(identity, address) for address, owner in now.items() if identity in owner.sets)


def instants(kernel: Mapping[str, set[bytes]], patch: Patch) -> Iterator[None]:
    """Write *patch* to *kernel*, and stop after each member."""
    for membership in (*patch.release, *patch.gain, *patch.lose):
        for each in membership.added:
            kernel[membership.id].add(each)
            yield
        for each in membership.removed:
            kernel[membership.id].discard(each)
            yield


@settings(max_examples=500)
@given(rounds)
def test_at_no_instant_is_an_address_in_sets_of_two_owners_nor_a_relabelled_pod_shut_out(history):
    cluster, state = Cluster(), NodeState()
    state.apply(NodeUpdate(sets=tuple(SetChange(id=each) for each in SETS), programs=(PROGRAM,)))
    sets = {**state.sets, NODE_SET: TrackedSet()}
    desired, kernel = desire(PROGRAM, Interface("eth0", families=(4,))), {each: set[bytes]() for each in SETS}
    assert compare(desired, NOTHING, sets).create
    known = realized(desired, sets)
    for updates in history:
        for revisions in updates:
            state.apply(cluster.update(revisions))
        patch, known = advance(desired, known, sets), realized(desired, sets)
        for _ in instants(kernel, patch):
            for address, others in cluster.since.items():
                held = {each for each in SETS if member(each, address) in kernel[each]}
                first, last = others[0], others[-1]
                assert first.sets & last.sets <= held, "what stays does not blink"
                if len({owner.name for owner in others}) == 1:
                    assert held or not (first.sets and last.sets), "a relabelled Pod is shut out"
                if address not in cluster.untold:
                    known_as = [{s for o in others if o.name == owner.name for s in o.sets} for owner in others]
                    assert not held or any(held <= each for each in known_as), "an address is two owners'"
        assert kernel == {each: set(members(each, cluster.now)) for each in SETS}
        assert not advance(desired, known, sets)
        cluster.followed()


def told(state: NodeState, identity: str, *, added: bytes = b"", removed: bytes = b"", released: bytes = b"") -> None:
    change = SetChange(id=identity, added=frozenset({added} - {b""}), removed=frozenset({removed} - {b""}))
    state.apply(NodeUpdate(sets=(change,), released=frozenset({released} - {b""})))


def test_what_a_pod_lost_by_its_labels_counts_as_given_up_once_the_pod_has_gone():
    state, (it, _) = NodeState(), ADDRESSES
    state.apply(
        NodeUpdate(sets=(SetChange(id=SETS[0], added=frozenset({it})), SetChange(id=SETS[1])), programs=(PROGRAM,))
    )
    first = state.sets[SETS[0]]
    version = first.version
    told(state, SETS[0], removed=it)
    told(state, SETS[1], added=it)
    assert first.since(version).released == frozenset()

    told(state, SETS[1], removed=it, released=it)

    assert first.since(version).released == {it}
    told(state, SETS[0], added=it)
    told(state, SETS[0], removed=it)
    assert first.since(version).released == frozenset(), "its next owner was only relabelled"


def test_the_oldest_releases_are_forgotten_and_the_newest_are_not():
    releases = Releases()
    many = [number.to_bytes(4, "big") for number in range(RELEASES + 2)]
    releases.tell(many[:-1])
    releases.tell([many[0], many[-1]])
    assert [releases.since(1, each) for each in (many[0], many[1], many[2], many[3], many[-1])] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert not releases.since(2, many[3])
