"""§1 stage 0 and §5.5 by packets: what IPv6 cannot do without passes, and nothing else reaches a neighbour."""

import socket
import struct

import msgspec
import pytest

from schemas.addresses import ICMPV6
from schemas.verdict import NEIGHBOUR_TYPES
from tests.enforcers.pod_world import (
    World,
    address,
    enforced,
    eventually,
    isolated,
    packed,
    pod_of,
    program,
    sets,
)
from tests.enforcers.raw_packets import heard, message, raw_socket

pytestmark = pytest.mark.netns

CLOSED = program(ingress=isolated(), egress=isolated())
ALL_NODES = "ff02::1"


def link_local(world: World, name: str, link: str = "eth0") -> str:
    """Once it may be used."""
    found: list[str] = []

    def usable() -> bool:
        shown = world.command(name, "ip", "-6", "-o", "address", "show", "dev", link, "scope", "link", "-tentative")
        found[:] = [line.split()[3].partition("/")[0] for line in shown.splitlines()]
        return bool(found)

    eventually(f"the link-local address of {name}", usable)
    return found[0]


def connects(world: World, source: str, to: str, port: int = 80) -> bool:
    """Whether *source* reaches the link-local address *to*."""
    made = world.open_socket(source, 6)
    link = "br0" if source == "node" else "eth0"
    try:
        made.connect((to, port, 0, world.index(source, link)))
    except TimeoutError:
        return False
    return True


def listen_everywhere(world: World, name: str) -> None:
    listener = world.open_socket(name, 6)
    listener.bind(("::", 80))
    listener.listen(16)


def forget_neighbours(world: World) -> None:
    for name, link in (("web", "eth0"), ("a", "eth0"), ("node", "br0")):
        world.command(name, "ip", "-6", "neigh", "flush", "dev", link)


def knows(world: World, name: str, neighbour: str) -> bool:
    return "lladdr" in world.command(name, "ip", "-6", "neigh", "show", "to", neighbour)


def is_duplicate(world: World, name: str, address: str) -> bool:
    return "dadfailed" in world.command(name, "ip", "-6", "address", "show", "to", address)


async def test_a_pod_closed_both_ways_resolves_its_neighbours_and_is_resolved_by_them(world):
    await enforced(world, CLOSED, sets())
    world.listen("node", 80, 6)
    forget_neighbours(world)

    assert world.reaches("web", "node", 80, 6)
    world.open_socket("a", 6, socket.SOCK_DGRAM).sendto(b"who has it", (address("web", 6), 9))
    eventually("a to know web", lambda: knows(world, "a", address("web", 6)))


async def test_it_is_resolved_where_the_bridge_passes_multicast_only_to_those_that_asked_for_it(world):
    await enforced(world, CLOSED, sets())
    group = f"ff02::1:ff00:{packed('web', 6)[-1]:x}"
    snooping = "mcast_snooping 1 mcast_querier 1 mcast_query_interval 100 mcast_query_response_interval 10"
    world.command("node", "ip", "link", "set", "br0", "type", "bridge", *snooping.split())

    eventually(
        "the Pod's report to arrive at the bridge",
        lambda: f"port to-web grp {group}" in world.command("node", "bridge", "mdb", "show", "dev", "br0"),
        seconds=15,
    )
    forget_neighbours(world)
    world.open_socket("a", 6, socket.SOCK_DGRAM).sendto(b"who has it", (address("web", 6), 9))
    eventually("a to know web", lambda: knows(world, "a", address("web", 6)))


@pytest.mark.parametrize(("claiming", "owning"), [("web", "a"), ("a", "web")])
async def test_duplicate_addresses_are_noticed_by_it_and_at_it(world, claiming, owning):
    await enforced(world, CLOSED, sets())

    world.command(claiming, "ip", "-6", "address", "add", f"{address(owning, 6)}/64", "dev", "eth0")

    eventually("the claim to fail", lambda: is_duplicate(world, claiming, address(owning, 6)), seconds=10)


async def test_a_router_may_advertise_itself_to_it(world):
    await enforced(world, CLOSED, sets())
    link_local(world, "node", "br0")  # whence an advertisement has to come
    router = raw_socket(world, "node", ICMPV6, 6)
    router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    advertisement = message(6, 134, 0, struct.pack("!BBHII", 64, 0, 1800, 0, 0))

    router.sendto(advertisement, (ALL_NODES, 0, 0, world.index("node", "br0")))

    eventually("a default route", lambda: "proto ra" in world.command("web", "ip", "-6", "route", "show", "default"))


@pytest.mark.parametrize(("source", "target"), [("web", "a"), ("a", "web")])
async def test_just_the_messages_that_ipv6_needs_pass_and_none_of_the_others(world, source, target):
    await enforced(world, CLOSED, sets())
    hears = raw_socket(world, target, ICMPV6, 6)
    mark = b"by this test"
    sender = raw_socket(world, source, ICMPV6, 6)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)

    for kind in range(1, 160):
        try:
            sender.sendto(message(6, kind, 0, bytes(20) + mark), (address(target, 6), 0))
        except PermissionError:
            assert kind not in NEIGHBOUR_TYPES

    assert {each[0] for each in heard(hears, 6) if each.endswith(mark)} == NEIGHBOUR_TYPES


async def test_a_pod_that_has_only_ipv4_is_closed_to_its_neighbours_link_local_addresses_too(world):
    for name in ("web", "a"):
        listen_everywhere(world, name)
    web, a = link_local(world, "web"), link_local(world, "a")
    link_local(world, "node", "br0")
    world.command("web", "ip", "-6", "address", "del", f"{address('web', 6)}/64", "dev", "eth0")
    assert connects(world, "a", web)

    ipv4_only = msgspec.structs.replace(world.sandbox(), addresses=(packed("web"),))
    await pod_of(world, sandbox=ipv4_only).realize(CLOSED, sets())

    assert not connects(world, "a", web)
    assert not connects(world, "web", a)


async def test_its_own_node_reaches_it_by_the_link_local_address_too(world):
    listen_everywhere(world, "web")
    web, node = link_local(world, "web"), link_local(world, "node", "br0")
    members = sets(node={packed("node"), socket.inet_pton(socket.AF_INET6, node)})

    await enforced(world, CLOSED, members)

    assert connects(world, "node", web)


async def test_a_pod_that_has_only_ipv6_is_closed_in_ipv4_too(world):
    world.listen("web", 80)
    ipv6_only = msgspec.structs.replace(world.sandbox(), addresses=(packed("web", 6),))

    await pod_of(world, sandbox=ipv6_only).realize(CLOSED, sets())

    assert not world.reaches("a", "web", 80)
