"""The gate: a Pod asks from its own address, and hears what its node and its peers' nodes have done for it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from enforcers.answering import gate_serving
from enforcers.kernel.namespaces import inside
from enforcers.runtimes.runtime import Sandbox
from schemas.gate import GATE_PORT
from schemas.policy import NodeUpdate
from schemas.programs import Mode
from schemas.status import Order, PodState
from tests.components.waiting import until
from tests.enforcers.answering.gate_world import GateWorld, known, made_gate_world
from tests.enforcers.pod_world import ALLOW, address, isolated, packed, program

pytestmark = [pytest.mark.netns, pytest.mark.nats, pytest.mark.timeout(60)]


@pytest.fixture
async def gates(world, nats) -> AsyncIterator[GateWorld]:
    async with made_gate_world(world, nats) as made:
        yield made


async def test_it_opens_once_the_own_rules_are_written_and_every_node_online_knows_the_address(gates):
    async with gates.enforcing():
        await gates.answers("no policy to be known", "does not know its policy yet")
        await gates.publish(5)
        await gates.answers("no program to be there", "no program is published")
        await gates.publish(6, ALLOW)
        await gates.answers("the address to be missed", "no other Pod's rules know its address yet")

        await gates.say("node-2", 6)
        await gates.publish(7, known())
        await gates.answers("the other node to lag", "node-2 has realized 6, not yet 7")
        assert "-A EW-IN" in gates.world.rules(), "and its own rules are there by now"

        await gates.say("node-2", 7)
        answer = await gates.answers("the gate to open", PodState.ENFORCED)
        assert (answer.open, answer.pod, answer.missing) == (True, "shop/web", ())
        assert (await gates.ask(family=6)).open


async def test_it_stays_shut_until_the_own_node_has_realized_what_others_know_too(gates):
    async with gates.enforcing() as enforcer:
        await gates.publish(6, known())
        await gates.answers("the gate to open", PodState.ENFORCED)

        newer = msgspec.structs.replace(known(), revision=7)
        enforcer.cven.node.take_policy(NodeUpdate(programs=(newer,)))  # and its mark did not come yet
        assert (await gates.ask()).missing == ("this node has realized 6, not yet 7",)


async def test_a_node_that_enforces_from_disk_keeps_it_shut_and_says_so(gates):
    async with gates.enforcing() as enforcer:
        await gates.answers("no policy to be known", "does not know its policy yet")
        enforcer.cven.node.take_snapshot(NodeUpdate(programs=(known(program()),)))
        assert "enforces from disk" in str((await gates.ask()).missing)


async def test_an_isolated_pod_can_ask_and_one_that_nothing_isolates_or_whose_namespace_is_idle_may_start(gates):
    async with gates.enforcing():
        await gates.publish(1, known(program(ingress=isolated(), egress=isolated())))
        assert (await gates.answers("a Pod shut both ways", PodState.ENFORCED)).open
        await gates.publish(2, known(program()))
        assert (await gates.answers("an open Pod", PodState.OPEN)).open
        await gates.publish(3, known(msgspec.structs.replace(program(), mode=Mode.IDLE)))
        assert (await gates.answers("an idle Pod", PodState.IDLE)).open


async def test_nobody_hears_of_another_and_a_stranger_is_refused(gates):
    async with gates.enforcing():
        await gates.publish(1, known())
        await gates.answers("the Pod's own answer", PodState.ENFORCED)
        stranger = await gates.ask("b")
        assert (stranger.open, stranger.pod) == (False, "")
        assert "no Pod that this node's container runtime has told of" in stranger.missing[0]


async def test_the_nodes_own_network_has_nothing_to_wait_for(gates):
    async with gates.enforcing():
        await gates.answers("an answer to the node", PodState.HOST_NETWORK, name="node")


async def test_an_answer_is_about_the_newest_pod_that_has_the_address(gates):
    idle = msgspec.structs.replace(known(program()), uid="uid-old", name="old", mode=Mode.IDLE)
    web, netns = gates.world.sandbox(), gates.world.path("b")
    old = msgspec.structs.replace(web, uid="uid-old", name="old", netns=netns, created_at=1.0)
    gates.runtime.tell([old, msgspec.structs.replace(web, created_at=2.0)])
    async with gates.enforcing():
        await gates.publish(1, idle)
        assert (await gates.answers("its own program to be missed", "no program is published")).pod == "shop/web"


async def test_a_static_pod_is_known_by_the_id_that_its_runtime_gives_it(gates):
    mirrored = msgspec.structs.replace(known(), uid="uid-api", mirror="uid-web")
    async with gates.enforcing():
        await gates.answers("its mirror to be missed", "does not know its policy yet")
        await gates.publish(1, mirrored)
        assert (await gates.answers("a static Pod", PodState.ENFORCED)).open


async def test_nodes_that_observe_or_are_paused_hold_nobody_up(gates):
    async with gates.enforcing():
        await gates.say("node-2", -1, observing=True)
        await gates.say("node-3", 0, paused=True)
        await gates.publish(4, known())
        assert (await gates.answers("the gate to open", PodState.ENFORCED)).open
        await gates.say("node-3", 0)
        await gates.answers("a node that works again to be waited for", "node-3 has realized 0, not yet 4")


async def test_a_node_that_observes_lets_its_pods_start_and_a_paused_one_says_that_it_writes_nothing(gates):
    async with gates.enforcing(observe=True):
        await gates.publish(1, known())
        assert (await gates.answers("the observing node", "nothing: this node observes")).open
    async with gates.enforcing(pause=True):
        assert not (await gates.answers("the paused node", "this node is paused")).open


async def test_a_pod_that_was_released_by_hand_may_start(gates):
    async with gates.enforcing() as enforcer:
        await gates.publish(1, known())
        await gates.answers("the gate to open", PodState.ENFORCED)
        enforcer.cven.node.order(Order(release="shop/web", by="test"))
        assert (await gates.answers("the release", PodState.RELEASED)).open


async def test_a_pod_that_cannot_be_programmed_hears_why(gates):
    lost = Sandbox(
        uid="uid-web", namespace="shop", name="web", netns=gates.world.path("never-made"), addresses=(packed("web"),)
    )
    gates.runtime.tell([lost])
    async with gates.enforcing():
        await gates.publish(1, known())
        await gates.answers("its trouble", "does not exist")


async def test_while_nats_is_away_it_stays_shut_and_says_so_and_goes_on_afterwards(gates):
    async with gates.enforcing():
        await gates.publish(1, known())
        await gates.answers("the gate to open", PodState.ENFORCED)
        await gates.nats.stop()
        try:
            await gates.answers("the outage to be told", "NATS is away")
        finally:
            await gates.nats.start()
        await gates.answers("the gate to open again", PodState.ENFORCED)


async def test_the_limit_ends_the_wait_as_it_was_chosen(gates):
    async with gates.enforcing():
        await gates.publish(1, known())
        await gates.say("node-2", 0)
        await gates.answers("the other node to lag", "not yet 1")

        code, _, errors = await gates.gate("--timeout", "0.3")
        assert code == 1
        assert "closed: not all was there after 0.3 s: node-2 has realized 0, not yet 1" in errors
        code, _, errors = await gates.gate("--timeout", "0.3", "--on-timeout", "open")
        assert code == 0
        assert "opens all the same: node-2 has realized 0, not yet 1" in errors

    code, _, errors = await gates.gate("--timeout", "0.3")
    assert code == 1
    assert f"the enforcer at {address('node')} port {GATE_PORT} does not answer" in errors


async def test_one_that_waits_gets_through_although_the_enforcer_was_restarted_meanwhile(gates):
    async with gates.enforcing():
        await gates.publish(1, known())
        await gates.say("node-2", 0)
        process = await asyncio.create_subprocess_exec(
            *gates.command("--timeout", "30"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        while b"node-2 has realized 0, not yet 1" not in await asyncio.wait_for(process.stderr.readline(), 15):
            pass
    await gates.say("node-2", 1)
    async with gates.enforcing():
        output, _ = await asyncio.wait_for(process.communicate(), 15)
    assert (process.returncode, output) == (0, b"open: shop/web is enforced, and every node online knows it\n")


async def test_it_ends_at_once_when_its_pod_is_to_end(gates):
    async with gates.enforcing():
        process = await asyncio.create_subprocess_exec(
            *gates.command("--timeout", "30"), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(10):
                while b"does not know its policy" not in await process.stderr.readline():
                    pass
        finally:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 128 + signal.SIGTERM


def open_connections(gates: GateWorld) -> list[str]:
    """Those that reached the gate's port, as the node sees them."""
    listed = gates.world.command("node", "ss", "-Htn", "state", "established", f"( sport = :{GATE_PORT} )")
    return listed.splitlines()


async def test_a_pod_that_opens_connections_and_says_nothing_uses_up_only_its_own(gates, monkeypatch):
    monkeypatch.setattr(gate_serving, "LIFE_SECONDS", 0.5)
    gates.runtime.tell([gates.world.sandbox(), Sandbox(
        uid="uid-a", namespace="shop", name="a", netns=gates.world.path("a"), addresses=(packed("a"),)
    )])  # fmt: skip
    async with gates.enforcing():
        await gates.answers("the gate to be served", "does not know its policy")
        idle = [inside(gates.world.path("web"), connect) for _ in range(gate_serving.PER_ADDRESS + 3)]
        try:
            await until("all but a few to be closed", lambda: len(open_connections(gates)) <= gate_serving.PER_ADDRESS)
            assert "does not know its policy" in str((await gates.ask("a")).missing), "a neighbour is served"
            await until("the others to be closed in time", lambda: not open_connections(gates))
            assert "does not know its policy" in str((await gates.ask()).missing)
        finally:
            for each in idle:
                each.close()


def connect() -> socket.socket:
    return socket.create_connection((address("node"), GATE_PORT), timeout=2)


async def test_a_port_that_is_taken_keeps_nobody_from_enforcing_and_is_served_when_it_is_free(gates):
    with contextlib.closing(inside(gates.world.path("node"), lambda: gate_serving.listening(f":{GATE_PORT}"))):
        async with gates.enforcing() as enforcer:
            await gates.publish(1, known())
            async with asyncio.timeout(10):
                await enforcer.cven.realized(1)
            assert enforcer.cven.state_of("uid-web") is PodState.ENFORCED
    async with gates.enforcing():
        await gates.answers("the gate", PodState.ENFORCED)
