"""One Pod's enforcement in the kernel, shown with real packets."""

import ipaddress
import socket
from collections.abc import Iterable

import pytest

from enforcers.kernel import tables
from enforcers.kernel.sets.set_backends import RestoreSets
from schemas.addresses import SCTP, TCP, UDP
from schemas.programs import PortRange, Virtual
from schemas.sets import SetKind, block, echo, endpoint, set_id
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    DENY,
    PORT_80,
    VIRTUAL_ADDRESSES,
    VIRTUAL_ALLOWED,
    VIRTUAL_PORTS,
    World,
    address,
    both,
    enforced,
    isolated,
    packed,
    pod_of,
    program,
    rule,
    sets,
)

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]


@pytest.mark.parametrize("family", [4, 6])
async def test_an_isolated_pod_admits_nobody_but_its_own_node(world, family):
    world.listen("web", 80, family)
    assert world.reaches("a", "web", 80, family)

    await enforced(world, DENY, sets())

    assert not world.reaches("a", "web", 80, family)
    assert world.reaches("node", "web", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_rule_admits_its_set_on_its_ports_only(world, family):
    for port in (80, 81):
        world.listen("web", port, family)

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert world.reaches("a", "web", 80, family)
    assert not world.reaches("a", "web", 81, family)
    assert not world.reaches("b", "web", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_more_ports_than_one_rule_holds_are_all_matched(world, family):
    ports = [*(PortRange(TCP, port, port) for port in range(1000, 1040, 2)), PortRange(TCP, 2000, 2010)]
    for port in (1000, 1038, 2005):
        world.listen("web", port, family)

    await enforced(world, program(ingress=isolated(rule(*ports))), sets(clients=both("a")))

    assert [world.reaches("a", "web", port, family) for port in (1000, 1038, 2005)] == [True, True, True]


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_a_membership_change_touches_no_rule(world, backend):
    world.listen("web", 80)
    members = sets()
    pod = pod_of(world, backend=backend)
    await pod.realize(ALLOW, members)
    before = world.handles()

    members[CLIENTS].change(both("a"), ())
    await pod.realize(ALLOW, members)

    assert world.reaches("a", "web", 80)
    members[CLIENTS].change(both("b"), both("a"))
    await pod.realize(ALLOW, members)
    assert not world.reaches("a", "web", 80)
    assert world.reaches("b", "web", 80)
    assert world.handles() == before


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_sets_of_every_kind_follow_many_changes_in_both_families(world, backend):
    blocks, tuples = set_id(SetKind.BLOCKS, "blocks"), set_id(SetKind.TUPLES, "tuples")
    wanted = program(ingress=isolated(rule(peers=(CLIENTS, blocks, tuples))))
    hosts = [bytes((10, 9, number >> 8, number & 255)) for number in range(1500)]
    hosts += [b"\xfd\x09" + bytes(12) + number.to_bytes(2, "big") for number in range(1500)]
    many = {
        CLIENTS: set(hosts),
        blocks: {host + bytes((8 * len(host), number % 2)) for number, host in enumerate(hosts)},
        tuples: {endpoint(host, (TCP, UDP, SCTP)[number % 3], number) for number, host in enumerate(hosts)}
        | {echo(host) for host in hosts[::7]},
    }
    members = sets(**{blocks: set(), tuples: set()})
    pod = pod_of(world, backend=backend)
    await pod.realize(wanted, members)

    for identity, found in many.items():
        members[identity].change(found, ())
    await pod.realize(wanted, members)
    assert await held(world, many) == many

    fewer = {identity: set(sorted(found)[::3]) for identity, found in many.items()}
    for identity, found in fewer.items():
        members[identity].change((), many[identity] - found)
    await pod.realize(wanted, members)
    assert await held(world, many) == fewer


async def held(world: World, identities: Iterable[str]) -> dict[str, set[bytes]]:
    """What the kernel's sets hold, as the tool tells."""
    found = (await tables.observe(world.path("web"), RestoreSets(world.path("web")))).sets
    return {identity: {*(found[identity, 4] or ()), *(found[identity, 6] or ())} for identity in identities}


@pytest.mark.parametrize("family", [4, 6])
async def test_replies_to_the_pods_own_connections_pass_its_isolated_side(world, family):
    world.listen("a", 80, family)

    await enforced(world, DENY, sets())

    assert world.reaches("web", "a", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_isolated_egress_reaches_what_rules_allow_and_the_own_node(world, family):
    for name in ("a", "b", "node"):
        world.listen(name, 80, family)

    await enforced(world, program(egress=isolated(rule(PORT_80))), sets(clients=both("a")))

    assert world.reaches("web", "a", 80, family)
    assert not world.reaches("web", "b", 80, family)
    assert world.reaches("web", "node", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_block_with_an_exception_and_one_of_everything(world, family):
    blocks = set_id(SetKind.BLOCKS, "everything but b")
    everything = block(ipaddress.ip_network("0.0.0.0/0" if family == 4 else "::/0"))
    exception = block(ipaddress.ip_network(address("b", family)), exception=True)
    for name in ("a", "b"):
        world.listen(name, 80, family)

    wanted = program(egress=isolated(rule(PORT_80, peers=(blocks,))))
    await enforced(world, wanted, sets(**{blocks: {everything, exception}}))

    assert world.reaches("web", "a", 80, family)
    assert not world.reaches("web", "b", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_virtual_address_is_open_only_where_it_is_allowed_itself(world, family):
    virtual = Virtual(addresses=VIRTUAL_ADDRESSES, ports=VIRTUAL_PORTS, allowed=(VIRTUAL_ALLOWED,))
    for port in (80, 81):
        world.listen("a", port, family)
    world.listen("b", 80, family)

    wanted = program(egress=isolated(rule(peers=None), virtual=virtual))
    members = {
        VIRTUAL_ADDRESSES: {packed("a", family)},
        VIRTUAL_PORTS: set[bytes](),
        VIRTUAL_ALLOWED: {endpoint(packed("a", family), TCP, 80)},
    }
    await enforced(world, wanted, sets(**members))

    assert world.reaches("web", "a", 80, family)
    assert not world.reaches("web", "a", 81, family)
    assert world.reaches("web", "b", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_udp_follows_rules_and_marks_alike(world, family):
    server = world.receive("web", 53, family)
    wanted = program(ingress=isolated(rule(PortRange(UDP, 53, 53))))
    await enforced(world, wanted, sets(clients=both("a")))

    for name in ("a", "b"):
        world.open_socket(name, family, socket.SOCK_DGRAM).sendto(name.encode(), (address("web", family), 53))

    data, peer = server.recvfrom(64)
    assert (data, peer[0]) == (b"a", address("a", family))
    with pytest.raises(TimeoutError):
        server.recvfrom(64)
