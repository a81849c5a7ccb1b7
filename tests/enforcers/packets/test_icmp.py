"""§2.6 by packets: echo follows the peers to whom some port is open; errors pass with the connection they are about."""

import socket

import pytest

from enforcers.core.layout import DEFAULT_MARK
from enforcers.kernel.connections import conntrack
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas import sets as members
from schemas.addresses import TCP, UDP
from schemas.programs import PortRange
from schemas.sets import SetKind, endpoint, set_id
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    DENY,
    World,
    address,
    both,
    enforced,
    eventually,
    isolated,
    packed,
    program,
    rule,
    sets,
)
from tests.enforcers.raw_packets import PORT_UNREACHABLE, TOO_BIG, error_about, heard, icmp_number, ping, raw_socket

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("family", [4, 6])]

UDP_53 = PortRange(UDP, 53, 53)
SMALL_MTU = 1400
OTHERS = set_id(SetKind.ADDRESSES, "others")
OPEN_TO_B = {"clients": both("a"), OTHERS: both("b")}
IP_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}
DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}


async def test_a_peer_to_whom_some_port_is_open_may_ask_whether_the_pod_lives_and_no_other(world, family):
    await enforced(world, ALLOW, sets(clients=both("a")))

    assert ping(world, "a", "web", family)
    assert not ping(world, "b", "web", family)
    assert ping(world, "node", "web", family)


async def test_whom_the_pod_may_reach_on_some_port_it_may_ask_and_no_other(world, family):
    await enforced(world, program(egress=isolated(rule(UDP_53))), sets(clients=both("a")))

    assert ping(world, "web", "a", family)
    assert not ping(world, "web", "b", family)


async def test_a_rule_without_ports_and_one_without_peers_cover_echo_too(world, family):
    wanted = program(ingress=isolated(rule()), egress=isolated(rule(UDP_53, peers=None)))
    await enforced(world, wanted, sets(clients=both("a")))

    assert ping(world, "a", "web", family)
    assert not ping(world, "b", "web", family)
    assert ping(world, "web", "b", family)


async def test_behind_a_named_port_only_who_has_a_port_of_that_name_may_be_asked(world, family):
    named = set_id(SetKind.TUPLES, "named")
    having = {endpoint(packed("a", each), TCP, 80) for each in (4, 6)}
    having |= {members.echo(packed("a", each)) for each in (4, 6)}
    await enforced(world, program(egress=isolated(rule(peers=(named,)))), sets(**{named: having}))

    assert ping(world, "web", "a", family)
    assert not ping(world, "web", "b", family)


async def test_where_nothing_is_open_nobody_is_answered_and_answers_to_the_pod_itself_come_in(world, family):
    await enforced(world, DENY, sets(clients=both("a")))

    assert not ping(world, "a", "web", family)
    assert ping(world, "web", "a", family)


def talking(world: World, family: int, port: int) -> socket.socket:
    """A UDP socket of the Pod's, connected to *port* of `a`, that has sent something."""
    made = world.open_socket("web", family, socket.SOCK_DGRAM)
    level, option = DISCOVER[family]
    made.setsockopt(level, option, 2)  # heed what is said of the path
    made.connect((address("a", family), port))
    try:
        made.send(b"first")
    except PermissionError:  # that is how a drop on the way out is told
        assert port == 81
    return made


def path_mtu(talk: socket.socket, family: int) -> int:
    return talk.getsockopt(*IP_MTU[family])


def tell_too_big(world: World, teller: str, talk: socket.socket, family: int) -> None:
    """*teller*, as a router on the way, says that what *talk* sends is too big."""
    flow = (*talk.getsockname()[:2], *talk.getpeername()[:2])
    router = raw_socket(world, teller, icmp_number(family), family)
    router.sendto(error_about(family, TOO_BIG[family], SMALL_MTU, flow), (address("web", family), 0))


async def test_a_router_that_no_rule_names_may_say_that_a_packet_of_an_allowed_connection_was_too_big(world, family):
    wanted = program(ingress=isolated(), egress=isolated(rule(PortRange(UDP, 80, 80))))
    await enforced(world, wanted, sets(clients=both("a")))
    world.open_socket("a", family, socket.SOCK_DGRAM).bind((address("a", family), 80))
    talk = talking(world, family, 80)

    tell_too_big(world, "b", talk, family)

    eventually("the path to be known as narrow", lambda: path_mtu(talk, family) == SMALL_MTU)


async def test_nobody_may_say_so_of_a_forbidden_one(world, family):
    wanted = program(ingress=isolated(), egress=isolated(rule(PortRange(UDP, 80, 80))))
    await enforced(world, wanted, sets(clients=both("a")))
    talk = talking(world, family, 81)

    tell_too_big(world, "b", talk, family)

    assert not ping(world, "b", "web", family)  # what was sent before has been looked at by now
    assert path_mtu(talk, family) == 1500


async def test_the_pod_may_say_of_an_allowed_connection_that_nobody_listens_and_of_no_other(world, family):
    wanted = program(ingress=isolated(rule(UDP_53)), egress=isolated())
    await enforced(world, wanted, sets(clients=both("a")))
    asked = {port: world.open_socket("a", family, socket.SOCK_DGRAM) for port in (53, 54)}
    for port, each in asked.items():
        each.connect((address("web", family), port))
        each.send(b"is anybody there")

    with pytest.raises(ConnectionRefusedError):
        asked[53].recv(16)
    with pytest.raises(TimeoutError):
        asked[54].recv(16)


async def test_an_error_from_someone_allowed_heals_no_connection_that_was_cut(world, family):
    """It travels in the connection's own direction, and rules would judge it by who sends it."""
    listener = world.listen("web", 80, family)
    everything = program(ingress=isolated(rule()))
    allowed = sets(clients=both("a", "b"))
    pod = await enforced(world, everything, allowed)
    client = world.connect("a", "web", 80, family)
    server = world.accept(listener)
    allowed[CLIENTS].change((), both("a"))
    await pod.realize(everything, allowed)
    await pod.audit()
    flow = (address("web", family), 80, address("a", family), client.getsockname()[1])

    for teller in ("b", "node"):
        router = raw_socket(world, teller, icmp_number(family), family)
        router.sendto(error_about(family, TOO_BIG[family], SMALL_MTU, flow, TCP), (address("web", family), 0))
    client.sendall(b"still here?")

    with pytest.raises(TimeoutError):
        server.recv(16)
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        assert [each for each in conntrack.marked(netlink, DEFAULT_MARK) if each.original.protocol == TCP] == []


async def test_an_error_about_nothing_passes_only_from_whom_everything_may_pass(world, family):
    await enforced(world, program(ingress=isolated(rule(UDP_53), rule(peers=(OTHERS,)))), sets(**OPEN_TO_B))
    hears = raw_socket(world, "web", icmp_number(family), family)
    flow = (address("web", family), 9, address("a", family), 9)

    for teller in ("a", "b"):
        router = raw_socket(world, teller, icmp_number(family), family)
        router.sendto(error_about(family, PORT_UNREACHABLE[family], 0, flow), (address("web", family), 0))

    errors = [each for each in heard(hears, family) if each[0] == PORT_UNREACHABLE[family][0]]
    assert len(errors) == 1  # b's
