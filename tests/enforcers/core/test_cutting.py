"""Which established connections end, and which patches ask for that question at all."""

import pytest

from enforcers.core.connections.cutting import Judge, may_tighten, no_longer_allowed
from enforcers.core.difference import Membership, Patch
from enforcers.core.netlink.connections import Connection, Endpoints
from schemas import addresses
from schemas.addresses import TCP
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.sets import SetKind, endpoint, set_id
from schemas.verdict import Reason

PEERS = set_id(SetKind.ADDRESSES, "peers")
BLOCKS = set_id(SetKind.BLOCKS, "blocks")
VIRTUAL = Virtual(
    addresses=set_id(SetKind.ADDRESSES, "vip"),
    ports=set_id(SetKind.TUPLES, "vip"),
    allowed=(set_id(SetKind.TUPLES, "v"),),
)
OWN, ALLOWED, OTHER, SERVICE, NODE = (addresses.pack(f"10.0.0.{number}") for number in range(1, 6))
ISOLATED = Direction(
    isolating=("p",),
    rules=(Rule(id="r", policy="p", sets=(PEERS,), ports=(PortRange(TCP, 8080, 8080),)),),
    virtual=VIRTUAL,
)
PROGRAM = Program(uid="u", namespace="n", name="n", node="n", ingress=ISOLATED, egress=ISOLATED)
NODE_PORT = 30080
MEMBERS = {PEERS: {ALLOWED}, VIRTUAL.addresses: {SERVICE}, VIRTUAL.ports: {endpoint(bytes(4), TCP, NODE_PORT)}}


def connection(source: bytes, destination: bytes, port: int = 8080) -> Connection:
    original = Endpoints(source, destination, TCP, 40000, port)
    return Connection(original, Endpoints(destination, source, TCP, port, 40000), 1 << 28, b"")


def judged(each: Connection, on_node: Connection | None = None) -> tuple[list[Reason], int]:
    judge = Judge(
        program=PROGRAM,
        own={OWN},
        members=lambda identity: MEMBERS.get(identity, set()),
        node={NODE},
        on_node=lambda _: on_node,
    )
    cuts, unknown = no_longer_allowed([each], judge, most=1)
    return [cut.judgement.reason for cut in cuts], unknown


@pytest.mark.parametrize(
    ("source", "destination", "port", "cut"),
    [
        (ALLOWED, OWN, 8080, False),
        (ALLOWED, OWN, 81, True),
        (OTHER, OWN, 8080, True),
        (NODE, OWN, 81, False),
        (OWN, ALLOWED, 8080, False),
        (OWN, OTHER, 8080, True),
        (OWN, NODE, 81, False),
        (OWN, OWN, 81, False),
    ],
)
def test_a_connection_is_judged_in_the_direction_in_which_it_began(source, destination, port, cut):
    reasons, unknown = judged(connection(source, destination, port))
    assert (bool(reasons), unknown) == (cut, 0)


@pytest.mark.parametrize("front", [(SERVICE, 80), (NODE, NODE_PORT)])
def test_a_connection_to_a_service_is_judged_by_the_endpoint_that_the_node_sent_it_to(front):
    each = connection(OWN, *front)

    def sent_to(endpoint: bytes) -> Connection:
        return Connection(each.original, Endpoints(endpoint, OWN, TCP, 8080, 40000), 0, b"")

    assert judged(each, sent_to(ALLOWED)) == ([], 0)
    assert judged(each, sent_to(NODE)) == ([], 0)
    assert judged(each, sent_to(OTHER)) == ([Reason.NO_RULE], 0)
    assert judged(each, sent_to(OWN)) == ([], 0)
    assert judged(each) == ([], 1)  # unknown: kept, and told
    assert judged(each, connection(OWN, SERVICE, 80)) == ([], 1)  # the node sees it, and does not translate it


def test_a_connection_to_a_service_that_is_open_goes_on_wherever_it_was_sent(monkeypatch):
    monkeypatch.setitem(MEMBERS, VIRTUAL.allowed[0], {endpoint(SERVICE, TCP, 80)})
    each = connection(OWN, SERVICE, 80)
    assert judged(each, Connection(each.original, Endpoints(OTHER, OWN, TCP, 8080, 40000), 0, b"")) == ([], 0)


def test_what_the_pod_itself_translates_on_its_way_out_is_judged_as_it_leaves():
    asked = Endpoints(OWN, ALLOWED, TCP, 40000, 8080)
    answered = Endpoints(OTHER, OWN, TCP, 8080, 40000)
    assert judged(Connection(asked, answered, 1 << 28, b"")) == ([Reason.NO_RULE], 0)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (Patch(gain=(Membership(PEERS, 4, added=(OTHER,)),)), False),
        (Patch(lose=(Membership(PEERS, 4, removed=(OTHER,)),)), True),
        (Patch(release=(Membership(PEERS, 4, removed=(OTHER,)),)), True),
        (Patch(gain=(Membership(BLOCKS, 4, added=(OTHER + b"\x20\1",)),)), True),
        (Patch(gain=(Membership(VIRTUAL.addresses, 4, added=(OTHER,)),)), True),
        (Patch(gain=(Membership(VIRTUAL.allowed[0], 4, added=(OTHER + b"\6\0\x50",)),)), False),
        (Patch(tables={4: "*mangle"}), True),
    ],
)
def test_only_what_may_forbid_something_asks_for_an_audit(patch, expected):
    assert may_tighten(patch, PROGRAM) is expected
