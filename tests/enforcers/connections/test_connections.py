"""Connections that exist: what an allowed change keeps and a tightening ends, shown with real packets."""

import asyncio
import socket
from typing import Any

import pytest

from enforcers.kernel import tables
from enforcers.kernel.connections import conntrack
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas.addresses import TCP
from schemas.programs import PortRange
from schemas.sets import SetKind, set_id
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    DENY,
    PORT_80,
    both,
    enforced,
    isolated,
    packed,
    pod_of,
    program,
    rule,
    sets,
)
from tests.enforcers.sockets import passes

pytestmark = pytest.mark.netns


async def test_an_allowed_connection_survives_every_change_that_still_allows_it(world):
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client, server = world.connected("a", "web", 80)

    wider = program(ingress=isolated(rule(PORT_80), rule(PortRange(TCP, 443, 443))), egress=isolated())
    await pod.realize(wider, members)
    await pod.audit()

    assert passes(client, server)
    assert passes(server, client)


async def test_a_tightening_cuts_exactly_what_it_no_longer_allows_also_where_the_server_pushes(world):
    listener = world.listen("web", 80)
    members = sets(clients=both("a", "b"))
    pod = await enforced(world, ALLOW, members)
    pairs = {}
    for name in ("a", "b"):
        client = world.connect(name, "web", 80)
        server = world.accept(listener)
        pairs[name] = (client, server)

    members[CLIENTS].change((), both("a"))
    await pod.realize(ALLOW, members)
    cuts = await pod.audit()

    assert [cut.connection.original.source for cut in cuts] == [packed("a")]
    client, server = pairs["a"]
    server.sendall(b"pushed by the server")  # goes out unmarked: nobody isolates egress, and a reply earns no mark
    client.sendall(b"asked again")
    with pytest.raises(TimeoutError):
        server.recv(64)
    assert passes(*pairs["b"])
    assert await pod.audit() == []

    members[CLIENTS].change(both("a"), ())
    await pod.realize(ALLOW, members)
    server = pairs["a"][1]
    server.settimeout(5)
    assert server.recv(64) == b"asked again"  # allowing again resumes it


async def test_an_answer_heals_no_cut_where_the_pod_may_begin_what_it_likes_with_that_peer(world):
    everyone = set_id(SetKind.ADDRESSES, "everyone")
    wanted = program(ingress=isolated(rule(PORT_80)), egress=isolated(rule(peers=(everyone,))))
    members = sets(clients=both("a"), **{everyone: both("a", "b")})
    pod = await enforced(world, wanted, members)
    client, server = world.connected("a", "web", 80)

    members[CLIENTS].change((), both("a"))
    await pod.realize(wanted, members)
    assert len(await pod.audit()) == 1

    assert not passes(server, client)
    assert not passes(client, server)
    world.listen("a", 81)
    assert world.reaches("web", "a", 81)


async def test_more_connections_than_are_had_in_hand_at_a_time_are_cut_piece_by_piece(world, monkeypatch):
    monkeypatch.setattr(conntrack, "PIECE", 2)
    told: list[int] = []
    pod, members = pod_of(world, cut=lambda _, cuts: told.append(len(cuts))), sets(clients=both("a"))
    await pod.realize(ALLOW, members)
    listener = world.listen("web", 80)
    pairs = [(world.connect("a", "web", 80), world.accept(listener)) for _ in range(5)]

    members[CLIENTS].change((), both("a"))
    await pod.realize(ALLOW, members)
    await pod.audit()

    assert sum(told) == 5
    assert max(told) == 2
    assert not any(passes(client, server) for client, server in pairs)
    await pod.realize(None, members)
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        assert conntrack.marked(netlink, 0) == []


async def test_a_syn_from_the_port_of_a_connection_whose_entry_outlived_it_is_judged_anew(world):
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client, _ = world.connected("a", "web", 80)
    name = client.getsockname()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    members[CLIENTS].change((), both("a"))
    await pod.realize(ALLOW, members)  # and no audit: the entry keeps its mark
    world.command("a", "iptables-nft", "-A", "OUTPUT", "-p", "tcp", "-j", "DROP")  # nobody hears of its end
    client.close()
    world.command("a", "iptables-nft", "-F", "OUTPUT")
    world.command("web", "iptables-nft", "-A", "INPUT", "-p", "tcp", "--syn")
    again = world.open_socket("a")
    again.bind(name)

    with pytest.raises(TimeoutError):
        again.connect(("10.77.1.2", 80))
    assert world.command("web", "iptables-nft", "-nvxL", "INPUT").splitlines()[-1].split()[0] == "0"


async def test_connections_are_judged_by_the_rules_that_are_there_when_their_turn_comes(world, monkeypatch):
    """A judge waits while others write: by what he was to judge when he came he would cut what these have let in."""
    members = sets(clients=both("a"))
    pod = await enforced(world, DENY, members)
    write, ends = tables.write, []

    async def wrote(*arguments: Any) -> None:
        await write(*arguments)
        ends.extend(world.connected("a", "web", 80))

    monkeypatch.setattr(tables, "write", wrote)
    writing = asyncio.create_task(pod.realize(ALLOW, members))
    await asyncio.sleep(0)  # it is its turn
    assert await pod.audit() == []
    await writing

    client, server = ends
    assert passes(server, client)


async def test_a_pod_that_goes_while_its_connections_are_judged_disturbs_nobody(world):
    await enforced(world, ALLOW, sets())

    async def judged_to_its_end() -> bool:
        pod = pod_of(world)
        await pod.realize(ALLOW, sets())
        judging = asyncio.create_task(pod.audit())
        await asyncio.sleep(0)  # a thread has its socket now
        pod.close()
        return await judging == []

    assert all([await judged_to_its_end() for _ in range(50)])
