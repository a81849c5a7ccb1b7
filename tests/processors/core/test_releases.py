"""Which addresses a batch says were given up: those of which another Pod, or none, is the owner now."""

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.policy import Policy, PolicyChange
from tests.processors.core.told import Told, changes, pod, policy
from tests.processors.core.worlds import Change, Object, Player, Writer, histories

ADDRESS = "10.0.0.1"
IT = b"\x0a\x00\x00\x01"
WEB, DB = ({"podSelector": {"matchLabels": {"app": app}}} for app in ("web", "db"))
POLICIES = (  # a set of all that is called web, one of all that is called db
    policy("from-web", {**WEB, "ingress": [{"from": [WEB]}]}),
    policy("from-db", {**WEB, "ingress": [{"from": [DB]}]}),
)


def told(*more: Object) -> Told:
    return Told(*POLICIES, pod("subject", "10.0.0.9", app="web"), *more)


def change(told: Told, *found: Change) -> PolicyChange:
    return told.play(told.writer.write(found)).change


def lost(change: PolicyChange) -> set[bytes]:
    return {member for each in change.sets for member in each.removed}


def gone(name: str) -> Change:
    return f"Pod/shop/{name}", None


def test_a_relabelled_pod_gives_nothing_up():
    moved = change(told(pod("a", ADDRESS, app="web")), *changes(pod("a", ADDRESS, app="db")))
    assert lost(moved) == {IT}
    assert moved.released == frozenset()


def test_a_policy_or_a_namespace_that_no_longer_selects_a_pod_releases_nothing():
    teams = {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}}]}
    space = {"kind": "Namespace", "metadata": {"name": "shop", "namespace": "", "uid": "s", "labels": {"team": "a"}}}
    world = told(space, pod("a", ADDRESS, app="db"), policy("from-team", {**WEB, "ingress": [teams]}))

    left = change(world, *changes({**space, "metadata": {**space["metadata"], "labels": {"team": "b"}}}))
    assert IT in lost(left)
    assert left.released == frozenset()
    assert change(world, ("NetworkPolicy/shop/from-db", None)).released == frozenset()


def test_a_pod_that_goes_gives_up_its_addresses():
    went = change(told(pod("a", ADDRESS, app="web")), gone("a"))
    assert lost(went) == went.released == {IT}


def test_a_pod_that_has_finished_gives_up_its_addresses():
    finished = pod("a", ADDRESS, app="web")
    finished["status"]["phase"] = "Succeeded"
    assert change(told(pod("a", ADDRESS, app="web")), *changes(finished)).released == {IT}


def test_a_pod_that_has_another_address_gave_up_the_one_before():
    assert change(told(pod("a", ADDRESS, app="web")), *changes(pod("a", "10.0.0.2", app="web"))).released == {IT}


@pytest.mark.parametrize(
    "batch",
    [
        [gone("a"), *changes(pod("b", ADDRESS, app="db"))],
        [*changes(pod("b", ADDRESS, app="db")), gone("a")],
        [*changes(pod("a", ADDRESS, app="none")), gone("a"), *changes(pod("b", ADDRESS, app="db"))],
    ],
    ids=["first goes", "both claim it", "relabelled before"],
)
def test_an_address_that_changes_hands_in_one_batch_is_released(batch):
    handed = change(told(pod("a", ADDRESS, app="web")), *batch)
    assert lost(handed) == handed.released == {IT}
    assert any(IT in each.added for each in handed.sets)


def test_an_address_that_its_next_owner_keeps_in_a_set_does_not_leave_it():
    handed = change(told(pod("a", ADDRESS, app="web")), gone("a"), *changes(pod("b", ADDRESS, app="web")))
    assert handed.sets == ()


def test_a_pod_of_the_same_name_and_another_uid_is_another_owner():
    again = pod("a", ADDRESS, app="db")
    again["metadata"]["uid"] = "other"
    assert change(told(pod("a", ADDRESS, app="web")), *changes(again)).released == {IT}


def test_an_address_that_comes_back_within_a_batch_was_not_given_up():
    world = told(pod("a", ADDRESS, app="web"))
    back = change(world, gone("a"), *changes(pod("a", ADDRESS, app="db")))
    assert lost(back) == {IT}
    assert back.released == frozenset()


def owners(policy: Policy) -> dict[bytes, str]:
    """Who owns which address, of the Pods that are bound to a node: programs say so."""
    return {address: program.uid for program in policy.programs.values() for address in program.addresses}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories(), st.integers(1, 4))
def test_what_is_released_is_what_has_another_owner(history: list[Change], size: int) -> None:
    writer, player = Writer(), Player()
    player.play(writer.opening())
    for start in range(0, len(history), size):
        before = owners(player.fold.policy())
        released = player.play(writer.write(bound(history[start : start + size]))).change.released
        after = owners(player.fold.policy())
        assert {address for address in before if after.get(address) != before[address]} == released & before.keys()


def bound(history: Iterable[Change]) -> list[Change]:
    """With every Pod on a node."""
    found = list(history)
    for _, each in found:
        if each is not None and each["kind"] == "Pod":
            each["spec"]["nodeName"] = "n1"
    return found
