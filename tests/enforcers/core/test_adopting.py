"""Who began a connection that was there before the rules, and what its entry has to become."""

import pytest

from enforcers.core.connections.adopting import Entry, Plan, Seen, anything, plan
from enforcers.core.connections.cutting import Judge
from enforcers.core.netlink.connections import Connection, Endpoints, Tracked
from enforcers.core.netlink.socket_diagnosis import Socket, SocketState
from schemas import addresses
from schemas.addresses import TCP, UDP
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, set_id

MARK = 1 << 28
PEERS = set_id(SetKind.ADDRESSES, "peers")
OWN, FRIEND, STRANGER, ELSEWHERE = (addresses.pack(f"10.0.0.{number}") for number in range(1, 5))
LOOPBACK = addresses.pack("127.0.0.1")
ISOLATED = Direction(isolating=("p",), rules=(Rule(id="r", policy="p", sets=(PEERS,)),))
PROGRAM = Program(uid="u", namespace="n", name="n", node="n", ingress=ISOLATED, egress=ISOLATED)
ADDRESSES = {OWN: True, ELSEWHERE: False}


def ends(
    local_port: int, remote_port: int, *, peer: bytes = FRIEND, own: bytes = OWN, protocol: int = TCP
) -> Endpoints:
    """From the Pod to its peer."""
    return Endpoints(own, peer, protocol, local_port, remote_port)


def entry(
    original: Endpoints, *, marked: bool = False, midway: bool = False, reply: Endpoints | None = None
) -> Connection:
    return Connection(original, reply or original.reverse, MARK if marked else 0, b"", midway)


def socket(going: Endpoints, state: SocketState = SocketState.ESTABLISHED) -> Socket:
    return Socket(going, state)


def receiver(port: int, protocol: int = TCP) -> Socket:
    state = SocketState.LISTENING if protocol == TCP else SocketState.CLOSED
    return Socket(Endpoints(bytes(4), bytes(4), protocol, port, 0), state)


def planned(sockets: list[Socket], entries: list[Connection] | None = None, on_node: Connection | None = None) -> Plan:
    judge = Judge(
        program=PROGRAM,
        own=ADDRESSES,
        members=lambda identity: {FRIEND} if identity == PEERS else set(),
        node=(),
        on_node=lambda asked: on_node if on_node and asked in (on_node.original, on_node.reply) else None,
    )
    return plan(Seen(entries or [], sockets, ADDRESSES), judge, MARK)


SERVING, CALLING = ends(80, 40000), ends(40000, 80)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(
    ("local_port", "remote_port", "receives", "came_in"),
    [
        (80, 40000, True, True),
        (40000, 41000, True, True),  # receives at a port that clients get
        (40000, 80, False, False),
        (40000, 41000, False, False),
        (80, 40000, False, True),  # has ceased to receive
        (700, 2049, False, False),  # a client that chose its port
    ],
)
def test_who_receives_at_a_port_was_called_there(protocol, local_port, remote_port, receives, came_in):
    going = ends(local_port, remote_port, protocol=protocol)
    sockets = [socket(going), *([receiver(local_port, protocol)] if receives else [])]
    (made,) = planned(sockets).make
    assert made.original == (going.reverse if came_in else going)
    assert made.state is (Tracked.ESTABLISHED if protocol == TCP else None)
    assert made.allowed


def test_the_node_knows_better_than_the_ports():
    saw = entry(SERVING)
    (made,) = planned([socket(SERVING)], on_node=saw).make
    assert made.original == SERVING

    met_midway = entry(SERVING, midway=True)
    (made,) = planned([socket(SERVING)], on_node=met_midway).make
    assert made.original == SERVING.reverse


def test_an_entry_that_saw_the_beginning_is_believed_and_marked():
    right = entry(SERVING)
    assert planned([socket(SERVING), receiver(80)], [right]) == Plan([], [], [right], [], [], [])


def test_an_entry_that_was_met_midway_is_turned_round():
    wrong = entry(SERVING, midway=True, marked=True)
    assert planned([socket(SERVING), receiver(80)], [wrong]).make == [
        Entry(SERVING.reverse, Tracked.ESTABLISHED, allowed=True, instead_of=wrong)
    ]


def test_what_is_not_allowed_gets_an_entry_too_or_the_next_push_would_make_one_the_wrong_way_round():
    going = ends(80, 40000, peer=STRANGER)
    found = planned([socket(going), receiver(80)])
    assert found.make == [Entry(going.reverse, Tracked.ESTABLISHED, allowed=False)]
    assert [cut.connection.original for cut in found.cuts] == [going.reverse]


def test_what_is_only_beginning_is_not_called_cut():
    going = ends(40000, 80, peer=STRANGER)
    found = planned([socket(going, SocketState.SYN_SENT)])
    assert found.make == [Entry(going, Tracked.SYN_SENT, allowed=False)]
    assert found.cuts == []


def test_a_mark_that_nothing_allows_goes():
    going = ends(40000, 80, peer=STRANGER)
    marked = entry(going, marked=True)
    assert planned([socket(going)], [marked]).unmark == [marked]


def test_a_plan_that_was_carried_out_leaves_nothing_to_do():
    sockets = [socket(SERVING), socket(ends(40000, 80, peer=STRANGER)), receiver(80)]
    done = [
        entry(each.original, marked=each.allowed, midway=True)  # as the kernel tells of what was made by hand
        for each in planned(sockets).make
    ]
    assert not planned(sockets, done)


def test_an_entry_without_its_socket_is_of_a_connection_that_is_over():
    assert planned([receiver(80)], [entry(SERVING)]).over == [entry(SERVING)]
    closing = socket(SERVING, SocketState.TIME_WAIT)
    assert not planned([closing], [entry(SERVING, marked=True)])


def test_what_is_forwarded_or_translated_stays_as_the_table_has_it():
    forwarded = entry(Endpoints(STRANGER, FRIEND, TCP, 40000, 80))
    redirected = entry(SERVING.reverse, reply=ends(15006, 40000))
    found = planned([], [forwarded, redirected])
    assert (found.over, found.mark) == ([], [forwarded, redirected])


def test_the_socket_behind_a_redirect_belongs_to_the_entry_that_redirects_to_it():
    redirected = entry(SERVING.reverse, reply=ends(15006, 40000))
    found = planned([socket(ends(15006, 40000)), receiver(15006)], [redirected])
    assert (found.mark, found.make) == ([redirected], [])


def test_datagrams_of_an_unconnected_socket_stay_as_the_table_has_them_unless_the_node_saw_who_began():
    spoke_first = ends(53, 40000, protocol=UDP)
    wrong = entry(spoke_first)
    assert planned([receiver(53, UDP)], [wrong]).mark == [wrong]
    assert planned([receiver(53, UDP)], [wrong], on_node=entry(spoke_first.reverse)).make == [
        Entry(spoke_first.reverse, None, allowed=True, instead_of=wrong)
    ]


@pytest.mark.parametrize(
    "apart",
    [
        ends(40000, 80, own=LOOPBACK, peer=LOOPBACK),
        ends(40000, 80, peer=OWN),
        ends(40000, 80, own=ELSEWHERE),
        ends(40000, 15001, peer=LOOPBACK),
    ],
)
def test_what_never_passes_the_pods_interface_is_nobodys_business(apart):
    assert not planned([socket(apart)], [entry(apart, marked=True)])
    assert not anything(Seen([], [socket(apart)], ADDRESSES))


def test_only_who_is_connected_makes_a_pod_a_running_one():
    assert not anything(Seen([], [receiver(80), receiver(53, UDP)], ADDRESSES))
    assert anything(Seen([], [receiver(80), socket(SERVING)], ADDRESSES))
    assert anything(Seen([entry(SERVING)], [], ADDRESSES))
