"""What the fold says beside verdicts: modes, problems, warnings, who is touched, what stands when a policy breaks."""

from collections.abc import Iterable

import pytest

from processors.core.policy_fold import PartialService, PolicySettings
from schemas.programs import Mode, Program
from tests.processors.core.worlds import Change, Object, Player, Writer, folded, key_of

UNREADABLE = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["x"]}]}}


def pod(name: str, address: str, namespace: str = "shop", **labels: str) -> Object:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


def policy(name: str, spec: object, uid: str = "1", namespace: str = "shop") -> Object:
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace, "uid": uid}, "spec": spec}


def service(endpoints: Iterable[str], **spec: object) -> list[Object]:
    labels = {"kubernetes.io/service-name": "web"}
    return [
        {
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop", "uid": "web"},
            "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}], **spec},
        },
        {
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "web-1", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in endpoints],
            "ports": [{"port": 80}],
        },
    ]


def changes(*objects: Object) -> list[Change]:
    return [(key_of(found), found) for found in objects]


class Told(Player):
    """A fold that is told objects one batch at a time."""

    def __init__(self, *objects: Object, settings: PolicySettings | None = None) -> None:
        super().__init__(settings or PolicySettings())
        self.writer = Writer()
        self.play(self.writer.opening())
        self.told = self.tell(*objects)

    def tell(self, *objects: Object) -> frozenset[tuple[str, str]]:
        """Returns who was touched."""
        return self.play(self.writer.write(changes(*objects))).touched

    def untell(self, *keys: str) -> frozenset[tuple[str, str]]:
        return self.play(self.writer.write([(key, None) for key in keys])).touched

    def program(self, name: str) -> Program:
        (found,) = (program for program in self.fold.policy().programs.values() if program.name == name)
        return found


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


# --- warnings --------------------------------------------------------------------------------------------------------

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
    node = {
        "kind": "Node",
        "metadata": {"name": "n1", "namespace": "", "uid": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    }
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
    node = {
        "kind": "Node",
        "metadata": {"name": "n1", "namespace": "", "uid": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    }
    for allowed_egress in (True, False):
        told = Told(
            *WORLD, node, *service(["172.18.0.2"]), settings=PolicySettings(allow_own_node_egress=allowed_egress)
        )
        members = [told.fold.policy().sets[identity] for identity in allowed(told)]
        assert any(members) is allowed_egress


def allowed(told: Told) -> tuple[str, ...]:
    egress = told.program("web").egress
    assert egress is not None
    assert egress.virtual is not None
    return egress.virtual.allowed


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
