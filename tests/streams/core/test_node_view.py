"""Whatever happens to messages on their way, a node ends with what the owner published for it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.policy import Policy, SetSnapshot, decode_set_message
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, set_id
from streams.core.node_view import NodeView
from streams.core.publication import LARGEST_MEMBER, OVERHEAD
from tests.streams.core.receiver import Receiver
from tests.streams.core.stream_model import StreamModel

NODE = "n1"
SETS = [set_id(SetKind.ADDRESSES, name) for name in "abc"]
MEMBERS = [number.to_bytes(4, "big") for number in range(240)]
PART_MEMBERS = 30


def program(uid, names, node=NODE):
    rules = tuple(Rule(id=name, policy="NetworkPolicy/a/b", sets=(name,)) for name in names)
    return Program(uid=uid, namespace="a", name=uid, node=node, ingress=Direction(isolating=("p",), rules=rules))


def take_all(view, receiver):
    while update := view.take():
        receiver.apply(update)


def settle(model, view, receiver):
    """What the shell does until nothing is missing: fetch, and after a while doubt what a mark still waits for."""
    for _ in range(20):
        model.serve(view, NODE)
        take_all(view, receiver)
        if view.blocked():
            view.doubt_missing()
        elif not view.must_catch_up and not view.unproven and not view.missing_parts():
            return
    raise AssertionError(f"does not come to rest: {view}")


def expected(desired):
    programs = {uid: item for (node, uid), item in desired.programs.items() if node == NODE}
    named = frozenset().union(*(item.sets for item in programs.values()))
    return programs, {name: desired.sets[name] for name in named}


@st.composite
def policies(draw, before):
    """Mostly a few members more or less than *before*; sometimes other programs too."""
    programs = list(before.programs.values())
    if not programs or draw(st.integers(0, 3), label="programs change") == 0:
        uids = draw(st.sets(st.sampled_from(["u1", "u2", "u3"])), label="uids")
        programs = [program(uid, draw(st.sets(st.sampled_from(SETS), max_size=3)), NODE) for uid in sorted(uids)]
        programs += [program("u9", draw(st.sets(st.sampled_from(SETS))), "n2")]
    sets = {}
    for name in sorted({name for item in programs for name in item.sets}):
        first = draw(st.integers(0, len(MEMBERS)))
        some = frozenset(MEMBERS[first : first + draw(st.sampled_from([0, 1, 3, 40, 120]))])
        members = before.sets.get(name, frozenset())
        sets[name] = members - some if draw(st.booleans(), label="lose") else members | some
    return Policy(programs={(item.node, item.uid): item for item in programs}, sets=sets)


@st.composite
def on_their_way(draw, messages):
    """*messages* as they arrive: some never, some twice, some late."""
    if draw(st.booleans(), label="all well"):
        return messages
    arrived, late = [], []
    for message in messages:
        match draw(st.sampled_from(["well", "well", "well", "lost", "twice", "late"])):
            case "well":
                arrived.append(message)
            case "twice":
                arrived += [message, message]
            case "late":
                late.append(message)
        if late and draw(st.booleans()):
            arrived.append(late.pop(0))
    return arrived + late


happenings = st.sampled_from(["publish", "publish", "publish", "take over", "wipe", "crash", "heartbeat"])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_loss_reordering_and_repetition_end_in_the_owners_state(data):
    model = StreamModel(max_payload=OVERHEAD + LARGEST_MEMBER * PART_MEMBERS)
    view, receiver = NodeView(NODE), Receiver()
    revision = 0
    for what in data.draw(st.lists(happenings, min_size=1, max_size=10), label="happenings"):
        revision += 1
        if what == "take over":
            model.take_over()
        elif what == "wipe":
            model.live.clear()  # what the old server sent comes before the reconnect, or never
            model.wipe()
            view.forget()
        elif what == "crash":
            model.publish(data.draw(policies(model.desired)), revision, crash_after=data.draw(st.integers(0, 5)))
            model.take_over()
        elif what == "publish" or model.marking.last is None:
            released = data.draw(st.sampled_from([frozenset(), frozenset(MEMBERS[::2]), frozenset(MEMBERS)]))
            model.publish(data.draw(policies(model.desired)), revision, released=released)
        else:
            model.heartbeat()
        sent, model.live = model.live, []
        for message in data.draw(on_their_way(sent)):
            view.live(*message)
        if data.draw(st.booleans(), label="fetches succeed"):
            model.serve(view, NODE)
        take_all(view, receiver)
        if receiver.mark and receiver.mark.revision == revision:
            assert (receiver.programs, receiver.sets) == expected(model.desired), "marked, and not all there"
        if view.blocked() and data.draw(st.booleans(), label="late"):
            view.doubt_missing()

    last = data.draw(policies(model.desired), label="last")
    model.publish(last, revision + 1)
    model.heartbeat()
    view.live(*model.live[-1])  # some heartbeat is heard in the end
    settle(model, view, receiver)

    assert receiver.mark is not None
    assert receiver.mark.revision == revision + 1
    assert (receiver.programs, receiver.sets) == expected(last)
    assert receiver.completes


def in_step(model):
    """A view that is in step with *model*."""
    view = NodeView(NODE)
    settle(model, view, Receiver())
    model.live.clear()
    return view


def both(first, second):
    return Policy(programs={(NODE, "u1"): program("u1", SETS[:2])}, sets={SETS[0]: first, SETS[1]: second})


def test_what_was_given_up_is_told_before_anything_is_gained_and_with_the_loss():
    one, two, three = (frozenset({member}) for member in MEMBERS[:3])
    model = StreamModel()
    model.publish(both(one | three, two), 1)
    view = in_step(model)

    model.publish(both(two, one | two), 2, released=one)  # one changes hands, three goes otherwise

    told = []
    for message in model.live:
        view.live(*message)
        if update := view.take():
            told.append((update.released, {(change.id, change.added, change.removed) for change in update.sets}))
    assert told == [
        (one, {(SETS[0], frozenset(), one)}),
        (frozenset(), {(SETS[0], two, frozenset())}),
        (frozenset(), {(SETS[1], one, frozenset())}),
        (frozenset(), {(SETS[0], frozenset(), three)}),
        (frozenset(), set()),
    ]


def test_what_was_given_up_is_told_also_where_no_set_changes_by_it():
    """The address may have left another set before, which no kernel follows yet."""
    it = frozenset(MEMBERS[:1])
    model = StreamModel()
    model.publish(both(it, frozenset()), 1)
    view = in_step(model)
    model.publish(both(frozenset(), it), 2)
    model.publish(both(frozenset(), frozenset()), 3, released=it)

    for message in model.live:
        if message[0] == "mark":
            continue
        view.live(*message)
    update = view.take()
    assert update.released == it
    assert [(change.id, change.added, change.removed) for change in update.sets] == [(SETS[0], frozenset(), it)]


def test_what_is_fetched_does_not_say_why_it_went():
    it = frozenset(MEMBERS[:1])
    model = StreamModel()
    model.publish(both(it, frozenset()), 1)
    view = in_step(model)
    model.publish(both(frozenset(), it), 2, released=it)
    view.forget()
    model.serve(view, NODE)
    assert view.take().released == frozenset()


def test_a_part_that_is_published_anew_says_it_too():
    many = frozenset(MEMBERS[:100])
    model = StreamModel()
    model.publish(both(many, frozenset()), 1)
    view = in_step(model)
    model.publish(both(frozenset(), frozenset()), 2, released=many)
    assert isinstance(decode_set_message(model.live[0][3]), SetSnapshot)
    view.live(*model.live[0])
    assert view.take().released == many
