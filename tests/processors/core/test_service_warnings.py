"""What the fold says of Services beside verdicts: who lacks what, who is exposed, whether the own node counts."""

import pytest

from processors.core.policy_fold import PartialService, PolicySettings
from tests.processors.core.told import Told, changes, node_at, pod, policy, service
from tests.processors.core.worlds import Object

TO_DB = {
    "podSelector": {"matchLabels": {"app": "web"}},
    "policyTypes": ["Egress"],
    "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
}
WORLD = [pod("web", "10.0.0.1", app="web"), pod("db", "10.0.0.2", app="db"), pod("x", "10.0.0.3"), policy("p", TO_DB)]


def test_a_partly_allowed_service_is_shut_and_says_what_it_lacks() -> None:
    told = Told(*WORLD, *service(["10.0.0.2", "10.0.0.3"]))
    (warning,) = told.fold.warnings["Service/shop/web"]
    assert warning == (
        "partial service: 80/TCP IPv4 for Pods isolated by NetworkPolicy/shop/p: not allowed: shop/x (10.0.0.3)"
    )
    assert not any(members for identity, members in told.fold.policy().sets.items() if identity in allowed(told))
    told.tell(service(["10.0.0.2"])[1])
    assert told.fold.warnings == {}


def test_a_partly_allowed_service_opens_where_the_setting_says_so_and_still_warns() -> None:
    told = Told(
        *WORLD, *service(["10.0.0.2", "10.0.0.3"]), settings=PolicySettings(partial_service=PartialService.ALLOW)
    )
    assert "10.0.0.3" in told.fold.warnings["Service/shop/web"][0]
    assert all(members for identity, members in told.fold.policy().sets.items() if identity in allowed(told))


def test_a_service_that_is_allowed_to_nobody_is_no_partial_one() -> None:
    assert Told(*WORLD, *service(["10.0.0.3"])).fold.warnings == {}


def test_where_a_node_may_use_fewer_endpoints_a_partly_allowed_service_says_that_all_were_judged() -> None:
    """It matters nowhere else: of endpoints that are all allowed, or none, so are any."""
    said = "judged over the endpoints of all nodes"
    front, behind = service(["10.0.0.2", "10.0.0.3"], internalTrafficPolicy="Local")
    behind["endpoints"][0]["hints"] = {"forZones": [{"name": "west"}]}
    told = Told(*WORLD, front, behind)
    (warning,) = told.fold.warnings["Service/shop/web"]
    assert warning.endswith(
        f"shop/x (10.0.0.3) (internalTrafficPolicy is Local: {said}) (its endpoints have topology hints: {said})"
    )
    told.tell(service(["10.0.0.2"])[1])
    assert told.fold.warnings == {}


def test_what_a_service_lacks_is_named_by_who_it_is() -> None:
    node = node_at("n1", "172.18.0.2")
    told = Told(*WORLD, node, *service(["10.0.0.2", "10.0.0.3", "172.18.0.2", "192.0.2.1"]))
    (warning,) = told.fold.warnings["Service/shop/web"]
    assert warning.endswith("not allowed: shop/x (10.0.0.3), node n1 (172.18.0.2), 192.0.2.1")


def test_a_warning_names_some_of_many() -> None:
    told = Told(*WORLD, *service(["10.0.0.2", *(f"192.0.2.{number}" for number in range(1, 100))]))
    (warning,) = told.fold.warnings["Service/shop/web"]
    assert warning.endswith("192.0.2.20 and 79 more")


def test_a_step_says_whether_what_is_lacked_has_changed() -> None:
    told = Told(*WORLD, *service(["10.0.0.2", "10.0.0.3"]))
    moved = pod("x", "10.0.0.3", app="db")
    assert told.play(told.writer.write(changes(moved))).noticed
    assert not told.play(told.writer.write(changes(pod("y", "10.0.0.9")))).noticed
    assert told.play(told.writer.write(changes(pod("x", "10.0.0.3")))).noticed
    assert told.play(told.writer.write([("NetworkPolicy/shop/p", None)])).noticed
    assert told.fold.warnings == {}


PUBLISHED = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
ISOLATED = policy("in", {"podSelector": {"matchLabels": {"app": "web"}}})


@pytest.mark.parametrize("front", [PUBLISHED, {"externalIPs": ["203.0.113.1"]}])
def test_an_isolated_pod_behind_a_node_port_is_said_to_be_exposed_through_the_node(front: Object) -> None:
    told = Told(*WORLD, *service(["10.0.0.1", "10.0.0.3"], **front), ISOLATED)
    (warning,) = told.fold.warnings["Service/shop/web"]
    assert warning.startswith("exposed through node: ")
    assert "shop/web" in warning
    assert "shop/x" not in warning
    assert "other nodes' addresses are blocked" in warning
    assert told.fold.exposing("shop", "web") == ("shop/web",)
    assert told.fold.exposing("shop", "x") == ()


@pytest.mark.parametrize("front", [{**PUBLISHED, "externalTrafficPolicy": "Local"}, {}])
def test_where_clients_keep_their_address_no_pod_is_exposed_through_the_node(front: Object) -> None:
    told = Told(*WORLD, *service(["10.0.0.1"], **front), ISOLATED)
    assert told.fold.warnings == {}
    assert told.fold.exposing("shop", "web") == ()


def test_a_pod_is_touched_when_it_becomes_exposed_and_when_it_ends() -> None:
    told = Told(*WORLD, *service(["10.0.0.1"]), ISOLATED)
    web = frozenset([("shop", "web")])
    assert told.tell(service([], **PUBLISHED)[0]) == web
    assert told.tell(service([])[1]) == web
    assert told.tell(service(["10.0.0.1", "10.0.0.3"])[1]) == web
    assert told.tell(pod("web", "10.0.0.9", app="web")) == web  # its address is nobody's
    assert told.tell(pod("web2", "10.0.0.1", app="web")) == {("shop", "web2")}
    assert told.fold.exposing("shop", "web2") == ("shop/web",)
    assert told.untell("NetworkPolicy/shop/in") >= {("shop", "web2")}
    assert told.fold.exposing("shop", "web2") == ()


# --- the own node ----------------------------------------------------------------------------------------------------


def test_whether_the_own_node_may_be_reached_is_in_the_programs() -> None:
    for allowed_egress in (True, False):
        told = Told(*WORLD, settings=PolicySettings(allow_own_node_egress=allowed_egress))
        egress = told.program("web").egress
        assert egress is not None
        assert egress.own_node is allowed_egress


def test_an_endpoint_on_the_own_node_opens_a_service_only_where_the_own_node_may_be_reached() -> None:
    node = node_at("n1", "172.18.0.2")
    for allowed_egress in (True, False):
        told = Told(
            *WORLD, node, *service(["172.18.0.2"]), settings=PolicySettings(allow_own_node_egress=allowed_egress)
        )
        members = [told.fold.policy().sets[identity] for identity in allowed(told)]
        assert any(members) is allowed_egress


def test_an_endpoint_that_becomes_the_own_node_opens_its_service_until_it_is_another_nodes() -> None:
    told = Told(*WORLD, node_at("n1", "172.18.0.2"), *service(["172.18.0.9"]))
    opened = []
    for own, other in ((["172.18.0.2"], []), (["172.18.0.2", "172.18.0.9"], []), (["172.18.0.2"], ["172.18.0.9"])):
        told.tell(node_at("n1", *own), node_at("n2", *other))
        opened.append(any(told.fold.policy().sets[identity] for identity in allowed(told)))
    assert opened == [False, True, False]


def allowed(told: Told) -> tuple[str, ...]:
    egress = told.program("web").egress
    assert egress is not None
    assert egress.virtual is not None
    return egress.virtual.allowed
