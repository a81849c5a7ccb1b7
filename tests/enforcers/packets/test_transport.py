"""§2.5, §2.6 and §4.6 by odd packets: whatever a transport does, who may connect is decided alike."""

import contextlib
import select
import socket
import struct

import pytest

from compose.lab.talk import sctp
from schemas.addresses import SCTP, TCP, UDP
from schemas.programs import PortRange
from schemas.sets import SetKind, endpoint, set_id
from tests.enforcers.pod_world import (
    ALLOW,
    DENY,
    PORT_80,
    World,
    address,
    both,
    enforced,
    isolated,
    packed,
    program,
    rule,
    sets,
)
from tests.enforcers.raw_packets import heard, initiate, raw_socket

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("family", [4, 6])]

UDP_53 = PortRange(UDP, 53, 53)
SYN_HAD_DATA = 32
"""TCPI_OPT_SYN_DATA."""
TCP_REPAIR = 19
PADDING = {
    4: (socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x01"),
    6: (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\0\0\x01\x04\0\0\0\0"),
}
"""Options that say nothing and lie between the address and the port."""
EXPERIMENT = 253
"""A protocol that has no ports (RFC 3692)."""


def udp_server(world: World, name: str, port: int, family: int) -> socket.socket:
    made = world.open_socket(name, family, socket.SOCK_DGRAM)
    made.bind((address(name, family), port))
    return made


def received(server: socket.socket) -> list[bytes]:
    """Everything until nothing has come for the time of a drop."""
    found: list[bytes] = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(server.recv(1 << 16))
    return found


async def test_what_comes_in_fragments_is_judged_whole(world, family):
    server = udp_server(world, "web", 53, family)
    await enforced(world, program(ingress=isolated(rule(UDP_53)), egress=isolated()), sets(clients=both("a")))

    for name in ("b", "a"):
        world.open_socket(name, family, socket.SOCK_DGRAM).sendto(name.encode() * 5000, (address("web", family), 53))

    assert received(server) == [b"a" * 5000]


async def test_a_packet_of_nine_thousand_bytes_is_as_good_as_a_short_one(world, family):
    for name, link in (("node", "br0"), *(("node", f"to-{each}") for each in ("web", "a", "b"))):
        world.command(name, "ip", "link", "set", link, "mtu", "9000")
    for name in ("web", "a", "b"):
        world.command(name, "ip", "link", "set", "eth0", "mtu", "9000")
    server = udp_server(world, "web", 53, family)
    listener = world.listen("web", 80, family)
    await enforced(world, program(ingress=isolated(rule(UDP_53, PORT_80)), egress=isolated()), sets(clients=both("a")))

    for name in ("b", "a"):
        world.open_socket(name, family, socket.SOCK_DGRAM).sendto(name.encode() * 8900, (address("web", family), 53))
    assert received(server) == [b"a" * 8900]

    client = world.connect("a", "web", 80, family)
    accepted = world.accept(listener)
    client.sendall(bytes(100_000))
    accepted.sendall(bytes(100_000))
    assert len(accepted.makefile("rb").read(100_000)) == 100_000
    assert len(client.makefile("rb").read(100_000)) == 100_000


async def test_options_between_address_and_port_hide_no_port(world, family):
    servers = {port: udp_server(world, "web", port, family) for port in (53, 54)}
    await enforced(world, program(ingress=isolated(rule(UDP_53))), sets(clients=both("a")))
    sender = world.open_socket("a", family, socket.SOCK_DGRAM)
    sender.setsockopt(*PADDING[family])

    for port in servers:
        sender.sendto(b"x", (address("web", family), port))

    assert [received(server) for server in servers.values()] == [[b"x"], []]


async def test_an_answer_comes_from_where_the_question_went_and_anything_else_is_a_new_connection(world, family):
    servers = {port: udp_server(world, "a", port, family) for port in (53, 54)}
    await enforced(world, program(ingress=isolated(), egress=isolated(rule(UDP_53))), sets(clients=both("a")))
    asking = world.open_socket("web", family, socket.SOCK_DGRAM)
    asking.sendto(b"question", (address("a", family), 53))
    _, source = servers[53].recvfrom(64)

    servers[54].sendto(b"from elsewhere", source)
    servers[53].sendto(b"answer", source)

    assert received(asking) == [b"answer"]


async def test_data_in_the_first_packet_arrives_only_with_it(world, family):
    for name, value in (("a", 0x5), ("b", 0x5), ("web", 0x602)):  # without asking for a cookie first
        world.command(name, "sysctl", "-qw", f"net.ipv4.tcp_fastopen={value}")
    listener = world.listen("web", 80, family)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    await enforced(world, ALLOW, sets(clients=both("a")))

    clients = {name: world.open_socket(name, family) for name in ("b", "a")}
    for name, client in clients.items():
        with contextlib.suppress(TimeoutError):
            client.sendto(name.encode(), socket.MSG_FASTOPEN, (address("web", family), 80))

    assert world.accept(listener).recv(16) == b"a"
    assert clients["a"].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[5] & SYN_HAD_DATA
    with pytest.raises(TimeoutError):
        listener.accept()


def crossing(world: World, family: int) -> tuple[socket.socket, socket.socket]:
    """Sockets of the Pod and of `a` that connect to each other: each one's first packet meets the other's."""
    ends = []
    for name in ("web", "a"):
        end = world.open_socket(name, family)
        end.bind((address(name, family), 5000))
        end.setblocking(False)
        ends.append(end)
    # The first packet that arrives finds nobody yet; it must not be refused before the other end connects.
    tool = "iptables-nft" if family == 4 else "ip6tables-nft"
    world.command("a", tool, "-A", "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP")
    for end, other in zip(ends, ("a", "web"), strict=True):
        with contextlib.suppress(BlockingIOError):
            end.connect((address(other, family), 5000))
    for end in ends:
        end.settimeout(3)
    return ends[0], ends[1]


async def test_two_that_connect_to_each_other_are_connected_where_one_of_them_may(world, family):
    await enforced(world, DENY, sets())  # the Pod may go out

    web, a = crossing(world, family)

    assert select.select([], [web], [], 3)[1] == [web]  # the first packet is sent again after a second
    web.sendall(b"x")
    assert a.recv(1) == b"x"


async def test_two_that_connect_to_each_other_are_not_where_neither_may(world, family):
    await enforced(world, program(ingress=isolated(), egress=isolated()), sets())

    web, a = crossing(world, family)

    assert select.select([], [web, a], [], 1.5) == ([], [], [])  # the first packet is sent again after a second


async def test_the_end_of_an_allowed_connection_is_told_both_ways_and_nobody_else_is_refused(world, family):
    listener = world.listen("web", 80, family)
    wanted = program(ingress=isolated(rule(PORT_80, PortRange(TCP, 82, 82))), egress=isolated())
    await enforced(world, wanted, sets(clients=both("a")))
    client = world.connect("a", "web", 80, family)
    server = world.accept(listener)

    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with pytest.raises(ConnectionResetError):
        server.recv(1)

    with pytest.raises(ConnectionRefusedError):
        world.connect("a", "web", 82, family)
    assert not world.reaches("a", "web", 81, family)
    assert not world.reaches("b", "web", 82, family)


def in_the_midst(world: World, source: str, family: int) -> socket.socket:
    """A connection to the Pod's port 80 of which the Pod knows nothing; it has just asked whether the Pod is there."""
    made = world.open_socket(source, family)
    made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    made.connect((address("web", family), 80))
    made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    return made


@pytest.mark.parametrize("loose", [0, 1])
async def test_a_packet_out_of_nowhere_is_judged_as_a_first_one_whether_tracking_takes_it_for_one_or_not(
    world, family, loose
):
    """Not dropped for being invalid: its sender would wait for ever instead of hearing that the connection is gone."""
    world.listen("web", 80, family)
    await enforced(world, ALLOW, sets(clients=both("a")))
    world.command("web", "sysctl", "-qw", f"net.netfilter.nf_conntrack_tcp_loose={loose}")
    world.reaches("a", "web", 80, family)  # so that neighbours know each other

    strays = {name: in_the_midst(world, name, family) for name in ("a", "b")}

    with pytest.raises(ConnectionResetError):
        strays["a"].recv(1)
    with pytest.raises(TimeoutError):
        strays["b"].recv(1)


async def test_sctp_follows_ports_ranges_and_peers(world, family):
    wanted = program(ingress=isolated(rule(PortRange(SCTP, 80, 80), PortRange(SCTP, 100, 110))))
    await enforced(world, wanted, sets(clients=both("a")))

    assert [initiate(world, "a", "web", port, family) for port in (80, 81, 99, 100, 110, 111)] == [
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert not initiate(world, "b", "web", 80, family)


async def test_sctp_goes_out_to_a_named_port_of_its_peer_and_its_answers_come_in(world, family):
    named = set_id(SetKind.TUPLES, "named")
    wanted = program(ingress=isolated(), egress=isolated(rule(peers=(named,))))
    await enforced(world, wanted, sets(**{named: {endpoint(packed("a", each), SCTP, 38412) for each in (4, 6)}}))
    assert initiate(world, "web", "a", 38412, family)
    assert not initiate(world, "web", "a", 38413, family)

    web, a = (raw_socket(world, name, SCTP, family) for name in ("web", "a"))
    first = sctp.Packet(source_port=4000, destination_port=38412, tag=0, chunk=sctp.INIT, initiate_tag=7)
    web.sendto(sctp.encode(first), (address("a", family), 0))
    a.sendto(sctp.encode(sctp.answer(first, "a")), (address("web", family), 0))

    found = [sctp.decode(each) for each in heard(web, family)]
    assert [(each.chunk, each.cookie) for each in found if each is not None] == [(sctp.INIT_ACK, b"a")]


async def test_a_protocol_without_ports_passes_where_everything_does_and_behind_no_port(world, family):
    others = set_id(SetKind.ADDRESSES, "others")
    wanted = program(ingress=isolated(rule(PORT_80), rule(peers=(others,))))
    await enforced(world, wanted, sets(clients=both("a"), **{others: both("b")}))
    hears = raw_socket(world, "web", EXPERIMENT, family)

    for name in ("a", "b"):
        raw_socket(world, name, EXPERIMENT, family).sendto(name.encode(), (address("web", family), 0))

    assert list(heard(hears, family)) == [b"b"]


async def test_a_packet_to_many_is_judged_as_one_to_the_pod(world, family):
    server = world.open_socket("web", family, socket.SOCK_DGRAM)
    server.bind(("", 53))
    await enforced(world, program(ingress=isolated(rule(UDP_53))), sets(clients=both("a")))
    for name in ("b", "a"):
        sender = world.open_socket(name, family, socket.SOCK_DGRAM)
        if family == 4:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(name.encode(), ("10.77.1.255", 53))
        else:
            sender.bind((address(name, family), 0))
            sender.sendto(name.encode(), ("ff02::1", 53, 0, world.index(name)))

    assert received(server) == [b"a"]
