"""Connections from before a Pod's first rule: who began them is found out, and they go on or end as rules say."""

import socket

import pytest

from enforcers.core.difference import compare, desire, primed
from enforcers.core.layout import DEFAULT_MARK, Interface
from enforcers.core.observation import NOTHING
from enforcers.kernel import tables
from enforcers.kernel.rules.chain_backends import RestoreChains
from enforcers.kernel.sets.set_backends import RestoreSets
from tests.enforcers.connections.conversing import conversations
from tests.enforcers.pod_world import (
    ALLOW,
    DENY,
    World,
    address,
    both,
    enforced,
    eventually,
    isolated,
    packed,
    pod_of,
    program,
    rule,
    sets,
)
from tests.enforcers.sockets import DROPPED_SECONDS, passes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]

DIRECTIONS = [(True, False), (False, True), (True, True)]
ONLY_IN = program(ingress=isolated(rule()), egress=isolated())
ONLY_OUT = program(ingress=isolated(), egress=isolated(rule()))


def is_open(*ends: socket.socket) -> bool:
    """Whether a connection passes both ways; its end that has spoken least pushes first."""
    return passes(ends[1], ends[0]) and passes(ends[0], ends[1])


@pytest.mark.parametrize(("ingress", "egress"), DIRECTIONS, ids=["ingress", "egress", "both"])
async def test_the_first_rule_ends_what_it_forbids_and_nothing_else(world, ingress, egress):
    wanted = program(ingress=isolated(rule()) if ingress else None, egress=isolated(rule()) if egress else None)
    with conversations(world) as talks:
        await enforced(world, wanted, sets(clients=both("a")))
        with talks.counting(ingress=ingress, egress=egress) as delivered:
            for _ in range(3):
                talks.await_news(ingress=ingress, egress=egress)

        assert delivered
        assert not any(delivered.values())
        assert talks.lost(ingress=ingress, egress=egress) == {}


async def test_rules_that_go_and_come_again_find_everybody_anew(world):
    """By order, and by a foreign hand that flushes all there is."""
    members = sets(clients=both("a"))
    wanted = program(ingress=isolated(rule()), egress=isolated(rule()))
    pod = pod_of(world)
    with conversations(world) as talks:
        for by_order in (True, False, True, False):
            await pod.realize(wanted, members)
            with talks.counting(ingress=True, egress=True) as delivered:
                talks.await_news(ingress=True, egress=True)
            assert delivered
            assert not any(delivered.values())
            if by_order:
                await pod.realize(None, members)
            else:
                world.command("web", "nft", "flush", "ruleset")
                pod.doubt()
        assert talks.lost(ingress=True, egress=True) == {}


async def test_a_fresh_pod_is_written_to_once(world):
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    assert pod.writes == 1


async def test_what_begins_in_the_first_instant_of_a_fresh_pods_rules_is_found_by_the_second_look(world, monkeypatch):
    """Between the look that finds nothing and the rules: a race, told by the one who holds the pen."""
    ends = []
    write = tables.write

    async def late(*args):
        if not ends:
            ends.extend(world.connected("b", "web", 80))
        await write(*args)

    monkeypatch.setattr(tables, "write", late)
    cuts = []
    pod = pod_of(world, cut=lambda _, found: cuts.extend(found))
    await pod.realize(DENY, sets())

    server = ends[1]
    assert [cut.connection.original.source for cut in cuts] == [packed("b")]
    server.sendall(b"the server pushes first")
    assert not passes(*ends)


async def test_a_server_that_listens_no_more_is_a_server_nevertheless(world):
    talks = {}
    for name in ("a", "b"):
        listener = world.listen("web", 80)
        talks[name] = world.connect(name, "web", 80), world.accept(listener)
        listener.close()

    await enforced(world, ONLY_IN, sets(clients=both("a")))

    assert is_open(*talks["a"])
    assert not passes(*reversed(talks["b"]))
    assert not passes(*talks["b"])


async def test_a_connection_that_nobody_accepted_yet_is_adopted(world):
    listener = world.listen("web", 80)
    client = world.connect("a", "web", 80)
    client.sendall(b"before")

    await enforced(world, ONLY_IN, sets(clients=both("a")))

    client.sendall(b" and after")
    server = world.accept(listener)
    assert server.recv(16, socket.MSG_WAITALL) == b"before and after"
    assert is_open(client, server)


async def test_ipv4_over_an_ipv6_socket_is_ipv4(world):
    listener = world.open_socket("web", 6)
    listener.bind(("::", 80))
    listener.listen()
    talks = {name: (world.connect(name, "web", 80), world.accept(listener)) for name in ("a", "b")}

    await enforced(world, ONLY_IN, sets(clients=both("a")))

    assert is_open(*talks["a"])
    assert not passes(*reversed(talks["b"]))


@pytest.mark.parametrize("held", ["the request", "the answer"])
@pytest.mark.parametrize("inbound", [True, False])
async def test_a_connection_that_is_just_beginning_goes_on(world, held, inbound):
    """Its SYN, or the SYN's answer, is held up on its way to *a* or from there, until the rules are in place."""
    source, target = ("a", "web") if inbound else ("web", "a")
    listener = world.listen(target, 80)
    where = "input" if (held == "the answer") == inbound else "output"
    world.command("a", "nft", f"add table inet hold; add chain inet hold c {{ type filter hook {where} priority 0; }}")
    world.command("a", "nft", "add rule inet hold c meta l4proto tcp drop")
    client = world.open_socket(source)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.connect((address(target), 80))
    wanted = "SYN-RECV" if inbound and held == "the answer" else "SYN-SENT" if not inbound else ""
    if wanted:
        eventually(wanted, lambda: wanted in world.command("web", "ss", "-tan"))

    await enforced(world, ONLY_IN if inbound else ONLY_OUT, sets(clients=both("a")))
    world.command("a", "nft", "delete table inet hold")

    listener.settimeout(10)
    server = world.accept(listener)
    client.settimeout(DROPPED_SECONDS)
    assert is_open(client, server)


@pytest.mark.parametrize("closes", ["client", "server"])
async def test_a_half_closed_connection_is_heard_to_its_end(world, closes):
    client, server = world.connected("a", "web", 80)
    closing, going_on = (client, server) if closes == "client" else (server, client)
    closing.shutdown(socket.SHUT_WR)

    await enforced(world, ONLY_IN, sets(clients=both("a")))

    assert going_on.recv(1) == b""
    assert passes(going_on, closing)
    going_on.close()
    assert closing.recv(1) == b""


async def test_what_is_over_leaves_no_door_open(world):
    client, server = world.connected("a", "web", 80)
    name = client.getsockname()
    server.close()  # waits in the Pod for what may still come
    client.close()
    await enforced(world, ONLY_IN, sets())

    again = world.open_socket("a")
    again.bind(name)
    with pytest.raises(TimeoutError):
        again.connect((address("web"), 80))


async def test_links_that_carry_no_pod_address_are_left_alone(world):
    world.command("web", "ip", "link", "add", "net1", "type", "veth", "peer", "name", "net1", "netns", world.name("b"))
    for name, host in (("web", 1), ("b", 2)):
        world.command(name, "ip", "addr", "add", f"10.78.0.{host}/24", "dev", "net1")
        world.command(name, "ip", "link", "set", "net1", "up")
    listener = world.open_socket("web")
    listener.bind(("10.78.0.1", 80))
    listener.listen()
    client = world.open_socket("b")
    client.settimeout(5)
    client.connect(("10.78.0.1", 80))
    server = world.accept(listener)
    cuts = []

    await pod_of(world, cut=lambda _, found: cuts.extend(found)).realize(DENY, sets())

    assert is_open(client, server)
    assert cuts == []


async def test_behind_a_redirect_a_connection_is_what_the_wire_shows(world):
    """A sidecar's: the client speaks to port 80, and the proxy's socket is at 15006."""
    redirect = "*nat\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 15006\nCOMMIT\n"
    world.command("web", "iptables-nft-restore", "--noflush", text=redirect)
    listener = world.listen("web", 15006)
    talks = {name: (world.connect(name, "web", 80), world.accept(listener)) for name in ("a", "b")}

    await enforced(world, ALLOW, sets(clients=both("a")))  # port 80 only

    assert is_open(*talks["a"])
    assert not passes(*talks["b"])


async def test_an_enforcer_that_ended_before_its_rules_dropped_is_taken_over_from(world):
    members = sets(clients=both("a"))
    talks = {name: world.connected(name, "web", port) for name, port in (("a", 80), ("b", 81))}
    first = primed(desire(ONLY_IN, Interface("eth0", DEFAULT_MARK)), NOTHING.tables)
    path = world.path("web")
    await tables.write(path, compare(first, NOTHING, members), RestoreSets(path), RestoreChains(path))
    for client, server in talks.values():
        assert is_open(client, server)

    await enforced(world, ONLY_IN, members)

    assert is_open(*talks["a"])
    assert not passes(*reversed(talks["b"]))
    assert not passes(*talks["b"])


async def test_a_mark_from_before_says_nothing_once_the_rules_were_gone(world):
    pod = await enforced(world, ALLOW, sets(clients=both("a", "b")))
    client, server = world.connected("a", "web", 80)
    pod.close()
    path = world.path("web")
    observed = await tables.observe(path, RestoreSets(path))
    await tables.write(path, tables.removal(observed), RestoreSets(path), RestoreChains(path))

    await enforced(world, ALLOW, sets(clients=both("b")))

    assert not passes(client, server)


async def test_entries_end_with_tracking(world):
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client, server = world.connected("a", "web", 80)

    await pod.realize(program(), members)

    assert entries(world) == []
    assert is_open(client, server)


async def test_entries_of_others_stay_with_what_they_translate(world):
    members = sets(clients=both("a"))
    redirect = "*nat\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 15006\nCOMMIT\n"
    world.command("web", "iptables-nft-restore", "--noflush", text=redirect)
    pod = await enforced(world, ALLOW, members)
    listener = world.listen("web", 15006)
    client, server = world.connect("a", "web", 80), world.accept(listener)

    await pod.realize(program(), members)

    assert [entry for entry in entries(world) if "mark=0" in entry]
    assert is_open(client, server)


def entries(world: World) -> list[str]:
    listed = world.command("web", "conntrack", "-L", "-p", "tcp")
    return listed.splitlines()
