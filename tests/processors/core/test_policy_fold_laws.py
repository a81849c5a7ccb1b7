"""The laws every fold keeps: the result depends on the facts, not on the path."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.core.cluster_fold import ClusterFold
from processors.core.policy_fold import PartialService, PolicySettings
from tests.processors.core.worlds import SETTINGS, Change, Player, Receiver, Writer, folded, histories, newest

LAW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cut(draw: st.DataObject, items: list[object]) -> list[list[object]]:
    """*items* in batches, some of them empty."""
    places = sorted(draw.draw(st.lists(st.integers(0, len(items)), max_size=5), label="cuts"))
    ends = [*places, len(items)]
    return [items[start:end] for start, end in zip([0, *places], ends, strict=True)]


@LAW
@given(histories(), st.data())
def test_any_cut_ends_where_the_newest_state_in_any_order_does(history: list[Change], data: st.DataObject) -> None:
    writer, player = Writer(), Player()
    for records in cut(data, [*writer.opening(), *writer.write(history), *writer.syncs()]):
        player.play(records)

    newest_in_some_order = data.draw(st.permutations(list(newest(history).items())), label="order")
    assert player.fold.policy() == folded(newest_in_some_order)


@LAW
@given(histories(), st.data())
def test_what_is_emitted_adds_up_to_the_whole(history: list[Change], data: st.DataObject) -> None:
    writer, player = Writer(), Player()
    for records in cut(data, [*writer.opening(), *writer.write(history)]):
        player.play(records)
        assert player.receiver.policy == player.fold.policy()


@LAW
@given(histories(), st.data())
def test_a_repetition_emits_nothing(history: list[Change], data: st.DataObject) -> None:
    writer, player = Writer(), Player()
    player.play([*writer.opening(), *writer.write(history)])

    again = data.draw(st.permutations(list(newest(history).items())), label="order")
    step = player.play(writer.write(again))
    assert not step.change
    assert not step.touched


@LAW
@given(histories(), st.data())
def test_a_batch_played_twice_is_a_batch_played_once(history: list[Change], data: st.DataObject) -> None:
    """A reader that resumes reads some records again; what they say in the end is what they said."""
    writer, once, twice = Writer(), Player(), Player()
    opening = writer.opening()
    once.play(opening)
    twice.play(opening)
    for records in cut(data, list(writer.write(history))):
        once.play(records)
        twice.play(records)
        twice.play(records)
    assert twice.fold.policy() == once.fold.policy()


@LAW
@given(histories(), st.data())
def test_what_is_torn_down_leaves_nothing(history: list[Change], data: st.DataObject) -> None:
    writer, player = Writer(), Player()
    player.play([*writer.opening(), *writer.write(history)])

    ends = [(key, None) for key, found in newest(history).items() if found is not None]
    for records in cut(data, list(writer.write(data.draw(st.permutations(ends), label="order")))):
        player.play(records)
    assert player.receiver.policy == Receiver().policy
    assert player.fold.empty


@LAW
@given(histories(), st.data())
def test_partly_open_services_keep_the_laws_too(history: list[Change], data: st.DataObject) -> None:
    choice = PolicySettings(partial_service=PartialService.ALLOW)
    writer, player = Writer(), Player(choice)
    for records in cut(data, [*writer.opening(), *writer.write(history)]):
        player.play(records)
    order = data.draw(st.permutations(list(newest(history).items())), label="order")
    assert player.receiver.policy == player.fold.policy() == folded(order, choice)


@LAW
@given(histories(), st.data())
def test_reports_depend_on_the_facts_only(history: list[Change], data: st.DataObject) -> None:
    writer, player, other = Writer(), Player(), Player()
    for records in cut(data, [*writer.opening(), *writer.write(history)]):
        player.play(records)
    writer = Writer()
    other.play([*writer.opening(), *writer.write(newest(history).items())])
    assert player.fold.warnings == other.fold.warnings
    assert player.fold.problems == other.fold.problems
    for key, found in newest(history).items():
        kind, namespace, name = key.split("/")
        if kind == "Pod" and found is not None:
            assert player.fold.selecting(namespace, name) == other.fold.selecting(namespace, name)
            assert player.fold.exposing(namespace, name) == other.fold.exposing(namespace, name)


@LAW
@given(histories(), st.data())
def test_the_inventory_hears_of_all_that_its_reports_tell(history: list[Change], data: st.DataObject) -> None:
    """Reports taken again and again, each time only those that were said to have changed, are those of a new fold."""
    writer, fold, reports = Writer(), ClusterFold("test", SETTINGS), {}
    opening = writer.opening()
    for records in cut(data, [*opening, *writer.write(history), *writer.syncs()]):
        fold.advance(records)
        reports |= fold.inventory.take_changes()

    writer, anew = Writer(), ClusterFold("test", SETTINGS)
    anew.advance([*writer.opening(), *writer.write(newest(history).items()), *writer.syncs()])
    assert {key: report for key, report in reports.items() if report is not None} == anew.inventory.take_changes()
