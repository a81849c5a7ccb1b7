"""What is published for a change, in which order, and what a later owner makes of what it finds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import MARK_SUBJECTS, Policy, PolicyChange, SetChange
from schemas.programs import decode_program, encode_program
from streams.core.difference import difference
from streams.core.marking import Marking
from streams.core.node_view import NodeView
from streams.core.parts import PartName, Stored, whole
from streams.core.publication import GONE, LARGEST_MEMBER, OVERHEAD, ROLLUP, Publication
from tests.streams.channels.policy_world import A, B, addresses, policy_of, program
from tests.streams.core.stream_model import StreamModel


def publication(part_members=1000):
    return Publication(max_payload=OVERHEAD + LARGEST_MEMBER * part_members)


def subjects(messages):
    return [message.subject for message in messages]


def test_gains_come_before_programs_and_losses_after_them():
    owner = publication()
    owner.plan(
        PolicyChange(
            sets=(SetChange(id=A, added=addresses(0, 9)), SetChange(id=B)),
            programs=(program("u1", A), program("u2", A, B)),
        )
    )
    messages = owner.plan(
        PolicyChange(
            sets=(SetChange(id=A, added=addresses(9, 11), removed=addresses(0, 1)), SetChange(id=B, gone=True)),
            programs=(program("u3", A),),
            gone=(("node-1", "u2"),),
        )
    )
    assert subjects(messages) == [
        f"set.{A}.0-0",
        "pod.node-1.u3",
        "pod.node-1.u2",
        f"set.{A}.0-0",
        f"set.{B}.0-0",
    ]
    assert [message.headers for message in messages] == [None, ROLLUP, GONE, None, GONE]


def test_a_program_says_as_of_which_revision_it_was_published_and_is_not_published_anew_for_that():
    owner = publication()
    (message,) = owner.plan(PolicyChange(programs=(program("u1"),)), 7)
    assert decode_program(message.payload) == msgspec.structs.replace(program("u1"), revision=7)

    found = publication().read([(message.subject, Stored(message.subject, 1, message.payload))])
    assert not difference(policy_of(program("u1")), found)


def test_a_set_that_outgrows_its_part_is_published_anew_before_the_old_part_goes():
    owner = publication(part_members=10)
    owner.plan(PolicyChange(sets=(SetChange(id=A, added=addresses(0, 10)),)))
    messages = owner.plan(PolicyChange(sets=(SetChange(id=A, added=addresses(10, 12)),), programs=(program("u", A),)))
    new = messages[: subjects(messages).index("pod.node-1.u")]
    assert whole(PartName.parse(message.subject.rpartition(".")[2]) for message in new)
    assert messages[-1].subject == f"set.{A}.0-0"
    assert messages[-1].headers == GONE


@given(st.lists(st.frozensets(st.integers(0, 200).map(lambda number: number.to_bytes(4, "big"))), min_size=1))
def test_a_later_owner_finds_exactly_what_was_published(memberships):
    model = StreamModel(max_payload=OVERHEAD + LARGEST_MEMBER * 20)
    for revision, members in enumerate(memberships):
        model.publish(policy_of(program("u1", A), a=members), revision)
    model.take_over()
    assert model.published == policy_of(program("u1", A), a=memberships[-1])
    assert not difference(model.desired, model.published)


NO_MESSAGE = (b"\xc1", b"\x91" * 50_000)
"""No msgpack at all, and arrays nested beyond reason."""


@pytest.mark.parametrize("payload", NO_MESSAGE)
def test_what_cannot_be_read_counts_as_not_published_and_is_cleared_away(payload):
    model = StreamModel()
    model.publish(policy_of(program("u1", A), program("u2"), a=addresses(0, 3)), 1)
    model.stored = [
        msgspec.structs.replace(message, payload=payload) if message.subject.startswith(("pod", "set")) else message
        for message in model.stored
    ]
    model.take_over()
    assert model.published == Policy(programs={}, sets={})
    wanted = policy_of(program("u1", A), a=addresses(0, 3))
    model.publish(wanted, 2)
    assert {message.subject: bool(message.payload) for message in model.read("pod")} == {
        "pod.node-1.u1": True,
        "pod.node-1.u2": False,
    }
    model.take_over()
    assert model.published == wanted


@pytest.mark.parametrize("payload", NO_MESSAGE)
def test_an_unreadable_program_keeps_its_node_from_being_told_that_it_has_everything(payload):
    model = StreamModel()
    model.publish(policy_of(program("u1"), program("u2")), 1)
    view = NodeView("node-1")
    good = model.stored
    model.stored = [
        msgspec.structs.replace(message, payload=payload) if message.subject.endswith("u2") else message
        for message in good
    ]
    model.serve(view, "node-1")
    update = view.take()
    assert [item.uid for item in update.programs] == ["u1"]
    assert (update.mark, update.complete) == (None, False)

    view.live("pod.node-1.u2", model.sequence + 1, 0, encode_program(program("u2")))
    update = view.take()
    assert update.complete
    assert [item.uid for item in update.programs] == ["u1", "u2"]


def test_a_mark_waits_for_every_acknowledgement_of_its_revision_and_those_before():
    marking = Marking(None)
    first, second = marking.sent(1, "t1", 2), marking.sent(2, "t2", 1)
    marking.acknowledge(second, "pod.n.b", 12)
    assert marking.earned() is None
    marking.acknowledge(first, "pod.n.a", 10)
    assert marking.earned() is None
    marking.acknowledge(first, "set.x.0-0", 11)
    mark = marking.earned()
    assert (mark.revision, mark.previous, mark.time) == (2, -1, "t2")
    assert dict(mark.changed) == {"pod.n.a": 10, "set.x.0-0": 11, "pod.n.b": 12}
    assert marking.settled
    assert marking.repeated().changed == ()


@pytest.mark.parametrize(("count", "named"), [(MARK_SUBJECTS, True), (MARK_SUBJECTS + 1, False)])
def test_a_mark_names_at_most_a_thousand_subjects(count, named):
    marking = Marking(None)
    opened = marking.sent(1, "", count)
    for number in range(count):
        marking.acknowledge(opened, f"pod.n.{number}", number)
    assert (marking.earned().changed is not None) is named
