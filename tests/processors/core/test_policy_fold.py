"""What the fold says beside verdicts: modes, problems, who is touched, what stands when a policy breaks."""

from collections.abc import Iterable

import pytest

from processors.core.policy_fold import PolicySettings
from schemas.programs import Mode
from tests.processors.core.told import Told, changes, pod, policy
from tests.processors.core.worlds import Object, folded

UNREADABLE = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["x"]}]}}


# --- modes -----------------------------------------------------------------------------------------------------------


def test_an_idle_namespace_has_programs_that_program_nothing() -> None:
    told = Told(
        pod("a", "10.0.0.1", "quiet"),
        policy("p", {"podSelector": {}}, namespace="quiet"),
        settings=PolicySettings(namespace_modes={"qui*": Mode.IDLE}),
    )
    program = told.program("a")
    assert program.mode is Mode.IDLE
    assert program.ingress is None
    assert told.fold.policy().sets == {}
    assert told.fold.selecting("quiet", "a") == ("NetworkPolicy/quiet/p",)


def test_an_idle_pod_is_still_a_peer() -> None:
    peers = {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}
    told = Told(
        {"kind": "Namespace", "metadata": {"name": "quiet", "namespace": "", "uid": "q"}},
        pod("a", "10.0.0.1", "quiet"),
        pod("b", "10.0.0.2"),
        policy("p", peers),
        settings=PolicySettings(namespace_modes={"quiet": Mode.IDLE}),
    )
    assert set(told.fold.policy().sets.values()) == {frozenset({b"\x0a\x00\x00\x01"})}


def test_by_default_eastwests_own_namespace_is_idle_and_every_other_selective() -> None:
    settings = PolicySettings()
    assert settings.mode_of("eastwest") is Mode.IDLE
    assert settings.mode_of("shop") is Mode.SELECTIVE


def test_the_first_pattern_that_fits_counts() -> None:
    settings = PolicySettings(
        default_mode=Mode.IDLE, namespace_modes={"shop-1": Mode.IDLE, "shop-*": Mode.SELECTIVE, "*-1": Mode.IDLE}
    )
    assert [settings.mode_of(name) for name in ("shop-1", "shop-2", "bank-2")] == [
        Mode.IDLE,
        Mode.SELECTIVE,
        Mode.IDLE,
    ]


# --- programs --------------------------------------------------------------------------------------------------------


def test_a_program_says_by_which_addresses_the_sets_know_its_pod_and_nothing_else_of_it_changes_it() -> None:
    told = Told(pod("a", "10.0.0.1"))
    assert told.program("a").addresses == (b"\x0a\x00\x00\x01",)
    known = told.program("a")
    ready = pod("a", "10.0.0.1")
    ready["status"] = {**ready["status"], "conditions": [{"type": "Ready", "status": "True"}]}  # type: ignore[dict-item]
    step = told.play(told.writer.write(changes(ready)))
    assert not step.change, "what its status says besides is no reason to publish it"
    assert told.program("a") is known


def test_an_address_that_another_pod_still_owns_is_not_in_the_program_before_it_is_handed_over() -> None:
    starting = pod("b", "10.0.0.1")
    starting["status"] = {"phase": "Pending", "podIPs": [{"ip": "10.0.0.1"}]}
    told = Told(pod("a", "10.0.0.1"), starting)
    assert (told.program("a").addresses, told.program("b").addresses) == ((b"\x0a\x00\x00\x01",), ())
    told.untell("Pod/shop/a")
    assert told.program("b").addresses == (b"\x0a\x00\x00\x01",)


def test_a_pod_that_nothing_isolates_has_a_program_without_directions() -> None:
    program = Told(pod("a", "10.0.0.1")).program("a")
    assert (program.ingress, program.egress, program.mode) == (None, None, Mode.SELECTIVE)


def test_a_pod_has_its_program_before_it_has_an_address() -> None:
    waiting = pod("a", "10.0.0.1")
    waiting["status"] = {"phase": "Pending"}
    told = Told(waiting, policy("p", {"podSelector": {}}))
    program = told.program("a")
    assert program.ingress is not None
    assert told.tell(pod("a", "10.0.0.1")) == frozenset()
    assert told.program("a").ingress is program.ingress


def test_a_pod_that_is_not_bound_has_no_program() -> None:
    waiting = pod("a", "10.0.0.1")
    waiting["spec"]["nodeName"] = ""
    assert Told(waiting).fold.policy().programs == {}


def test_a_pod_of_the_same_name_and_another_uid_gets_another_program() -> None:
    told = Told(pod("a", "10.0.0.1"))
    again = pod("a", "10.0.0.1")
    again["metadata"]["uid"] = "other"
    told.tell(again)
    assert list(told.fold.policy().programs) == [("n1", "other")]


def test_rules_name_their_policy_and_stand_in_its_order() -> None:
    spec = {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}, {"ports": [{"port": 70}]}]}
    program = Told(pod("a", "10.0.0.1"), policy("b", spec), policy("a", spec)).program("a")
    assert program.ingress is not None
    assert program.ingress.isolating == ("NetworkPolicy/shop/a", "NetworkPolicy/shop/b")
    shown = [(rule.policy, *map(str, rule.ports or ())) for rule in program.ingress.rules]
    assert shown == [
        ("NetworkPolicy/shop/a", "80/TCP"),
        ("NetworkPolicy/shop/a", "70/TCP"),
        ("NetworkPolicy/shop/b", "80/TCP"),
        ("NetworkPolicy/shop/b", "70/TCP"),
    ]
    assert len({rule.id for rule in program.ingress.rules}) == 4


# --- who is touched --------------------------------------------------------------------------------------------------


def test_a_policy_touches_the_pods_that_it_selects_or_selected() -> None:
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    told = Told(pod("web", "10.0.0.1", app="web"), pod("db", "10.0.0.2", app="db"))
    assert told.told == {("shop", "web"), ("shop", "db")}
    assert told.tell(policy("p", web)) == {("shop", "web")}
    assert told.tell(policy("p", {**web, "ingress": [{}]})) == frozenset()
    assert told.tell(policy("p", {"podSelector": {}})) == {("shop", "db")}
    assert told.untell("NetworkPolicy/shop/p") == {("shop", "web"), ("shop", "db")}
    assert told.fold.selecting("shop", "web") == ()


def test_a_pod_that_goes_is_touched_once_more() -> None:
    told = Told(pod("a", "10.0.0.1"))
    assert told.untell("Pod/shop/a") == {("shop", "a")}
    assert told.fold.selecting("shop", "a") == ()


# --- problems --------------------------------------------------------------------------------------------------------


def test_a_problem_names_the_policy_the_place_and_the_reason() -> None:
    spec = {"podSelector": {}, "ingress": [{}, {"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]}
    (problem,) = Told(policy("p", spec)).fold.problems["NetworkPolicy/shop/p"]
    assert problem.startswith("spec.ingress[1].from[0].ipBlock.cidr: '10.0.0.0/99' is not a CIDR")


def test_a_mended_policy_has_no_problems() -> None:
    told = Told(policy("p", UNREADABLE))
    assert "NetworkPolicy/shop/p" in told.fold.problems
    told.tell(policy("p", {"podSelector": {}}))
    assert told.fold.problems == {}


def test_an_address_that_is_none_is_a_problem_of_its_pod() -> None:
    told = Told(pod("a", "10.0.0.999"), pod("b", "10.0.0.2"))
    assert list(told.fold.problems) == ["Pod/shop/a"]
    told.untell("Pod/shop/a")
    assert told.fold.problems == {}


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        "x",
        7,
        {"podSelector": 7},
        {"podSelector": {"matchLabels": {"a": 1}}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}},
    ],
)
def test_no_specification_stops_the_fold(spec: object) -> None:
    told = Told(pod("a", "10.0.0.1"), policy("bad", spec), policy("good", {"podSelector": {}}))
    assert "NetworkPolicy/shop/good" in told.fold.selecting("shop", "a")


def test_the_last_good_version_stands_and_is_said_to() -> None:
    told = Told(pod("a", "10.0.0.1"), policy("p", {"podSelector": {}}))
    before = told.fold.policy()
    told.tell(policy("p", UNREADABLE))
    assert told.fold.policy() == before
    assert "the last version that could be read stands" in told.fold.problems["NetworkPolicy/shop/p"][-1]


def test_what_stands_depends_on_the_newest_record_and_the_newest_good_one_of_a_key() -> None:
    good, better = policy("p", {"podSelector": {}, "ingress": [{}]}), policy("p", {"podSelector": {}})
    bad, worse = policy("p", UNREADABLE), policy("p", {"podSelector": "?"})
    it = pod("a", "10.0.0.1")
    whole = folded(changes(good, bad, it, better, worse, bad))
    assert whole == folded(changes(better, it, bad)) == folded(changes(it, better, bad))
    assert whole.programs["n1", "shop-a"].ingress is not None


def test_a_policy_of_the_same_name_and_another_uid_inherits_nothing() -> None:
    told = Told(pod("a", "10.0.0.1"), policy("p", {"podSelector": {}}), policy("p", UNREADABLE, uid="2"))
    assert told.fold.selecting("shop", "a") == ()
    assert "it selects nothing" in told.fold.problems["NetworkPolicy/shop/p"][-1]


def with_containers(**spec: object) -> Object:
    found = pod("web", "10.0.0.1")
    found["spec"] = {"nodeName": "n1", **spec}
    return found


def capable(*, add: Iterable[str] = (), drop: Iterable[str] = (), privileged: bool = False) -> Object:
    capabilities = {"add": list(add), "drop": list(drop)}
    return {"name": "c", "securityContext": {"privileged": privileged, "capabilities": capabilities}}


@pytest.mark.parametrize(
    ("spec", "advisory", "bypassable"),
    [
        ({"containers": [{"name": "c"}]}, False, True),  # runtimes grant NET_RAW by default
        ({"containers": [capable(drop=["ALL"])]}, False, False),
        ({"containers": [capable(drop=["net_raw"])]}, False, False),
        ({"containers": [capable(drop=["ALL"], add=["CAP_NET_RAW"])]}, False, True),
        ({"containers": [capable(drop=["ALL"], add=["NET_ADMIN"])]}, True, False),
        ({"containers": [capable(add=["ALL"])]}, True, True),
        ({"containers": [capable(drop=["ALL"], privileged=True)]}, True, True),
        ({"containers": [capable(drop=["ALL"])], "initContainers": [capable(privileged=True)]}, True, True),
        ({"containers": [capable(drop=["ALL"])], "ephemeralContainers": [capable(add=["NET_ADMIN"])]}, True, True),
    ],
)
def test_a_program_says_whether_the_pod_may_edit_or_evade_its_rules(spec, advisory, bypassable):
    (found,) = folded(changes(with_containers(**spec))).programs.values()
    assert (found.advisory, found.bypassable) == (advisory, bypassable)


def test_a_debug_container_with_more_rights_changes_the_program_of_its_pod():
    fold = Told(with_containers(containers=[capable(drop=["ALL"])]))
    assert not next(iter(fold.fold.policy().programs.values())).advisory
    debugged = with_containers(containers=[capable(drop=["ALL"])], ephemeralContainers=[capable(privileged=True)])

    fold.tell(debugged)

    assert next(iter(fold.fold.policy().programs.values())).advisory
