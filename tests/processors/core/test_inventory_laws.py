"""The laws that the inventory fold keeps as every fold does: the reports depend on the facts, not on the path."""

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.core.reading import Fact
from schemas.reports import AnyReport
from tests.processors.core.inventory_world import endpoint, gone, new, node, settle, slice_of, taken, there

NAMES = ("a", "b")


def versions(kind: str, name: str, namespace: str) -> st.SearchStrategy[Fact]:
    """Some states of one object."""
    choices = {
        "Pod": [
            there("Pod", name, namespace, spec={"nodeName": "n1"}, status={"phase": "Running", "podIP": "10.0.0.1"}),
            there("Pod", name, namespace, spec={"nodeName": "n2"}, status={"phase": "Running"}),
            there("Pod", name, namespace, spec={"nodeName": "n2"}, status={"phase": "Failed"}),
            there("Pod", name, namespace),
        ],
        "Node": [node("n1"), node("n1", ready="False")],
        "Namespace": [there("Namespace", name), there("Namespace", name, metadata={"labels": {"x": "y"}})],
        "Service": [
            there("Service", name, namespace, spec={"clusterIP": "10.9.0.1", "selector": {"a": "b"}}),
            there("Service", name, namespace, spec={"clusterIP": "None"}),
        ],
        "EndpointSlice": [
            slice_of(service, name, endpoint(address)) for service in NAMES for address in ("10.0.0.1", "10.0.0.2")
        ],
        "NetworkPolicy": [there("NetworkPolicy", name, namespace, spec={"podSelector": {}})],
    }[kind]
    return st.sampled_from([*choices, gone(kind, choices[0].name, choices[0].namespace)])


objects = st.sampled_from(
    [
        *((kind, name, "shop") for kind in ("Pod", "Service", "EndpointSlice", "NetworkPolicy") for name in NAMES),
        ("Node", "n1", ""),
        ("Namespace", "shop", ""),
    ]
)
histories = st.lists(objects.flatmap(lambda choice: versions(*choice)), max_size=30)


def apply(state: dict[str, AnyReport], changes: dict[str, AnyReport | None]) -> None:
    for key, report in changes.items():
        if report is None:
            del state[key]
        else:
            state[key] = report


def permuted(history: Sequence[Fact], seed: int) -> list[Fact]:
    """*history* in another order that keeps each key's own."""
    lanes: dict[str, list[Fact]] = {}
    for fact in history:
        lanes.setdefault(fact.key, []).append(fact)
    chance, order = random.Random(seed), []
    while lanes:
        key = chance.choice(sorted(lanes))
        order.append(lanes[key].pop(0))
        if not lanes[key]:
            del lanes[key]
    return order


def newest(history: Sequence[Fact]) -> list[Fact]:
    return list({fact.key: fact for fact in history}.values())


@settings(deadline=None)
@given(histories, st.integers(0, 1000), st.lists(st.booleans(), min_size=30, max_size=30))
def test_permuted_squashed_repeated_and_split_histories_end_in_the_same_reports(history, seed, cuts):
    expected = settle(history)
    assert settle(permuted(history, seed)) == expected
    assert settle(newest(history)) == expected
    assert settle([fact for fact in history for _ in range(2)]) == expected

    fold, state = new(), {}
    for fact, cut in zip(history, cuts, strict=False):
        fold.fold([fact])
        if cut:
            fold.fold([])
            apply(state, fold.take_changes())
    apply(state, taken(fold))
    assert state == expected


@settings(deadline=None)
@given(histories, histories)
def test_whoever_takes_over_makes_what_was_published_into_what_should_be(before, after):
    published = settle(before)
    fold = new()
    fold.fold(before + after)
    taken(fold)
    fold.begin_again(published)
    changes = taken(fold)
    state = dict(published)
    apply(state, changes)
    assert state == settle(before + after)
    assert {key for key, report in changes.items() if report is None} == published.keys() - state.keys()


@settings(deadline=None)
@given(histories)
def test_building_up_and_tearing_down_leaves_nothing_and_what_changes_nothing_says_nothing(history):
    fold = new()
    fold.fold(history)
    taken(fold)
    fold.fold(newest(history))
    assert taken(fold) == {}

    fold.fold([Fact(fact.kind, fact.namespace, fact.name, fact.uid, None, 9) for fact in newest(history)])
    remaining = set(settle(history))
    for key, report in taken(fold).items():
        if report is None:
            remaining.discard(key)
    assert remaining == {"summary"}
