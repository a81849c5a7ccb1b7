"""What a C-VEN does where something comes late, goes at once, changes underneath it, or fails for a while."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from enforcers.kernel.addressing import addresses as addresses_in
from enforcers.kernel.namespaces import NoNamespace
from enforcers.metrics import Metrics
from enforcers.node.local_node import LocalNode
from enforcers.node.orders import Orders
from enforcers.node.programming import Programming
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from enforcers.settings import EnforcerSettings
from schemas import addresses
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import Program
from schemas.sets import SetKind, set_id
from schemas.status import PodState
from tests.enforcers.cven_world import NEIGHBOUR_DENY, Told, neighbour, realized, running, slow_tool, told, until
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    DENY,
    PORT_80,
    World,
    both,
    eventually,
    isolated,
    packed,
    pod_of,
    program,
    rule,
    sets,
)

pytestmark = pytest.mark.netns

GONE = Program(uid="uid-gone", namespace="shop", name="gone", node="node-1", ingress=isolated())


def without_namespace(world) -> Sandbox:
    return Sandbox(uid="uid-gone", namespace="shop", name="gone", netns=world.path("late"), addresses=(packed("b"),))


async def test_a_mended_pod_is_no_exception_any_more_without_another_revision(world):
    broken = without_namespace(world)
    async with running(world, Told(told(3, GONE, clients=set())), broken, world.sandbox()) as cven:
        await realized(cven, 3)
        assert [each.uid for each in cven.exceptions] == ["uid-gone"]

        with made(broken):
            await until("the retry to succeed", lambda: cven.exceptions == ())
            assert cven.state_of("uid-gone") is PodState.ENFORCED


async def test_what_fails_is_tried_again_soon_though_nothing_else_happens(world):
    """Nobody else wakes it: there is only who programs."""
    node = LocalNode(EnforcerSettings(node="node-1"), Metrics(CollectorRegistry()), Orders())
    node.take_policy(told(3, GONE, clients=set()))
    node.take_addresses(frozenset())
    node.take_sandboxes({"uid-gone": without_namespace(world)})
    stop, heard = asyncio.Event(), asyncio.Queue[list[Mark]]()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Programming(node, heard.put).run(stop), name="program")
        await until("three more tries", lambda: node.metrics.failures._value.get() >= 4)
        stop.set()
        node.work.set()


@contextmanager
def made(sandbox: Sandbox) -> Iterator[None]:
    """The sandbox's namespace and its address, for a while."""
    name = sandbox.netns.name
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for line in ("link add eth0 type veth peer name far", "address add 10.77.1.4/32 dev eth0"):
            subprocess.run(["ip", "-n", name, *line.split()], check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


async def test_a_broken_pod_is_not_tried_again_with_every_change_of_its_neighbours(world):
    reader = Told(told(0, ALLOW, GONE, clients=set()))
    async with running(world, reader, without_namespace(world), world.sandbox()) as cven:
        await realized(cven, 0)
        for revision in range(1, 60):
            host = frozenset({addresses.pack(f"10.9.0.{revision}")})
            reader.tell(NodeUpdate(sets=(SetChange(id=CLIENTS, added=host),), mark=Mark(revision=revision)))
            await until("the change to be written", lambda wanted=revision: cven.writes > wanted)

        assert cven.node.metrics.failures._value.get() < 20


async def test_pods_that_are_slow_take_no_turn_from_their_neighbours(world, tmp_path, monkeypatch):
    """One Pod at a time, and the first one's tool takes as long as the test wants."""
    go = slow_tool(tmp_path, monkeypatch, "iptables-nft-restore", where=world.path("b"))
    reader, pods = Told(told(1, DENY, NEIGHBOUR_DENY, clients=set())), (neighbour(world), world.sandbox())

    async with running(world, reader, *pods, parallel=1, chain_backend="restore") as cven:
        await until("its neighbour's rules", lambda: cven.state_of("uid-web") is PodState.ENFORCED)
        assert cven.state_of("uid-b") is PodState.PENDING

        go.touch()
        await until("its own", lambda: cven.state_of("uid-b") is PodState.ENFORCED)


async def test_a_program_that_comes_while_others_are_written_finds_its_sets(world):
    """With one Pod at a time, the second one's program and a set of its own come while the first is written."""
    reader = Told(told(1, DENY, NEIGHBOUR_DENY, clients=set()))
    new = set_id(SetKind.ADDRESSES, "new")
    second = program(ingress=isolated(rule(PORT_80, peers=(new,))))

    async with running(world, reader, neighbour(world), world.sandbox(), parallel=1) as cven:
        await until(
            "the first Pod to be begun", lambda: "uid-b" in cven.node.pods and cven.node.pods["uid-b"]._turn.locked()
        )
        reader.tell(
            NodeUpdate(programs=(second,), sets=(SetChange(id=new, added=frozenset(both("a"))),), mark=Mark(revision=2))
        )
        await realized(cven, 2)

        assert cven.node.metrics.failures._value.get() == 0


async def test_a_pod_whose_addresses_come_later_or_move_to_another_link_is_enforced_there(world):
    world.listen("web", 80)
    runtime = GivenRuntime([msgspec.structs.replace(world.sandbox(), addresses=())])
    reader = Told(told(1, DENY, clients=set()))
    async with running(world, reader, runtime=runtime, verify_seconds=600) as cven:  # nobody finds it by himself
        await realized(cven, 1)
        assert cven.state_of("uid-web") is PodState.ERROR

        runtime.tell([world.sandbox()])
        await until("the Pod to be enforced", lambda: cven.state_of("uid-web") is PodState.ENFORCED)

        world.command("web", "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far")
        world.command("web", "ip", "address", "add", "10.77.2.2/24", "dev", "eth1")
        runtime.tell([msgspec.structs.replace(world.sandbox(), addresses=(addresses.pack("10.77.2.2"),))])

        await until("rules on the other link", lambda: "-A PREROUTING -i eth1" in world.rules())
        await until("none on the first", lambda: "-i eth0" not in world.rules())


async def test_a_node_all_of_whose_addresses_are_named_in_the_settings_enforces(world):
    extra = tuple(map(addresses.unpack, addresses_in(world.path("node"))))
    async with running(world, Told(told(1, DENY, clients=set())), extra_node_addresses=extra) as cven:
        await realized(cven, 1)

        assert cven.state_of("uid-web") is PodState.ENFORCED


async def test_connections_are_judged_after_a_restart_though_the_rules_are_as_they_should_be(world):
    """Whoever wrote the rules ended before it cut what they no longer allow."""
    listener = world.listen("web", 80)
    members = sets(clients=both("a"))
    before = pod_of(world)
    await before.realize(ALLOW, members)
    client = world.connect("a", "web", 80)
    server = world.accept(listener)
    members[CLIENTS].change((), both("a"))
    await before.realize(ALLOW, members)
    client.sendall(b"not cut yet")
    assert server.recv(64) == b"not cut yet"

    async with running(world, Told(told(2, ALLOW, clients=set()))) as cven:
        await realized(cven, 2)

        client.sendall(b"still there?")
        with pytest.raises(TimeoutError):
            server.recv(64)


async def test_a_pod_that_comes_after_the_mark_is_judged_without_another_one(world):
    listener = world.listen("web", 80)
    before = pod_of(world)
    await before.realize(ALLOW, sets(clients=both("a")))
    client = world.connect("a", "web", 80)
    server = world.accept(listener)
    runtime = GivenRuntime()
    async with running(world, Told(told(2, ALLOW, clients=set())), runtime=runtime) as cven:
        await realized(cven, 2)
        runtime.tell([world.sandbox()])
        await until("its connections to be judged", lambda: cven.node.metrics.cuts._value.get() == 1)

        client.sendall(b"still there?")
        with pytest.raises(TimeoutError):
            server.recv(64)


async def test_a_pod_that_was_let_go_of_is_not_opened_again(world):
    pod = pod_of(world)
    members = sets()
    await pod.realize(ALLOW, members)
    members[CLIENTS].change(both("a"), ())
    pod.close()

    with pytest.raises(NoNamespace):
        await asyncio.wait_for(pod.realize(ALLOW, members), 5)


async def test_a_pod_whose_programming_hangs_keeps_no_neighbour_waiting_and_is_named(world, tmp_path, monkeypatch):
    go = slow_tool(tmp_path, monkeypatch, "iptables-nft-restore", where=world.path("b"))
    reader = Told(told(1, DENY, NEIGHBOUR_DENY, clients=set()))
    async with running(world, reader, neighbour(world), world.sandbox()) as cven:
        await realized(cven, 1)
        assert [(each.uid, each.reason) for each in cven.exceptions] == [("uid-b", "still being programmed")]

        members = SetChange(id=CLIENTS, added=frozenset(both("a")))
        reader.tell(NodeUpdate(programs=(ALLOW,), sets=(members,), mark=Mark(revision=2)))
        await realized(cven, 2)
        assert cven.state_of("uid-web") is PodState.ENFORCED
        assert [each.uid for each in cven.exceptions] == ["uid-b"]
        go.touch()


async def test_a_namespace_that_is_removed_really_goes_though_the_runtime_has_said_nothing_yet(world):
    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await realized(cven, 1)

        world.command("node", "ip", "netns", "del", world.path("web").name)

        await asyncio.to_thread(eventually, "its end of the wire to vanish", lambda: not wired(world), seconds=1.0)
        assert "uid-web" in cven.node.pods


async def test_a_namespace_that_takes_the_place_of_another_is_programmed_without_another_word(world):
    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await realized(cven, 1)

        world.command("node", "ip", "netns", "del", world.path("web").name)
        world.command("node", "ip", "netns", "add", world.path("web").name)
        for line in ("link add eth0 type veth peer name far", "address add 10.77.1.2/32 dev eth0"):
            world.command("web", "ip", *line.split())

        await until("rules in the new one", lambda: "EW-IN" in world.rules())
        assert cven.exceptions == ()


def wired(world: World) -> bool:
    return "to-web" in world.command("node", "ip", "-brief", "link")
