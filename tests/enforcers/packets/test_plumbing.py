"""§5.1 by packets: what a Pod does to its packets itself, redirecting, forwarding, marking, changes no verdict."""

import pytest

from enforcers.core.layout import DEFAULT_MARK
from enforcers.kernel.connections import conntrack
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas.addresses import TCP
from schemas.programs import PortRange
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    PORT_80,
    World,
    address,
    both,
    enforced,
    eventually,
    isolated,
    program,
    rule,
    sets,
)
from tests.enforcers.sidecar import Sidecar, application, speaks

pytestmark = [pytest.mark.netns, pytest.mark.parametrize("family", [4, 6])]

GOING_OUT = program(ingress=isolated(), egress=isolated(rule(PORT_80)))
PORT_8080 = PortRange(TCP, 8080, 8080)
INNER = {4: ("10.79.0.1", "10.79.0.2", 24), 6: ("fd79::1", "fd79::2", 64)}
"""Of the Pod's link to what is behind it, and of what is behind it."""
THEIR_MARK = 0x1


def tool(family: int) -> str:
    return "iptables-nft" if family == 4 else "ip6tables-nft"


async def test_before_a_sidecar_who_may_come_in_is_judged_by_the_port_that_is_asked_for(world, family):
    apps = {port: application(world, port, family) for port in (80, 81)}
    Sidecar(world, family)
    assert speaks(world, "a", "web", apps[81], family)

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert speaks(world, "a", "web", apps[80], family)
    assert not world.reaches("a", "web", 81, family)
    assert not world.reaches("b", "web", 80, family)


async def test_behind_a_sidecar_where_the_pod_may_go_is_judged_by_where_the_sidecar_goes(world, family):
    listeners = {name: world.listen(name, 80, family) for name in ("a", "b")}
    Sidecar(world, family)
    assert speaks(world, "web", "b", listeners["b"], family)

    await enforced(world, GOING_OUT, sets(clients=both("a")))

    assert speaks(world, "web", "a", listeners["a"], family)
    assert not speaks(world, "web", "b", listeners["b"], family)


async def test_a_connection_through_a_sidecar_is_cut_as_any_other(world, family):
    app = application(world, 80, family)
    Sidecar(world, family)
    allowed = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, allowed)
    client = world.connect("a", "web", 80, family)
    client.sendall(b"before")
    server = world.accept(app)
    assert server.recv(16) == b"before"

    allowed[CLIENTS].change((), both("a"))
    await pod.realize(ALLOW, allowed)
    (cut,) = await pod.audit()
    client.sendall(b"after")

    assert cut.connection.original.destination_port == 80
    with pytest.raises(TimeoutError):
        server.recv(16)


def nested(world: World, family: int) -> None:
    """A namespace behind the Pod that the Pod forwards for, under its own address."""
    outer, inner, width = INNER[family]
    version = "-4" if family == 4 else "-6"
    nodad = "" if family == 4 else " nodad"
    world.nest("inner", f"addr add {inner}/{width} dev eth0{nodad}", f"route add default via {outer} dev eth0")
    world.ip("web", f"addr add {outer}/{width} dev in0{nodad}")
    switch = "net.ipv4.ip_forward=1" if family == 4 else "net.ipv6.conf.all.forwarding=1"
    world.command("web", "sysctl", "-qw", switch)
    world.command("web", tool(family), "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE")
    to = f"{inner}:80" if family == 4 else f"[{inner}]:80"
    asked = ("-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-p", "tcp", "--dport", "8080")
    world.command("web", tool(family), *asked, "-j", "DNAT", "--to-destination", to)
    assert world.command("inner", "ip", version, "route")


async def test_for_whoever_is_behind_it_the_pod_may_go_where_it_may_go_itself(world, family):
    nested(world, family)
    for name in ("a", "b"):
        world.listen(name, 80, family)
    eventually("the way out", lambda: world.reaches("inner", "b", 80, family))

    await enforced(world, GOING_OUT, sets(clients=both("a")))

    assert world.reaches("inner", "a", 80, family)
    assert not world.reaches("inner", "b", 80, family)


async def test_who_may_come_in_to_it_is_judged_by_the_pods_port(world, family):
    nested(world, family)
    listener = world.open_socket("inner", family)
    listener.bind((INNER[family][1], 80))
    listener.listen(16)
    eventually("the way in", lambda: world.reaches("b", "web", 8080, family))

    await enforced(world, program(ingress=isolated(rule(PORT_8080)), egress=isolated()), sets(clients=both("a")))

    assert world.reaches("a", "web", 8080, family)
    assert not world.reaches("b", "web", 8080, family)


async def test_that_the_way_to_it_is_narrow_is_told_to_whom_it_concerns(world, family):
    """The Pod as a router says so itself, before the connection is known to have come about."""
    nested(world, family)
    inner = INNER[family][1]
    world.ip("web", "link set in0 mtu 1300")
    world.ip("a", f"route add {inner} via {address('web', family)}")
    server = world.open_socket("inner", family)
    server.bind((inner, 80))
    server.listen(16)
    await enforced(world, program(ingress=isolated(rule(PORT_80)), egress=isolated()), sets(clients=both("a")))
    client = world.open_socket("a", family)
    client.settimeout(3)  # the way in may have to be found first
    client.connect((inner, 80))
    accepted = world.accept(server)

    client.sendall(bytes(20_000))

    assert len(accepted.makefile("rb").read(20_000)) == 20_000


async def test_between_it_and_the_pod_nothing_is_anybodys_business(world, family):
    nested(world, family)
    listener = world.open_socket("web", family)
    listener.bind((INNER[family][0], 80))
    listener.listen(16)

    await enforced(world, program(ingress=isolated(), egress=isolated()), sets())

    world.open_socket("inner", family).connect((INNER[family][0], 80))


async def test_whoever_else_marks_connections_keeps_the_own_bits_and_leaves_ours(world, family):
    for hook in ("PREROUTING", "POSTROUTING"):
        mark = f"{THEIR_MARK:#x}/0xff"
        world.command("web", tool(family), "-t", "mangle", "-A", hook, "-j", "CONNMARK", "--set-xmark", mark)
    listener = world.listen("web", 80, family)
    allowed = sets(clients=both("a"))
    wanted = program(ingress=isolated(rule(PORT_80)), egress=isolated())
    pod = await enforced(world, wanted, allowed)
    client = world.connect("a", "web", 80, family)
    server = world.accept(listener)
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    assert marks(world) == [DEFAULT_MARK | THEIR_MARK]

    allowed[CLIENTS].change((), both("a"))
    await pod.realize(wanted, allowed)
    await pod.audit()

    assert marks(world) == [THEIR_MARK]


def marks(world: World) -> list[int]:
    """Of the TCP connections in the Pod's namespace."""
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        return [each.mark for each in conntrack.marked(netlink, 0) if each.original.protocol == TCP]


async def test_what_the_pod_itself_drops_or_refuses_on_the_way_out_stays_so(world, family):
    world.listen("a", 80, family)
    world.command("web", tool(family), "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "DROP")

    await enforced(world, GOING_OUT, sets(clients=both("a")))

    assert not world.reaches("web", "a", 80, family)
