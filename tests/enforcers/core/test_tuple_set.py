"""What is told of the own node stands for every address that it has, as the interpreter reads it."""

from collections.abc import Mapping, Set

from hypothesis import given
from hypothesis import strategies as st

from enforcers.core.node_state import NodeState
from enforcers.core.tracked_sets import TupleSet
from schemas import addresses, sets
from schemas.addresses import TCP
from schemas.policy import NodeUpdate, SetChange
from schemas.programs import Direction, Program, Virtual
from schemas.sets import SetKind, set_id
from schemas.verdict import Flow, Reason, judge_egress

PORTS, ALLOWED = set_id(SetKind.TUPLES, "ports"), set_id(SetKind.TUPLES, "allowed")
EGRESS = Direction(
    isolating=("p",), virtual=Virtual(addresses=set_id(SetKind.ADDRESSES, "v"), ports=PORTS, allowed=(ALLOWED,))
)
PROGRAM = Program(uid="u", namespace="n", name="u", node="n", egress=EGRESS)
ADDRESSES = [addresses.pack(text) for text in ("172.18.0.2", "10.244.1.1", "10.244.2.1", "fd00::2", "fe80::1")]

nodes = st.frozensets(st.sampled_from(ADDRESSES))
tuples = st.frozensets(
    st.builds(
        lambda address, port: sets.endpoint(address, TCP, port),
        st.sampled_from([*ADDRESSES, bytes(4), bytes(16)]),
        st.sampled_from((80, 30080)),
    )
)
events = st.lists(st.one_of(nodes, st.tuples(tuples, tuples)), max_size=12)


def plainly(told: set[bytes], node: frozenset[bytes]) -> set[bytes]:
    """The members that *told* means on a node with the addresses *node*."""
    found = {member for member in told if any(member[:-3])}
    for member in told - found:
        found |= {address + member[-3:] for address in node if len(address) + 3 == len(member)}
    return found


@given(nodes, events)
def test_any_changes_and_moves_end_in_what_was_told_at_the_addresses_there_are(node, history):
    held, told = TupleSet(node), set()
    followed, version = set(held.members), held.version
    for event in history:
        if isinstance(event, tuple):
            added, removed = event
            told = (told - removed) | added
            held.change(added, removed)
        else:
            node = event
            held.move(node)
        assert held.members == plainly(told, node)
        assert held.told == told
        step = held.since(version)
        followed, version = (followed | step.added) - step.removed, held.version
        assert followed == held.members


@given(nodes, tuples, tuples, st.sampled_from(ADDRESSES), st.sampled_from((80, 30080)))
def test_the_interpreter_says_the_same_of_what_was_told_and_of_what_the_kernel_holds(node, ports, allowed, to, port):
    told = {PORTS: ports, ALLOWED: allowed}
    held = {identity: plainly(set(members), node) for identity, members in told.items()}

    def reason(members: Mapping[str, Set[bytes]]) -> Reason:
        return judge_egress(PROGRAM, Flow(b"", to, TCP, port), lambda identity: members.get(identity, ()), node).reason

    assert reason(told) is reason(held)


def test_a_complete_update_takes_away_what_was_told_before():
    state = NodeState()
    state.take_addresses(frozenset(ADDRESSES[:2]))
    first, second = (sets.endpoint(bytes(4), TCP, port) for port in (30080, 30081))
    state.apply(NodeUpdate(programs=(PROGRAM,), sets=(SetChange(id=PORTS, added=frozenset({first})),), complete=True))
    state.apply(NodeUpdate(programs=(PROGRAM,), sets=(SetChange(id=PORTS, added=frozenset({second})),), complete=True))

    assert state.sets[PORTS].told == {second}
    assert state.sets[PORTS].members == {sets.endpoint(address, TCP, 30081) for address in ADDRESSES[:2]}
    state.take_addresses(frozenset(ADDRESSES[1:4]))
    assert state.sets[PORTS].members == {sets.endpoint(address, TCP, 30081) for address in ADDRESSES[1:3]}
