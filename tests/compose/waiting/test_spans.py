"""Where a change has to be realized, and whether it is: by what is published and what was said."""

import ipaddress
from typing import Any

import msgspec
import pytest

from compose.waiting.changes import Changed
from compose.waiting.judging import Finding, find
from compose.waiting.spans import Span, span_of
from schemas.addresses import TCP, pack
from schemas.objects import Meta, NetworkPolicy, Pod, Service
from schemas.policy import Policy
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, block, endpoint, set_id
from schemas.status import Component, CvenStatus, PodException
from streams.channels.status import Heard, Place
from tests.processors.histories import allow, pod

PEERS, TUPLES, BLOCKS, OTHERS = (
    set_id(kind, name)
    for kind, name in ((SetKind.ADDRESSES, "a"), (SetKind.TUPLES, "t"), (SetKind.BLOCKS, "b"), (SetKind.ADDRESSES, "o"))
)
WEB = "10.0.0.1"
KEY = "Pod/shop/web"
NOW = 1_000_000.0


def program(uid: str, node: str, *sets: str, policy: str = "NetworkPolicy/shop/web", mirror: str = "") -> Program:
    rules = (Rule(id=f"r-{uid}", policy=policy, sets=sets),) if sets else ()
    side = Direction(isolating=(policy,), rules=rules)
    return Program(uid=uid, namespace="shop", name=uid, node=node, mirror=mirror, ingress=side)


SETS = {
    PEERS: frozenset({pack(WEB)}),
    TUPLES: frozenset({endpoint(pack(WEB), TCP, 80)}),
    BLOCKS: frozenset({block(ipaddress.ip_network("10.0.0.0/24"))}),  # type: ignore[arg-type]
    OTHERS: frozenset({pack("10.0.0.9")}),
}


def policy_of(*programs: Program) -> Policy:
    return Policy(programs={(one.node, one.uid): one for one in programs}, sets=SETS)


def a_pod(address: str = WEB, **more: Any) -> Pod:
    return msgspec.convert(pod("web", address, **more), Pod)


def a_policy(peer: str = "client") -> NetworkPolicy:
    body = msgspec.json.encode(allow("web", {"app": "web"}, {"app": peer}))
    return msgspec.json.decode(body, type=NetworkPolicy)


def changed(now: Any, *before: Any, key: str = KEY) -> Changed:
    return Changed(key=key, revision=7, object=now, before=before)


def nodes_of(span: Span) -> set[str] | None:
    return None if span.nodes is None else set(span.nodes)


def test_a_pod_concerns_its_own_node_and_those_with_rules_about_its_addresses_of_any_kind():
    policy = policy_of(
        program("uid-web", "n1"),
        program("p2", "n2", PEERS),
        program("p3", "n3", TUPLES),
        program("p4", "n4", BLOCKS, mirror="runtime-4"),
        program("p5", "n5", OTHERS),
        program("p6", "n4"),
    )
    web = a_pod()
    span = span_of(changed(web, msgspec.structs.replace(web, status=type(web.status)(phase="Pending"))), policy)
    assert nodes_of(span) == {"n1", "n2", "n3", "n4"}
    assert span.about("n4", "p4")
    assert span.about("n4", "runtime-4"), "an exception names a static Pod as its runtime does"
    assert not span.about("n4", "p6")


@pytest.mark.parametrize(
    "before", [a_pod(app="other"), a_pod("10.0.0.8"), None], ids=["relabelled", "another address", "made anew"]
)
def test_a_pod_that_was_another_before_concerns_every_node_since_somebody_must_forget_it(before: Pod | None):
    assert nodes_of(span_of(changed(a_pod(app="web"), before), policy_of())) is None


def test_a_policy_concerns_the_nodes_whose_programs_name_it_and_every_node_once_it_was_changed():
    key = "NetworkPolicy/shop/web"
    policy = policy_of(program("p1", "n1"), program("p2", "n2", policy="NetworkPolicy/shop/other"))
    assert nodes_of(span_of(changed(a_policy(), a_policy(), key=key), policy)) == {"n1"}
    assert nodes_of(span_of(changed(a_policy(), a_policy("else"), key=key), policy)) is None


@pytest.mark.parametrize("now", [None, Service(metadata=Meta(name="web"))], ids=["deleted", "of another kind"])
def test_everything_else_concerns_every_node(now: Service | None):
    assert nodes_of(span_of(changed(now), policy_of())) is None


def heard(*words: CvenStatus, age: float = 0.0) -> dict[Place, Heard]:
    return {(Component.CVEN, each.node): Heard(each, NOW - age) for each in words}


def said(node: str, realized: int, **more: Any) -> CvenStatus:
    return CvenStatus(node=node, heartbeat="", realized=realized, **more)


EVERYWHERE = Span(reason="everywhere")


def found(span: Span, said: dict[Place, Heard], published: int = 7) -> Finding:
    return find(span, 7, published, said, NOW)


def test_it_is_realized_once_every_node_online_has_it_and_it_is_published():
    assert found(EVERYWHERE, heard(said("n1", 7), said("n2", 9))).realized
    assert not found(EVERYWHERE, heard(said("n1", 7), said("n2", 6))).realized
    assert not found(EVERYWHERE, heard(said("n1", 7)), published=6).realized


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (said("n1", 4), "lags by 3 revisions"),
        (said("n1", -1, from_disk=True), "enforces from disk: it has not heard from NATS since its start"),
        (said("n1", 9, observing=True), "observes: it programs nothing"),
        (said("n1", 4, paused=True), "paused: it writes nothing"),
        (said("n1", 7, exceptions=(PodException(uid="u", namespace="s", name="p", reason="no"),)), "not s/p: no"),
    ],
)
def test_whoever_has_not_realized_it_holds_it_up_and_says_why(word: CvenStatus, why: str):
    finding = found(EVERYWHERE, heard(word))
    assert not finding.realized
    assert why in finding.nodes[0].why


def test_an_exception_counts_only_where_the_change_is_about_its_pod():
    word = said("n1", 7, exceptions=(PodException(uid="other", namespace="s", name="other", reason="no"),))
    assert found(Span(nodes={"n1": frozenset({"mine"})}, reason=""), heard(word)).realized
    assert not found(Span(nodes={"n1": frozenset({"other"})}, reason=""), heard(word)).realized


def test_a_node_that_is_offline_is_listed_and_not_waited_for_unless_nobody_else_is_there():
    both = heard(said("n1", 7)) | heard(said("n2", 3), age=61.0)
    finding = found(EVERYWHERE, both)
    assert finding.realized
    assert [(each.node, each.waited_for) for each in finding.nodes] == [("n1", True), ("n2", False)]
    assert not found(EVERYWHERE, heard(said("n2", 3), age=61.0)).realized
    assert not found(Span(nodes={"n9": frozenset()}, reason=""), both).realized, "no enforcer was ever heard there"
    assert not found(EVERYWHERE, {}).realized


def test_what_no_node_has_to_realize_is_realized_once_it_is_published():
    assert found(Span(nodes={}, reason=""), {}).realized
    assert not found(Span(nodes={}, reason=""), {}, published=6).realized
