"""What passes between a Pod and its own node, shown with real packets: probes, node ports, and a setting."""

import pytest

from schemas import sets
from schemas.addresses import TCP, pack
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import Direction, Program, Virtual
from tests.enforcers.cven_world import Told, realized, running, told, until
from tests.enforcers.pod_world import (
    DENY,
    POLICY,
    VIRTUAL_ADDRESSES,
    VIRTUAL_ALLOWED,
    VIRTUAL_PORTS,
    World,
    address,
    both,
    program,
)

pytestmark = pytest.mark.netns

NODE_PORT, OTHER_PORT = 30080, 22
LATE = {4: "10.88.0.1", 6: "fd88::1"}
"""What the node gets while the C-VEN runs."""
FROM_MESH = {4: "169.254.7.127", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}
"""Whence a mesh probes Pods in their node's place (Istio's ambient mode)."""


def egress(*, own_node: bool = True, allowed: bool = False) -> Program:
    virtual = Virtual(addresses=VIRTUAL_ADDRESSES, ports=VIRTUAL_PORTS, allowed=(VIRTUAL_ALLOWED,) if allowed else ())
    return program(egress=Direction(isolating=(POLICY,), virtual=virtual, own_node=own_node))


def node_port(revision: int, wanted: Program) -> NodeUpdate:
    """*wanted*, where a Service has `NODE_PORT` and nobody says at which addresses."""
    doors = frozenset(sets.endpoint(bytes(width), TCP, NODE_PORT) for width in (4, 16))
    changes = (
        SetChange(id=VIRTUAL_ADDRESSES),
        *(SetChange(id=each, added=doors) for each in (VIRTUAL_PORTS, VIRTUAL_ALLOWED)),
    )
    return NodeUpdate(programs=(wanted,), sets=changes, mark=Mark(revision=revision), complete=True)


def give(world: World, name: str, where: str, link: str) -> None:
    """One more address, and the way to its neighbours."""
    length = ("/64", "nodad") if ":" in where else ("/24",)
    world.command(name, "ip", "address", "add", f"{where}{length[0]}", "dev", link, *length[1:])


def listen_at(world: World, name: str, where: str, port: int) -> None:
    listener = world.open_socket(name, 6 if ":" in where else 4)
    listener.bind((where, port))
    listener.listen(16)


def reaches(world: World, source: str, where: str, port: int, *, as_address: str = "") -> bool:
    made = world.open_socket(source, 6 if ":" in where else 4)
    if as_address:
        made.bind((as_address, 0))
    try:
        made.connect((where, port))
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("family", [4, 6])
async def test_a_node_port_is_virtual_at_every_address_of_the_node_those_that_come_later_included(world, family):
    first, late = address("node", family), LATE[family]
    give(world, "web", f"{late[:-1]}2", "eth0")  # so that the Pod has a way there before there is anything
    for port in (NODE_PORT, OTHER_PORT):
        listen_at(world, "node", first, port)

    async with running(world, Told(node_port(1, egress()))) as cven:
        await realized(cven, 1)
        assert not reaches(world, "web", first, NODE_PORT)
        assert reaches(world, "web", first, OTHER_PORT)

        give(world, "node", late, "br0")
        for port in (NODE_PORT, OTHER_PORT):
            listen_at(world, "node", late, port)
        await until("the late address to be the node's", lambda: reaches(world, "web", late, OTHER_PORT))
        assert not reaches(world, "web", late, NODE_PORT)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_node_port_that_is_allowed_is_so_at_every_address_of_the_node(world, family):
    listen_at(world, "node", address("node", family), NODE_PORT)
    async with running(world, Told(node_port(1, egress(own_node=False, allowed=True)))) as cven:
        await realized(cven, 1)
        assert reaches(world, "web", address("node", family), NODE_PORT)


@pytest.mark.parametrize("family", [4, 6])
async def test_the_own_node_is_out_of_reach_where_the_setting_says_so_and_may_still_come_in(world, family):
    listen_at(world, "node", address("node", family), OTHER_PORT)
    world.listen("web", 80, family)
    open_to_node, shut = (
        Program(
            uid="uid-web",
            namespace="shop",
            name="web",
            node="node-1",
            ingress=DENY.ingress,
            egress=Direction(isolating=(POLICY,), own_node=allowed),
        )
        for allowed in (True, False)
    )
    reader = Told(told(1, open_to_node, clients=set()))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        assert reaches(world, "web", address("node", family), OTHER_PORT)

        reader.tell(told(2, shut, clients=set()))
        await realized(cven, 2)
        assert not reaches(world, "web", address("node", family), OTHER_PORT)
        assert world.reaches("node", "web", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_extra_node_addresses_probe_an_isolated_pod_as_the_node_does(world, family):
    """The address is nowhere on the node: a mesh rewrites the kubelet's probes to it."""
    mesh = FROM_MESH[family]
    give(world, "a", mesh, "eth0")
    world.command("web", "ip", f"-{family}", "route", "add", mesh, "dev", "eth0")
    world.listen("web", 80, family)

    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await realized(cven, 1)
        assert not reaches(world, "a", address("web", family), 80, as_address=mesh)
    async with running(
        world, Told(told(1, DENY, clients=set())), extra_node_addresses=tuple(FROM_MESH.values())
    ) as cven:
        await realized(cven, 1)
        assert reaches(world, "a", address("web", family), 80, as_address=mesh)
        assert not world.reaches("a", "web", 80, family)


async def test_what_the_node_loses_may_not_come_in_any_more(world):
    give(world, "node", "10.88.0.1", "br0")
    give(world, "web", "10.88.0.2", "eth0")
    world.listen("web", 80)
    async with running(world, Told(told(1, DENY, clients=both("b")))) as cven:
        await realized(cven, 1)
        assert reaches(world, "node", address("web"), 80, as_address="10.88.0.1")

        world.command("node", "ip", "address", "del", "10.88.0.1/24", "dev", "br0")
        give(world, "a", "10.88.0.1", "eth0")
        await until(
            "the address to be a stranger's",
            lambda: not reaches(world, "a", address("web"), 80, as_address="10.88.0.1"),
        )
        assert pack("10.88.0.1") not in cven.node.sets_of(None)["node"].members
