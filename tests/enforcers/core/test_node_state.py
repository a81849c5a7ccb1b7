"""What a node was told: the last word counts, however it came."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from enforcers.core.difference import Realized, Table, advance, compare, contents, desire, realized
from enforcers.core.layout import FAMILIES, NODE_SET, Interface
from enforcers.core.node_state import NodeState
from enforcers.core.observation import NOTHING
from enforcers.core.tracked_sets import TrackedSet
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, set_id

PEERS = set_id(SetKind.ADDRESSES, "peers")
MEMBERS = st.frozensets(st.integers(0, 6).map(lambda number: bytes((10, 0, 0, number))), max_size=5)
CHANGES = st.lists(st.tuples(MEMBERS, MEMBERS), max_size=12)


def program(uid: str = "u") -> Program:
    rules = (Rule(id="r", policy="p", sets=(PEERS,)),)
    return Program(
        uid=uid, namespace="n", name=uid, node="n", ingress=Direction(isolating=("p",), rules=rules), mirror=""
    )


@given(CHANGES, CHANGES)
def test_the_net_of_any_changes_leads_from_the_old_members_to_the_new(before, after):
    tracked = TrackedSet()
    for added, removed in before:
        tracked.change(added, removed)
    version, members = tracked.version, set(tracked.members)

    for added, removed in after:
        tracked.change(added, removed)

    step = tracked.since(version)
    assert step is not None
    assert (members | step.added) - step.removed == tracked.members
    assert not step.added & members
    assert step.removed <= members


@given(st.lists(CHANGES, max_size=4))
def test_following_changes_ends_where_writing_everything_ends(rounds):
    sets = {PEERS: TrackedSet(), NODE_SET: TrackedSet()}
    desired = desire(program(), Interface("eth0"))
    kernel: set[bytes] = set()
    known: Realized | None = None
    for changes in rounds:
        for added, removed in changes:
            sets[PEERS].change(added, removed)
        patch = compare(desired, NOTHING, sets) if known is None else advance(desired, known, sets)
        for whole in (*patch.create, *patch.replace):
            if whole.id == PEERS and whole.family == 4:
                kernel = set(whole.members)
        for each in (*patch.gain, *patch.lose):
            kernel = (kernel | set(each.added)) - set(each.removed)
        known = realized(desired, sets)
        assert kernel == sets[PEERS].members
        assert not advance(desired, known, sets)


def test_a_set_that_goes_and_comes_again_is_never_mistaken_for_its_forerunner():
    state = NodeState()
    whole = SetChange(id=PEERS, added=frozenset({b"\1\1\1\1"}))
    state.apply(NodeUpdate(sets=(whole,), programs=(program(),)))
    version = state.sets[PEERS].version

    state.apply(NodeUpdate(gone=("u",)))
    assert PEERS not in state.sets
    state.apply(NodeUpdate(sets=(SetChange(id=PEERS, added=frozenset({b"\2\2\2\2"})),), programs=(program(),)))

    assert state.sets[PEERS].since(version) is None


def test_a_complete_update_sweeps_what_it_does_not_name():
    state = NodeState()
    state.apply(NodeUpdate(sets=(SetChange(id=PEERS),), programs=(program("a"), program("b"))))

    dirty = state.apply(
        NodeUpdate(sets=(SetChange(id=PEERS),), programs=(program("b"),), mark=Mark(revision=1), complete=True)
    )

    assert dirty == {"a"}
    assert set(state.programs) == {"b"}


def test_a_static_pod_is_known_by_its_mirrors_id():
    state = NodeState()
    mirrored = Program(uid="api", namespace="n", name="x", node="n", mirror="runtime", ingress=Direction(isolating=()))
    assert state.apply(NodeUpdate(programs=(mirrored,))) == {"runtime"}
    assert state.apply(NodeUpdate(gone=("api",))) == {"runtime"}
    assert state.programs == {}


def test_an_unisolated_pod_wants_neither_rule_nor_set():
    free = Program(uid="u", namespace="n", name="u", node="n")
    desired = desire(free, Interface(""))
    assert desired.sets == frozenset()
    assert not compare(desired, NOTHING, {})
    assert realized(desired, {}).tables == {family: Table() for family in FAMILIES}


def mirrored(uid: str, mirror: str) -> Program:
    return msgspec.structs.replace(program(uid), mirror=mirror)


def test_a_static_pod_whose_mirror_is_made_anew_keeps_its_program():
    state = NodeState()
    state.apply(NodeUpdate(programs=(mirrored("first", "static"),)))

    state.apply(NodeUpdate(programs=(mirrored("second", "static"),), gone=("first",)))

    assert state.programs == {"static": mirrored("second", "static")}
    state.apply(NodeUpdate(gone=("second",)))
    assert state.programs == {}


def test_a_pod_that_gets_another_id_at_the_runtime_is_let_go_of_under_the_old_one():
    state = NodeState()
    state.apply(NodeUpdate(programs=(mirrored("u", "old"),)))

    assert state.apply(NodeUpdate(programs=(mirrored("u", "new"),))) == {"old", "new"}
    assert state.programs.keys() == {"new"}


def test_a_set_that_was_written_to_one_pod_is_written_to_the_next_as_it_is_by_then():
    identity = set_id(SetKind.ADDRESSES, "peers")
    tracked = TrackedSet([b"\x0a\0\0\1"])

    def written() -> tuple[bytes, ...]:
        return contents(identity, 4, {identity: tracked}).members

    assert written() == (b"\x0a\0\0\1",)
    tracked.change([b"\x0a\0\0\2"], [b"\x0a\0\0\1"])
    assert written() == (b"\x0a\0\0\2",)
