"""§4 of the semantics as real packets tell it: connections while what is allowed changes, through a C-VEN.

Delivery is counted at the receiver: what arrived is what passed.
"""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
import structlog

from enforcers.core.layout import DEFAULT_MARK
from enforcers.kernel.connections import conntrack
from enforcers.kernel.rules.chain_backends import NetlinkChains, RestoreChains
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas.addresses import TCP, UDP
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import Denial, PortRange, denial_id
from schemas.sets import SetKind, set_id
from tests.enforcers.cven_world import Told, realized, running, told, until
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    DENY,
    POLICY,
    PORT_80,
    address,
    both,
    isolated,
    program,
    rule,
)
from tests.enforcers.sockets import passes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]

OTHERS = set_id(SetKind.ADDRESSES, "others")
CHAINS = {"restore": RestoreChains, "netlink": NetlinkChains}


def marks(path: Path) -> list[int]:
    """The mark bit of every connection in the namespace."""
    with NetlinkSocket(path, NETLINK_NETFILTER) as netlink:
        return [each.mark & DEFAULT_MARK for each in conntrack.marked(netlink, 0)]


async def test_a_cven_writes_chains_as_the_run_says(world):
    async with running(world, Told(told(1, ALLOW, clients=both("a")))) as cven:
        await realized(cven, 1)

        assert cven.node.chain_backend == world.chains
        assert isinstance(cven.node.pods["uid-web"].tables._chains, CHAINS[world.chains])


async def test_4_1_a_reply_earns_no_mark_so_that_a_cut_connection_stays_cut_however_the_server_pushes(world):
    reader = Told(told(1, ALLOW, clients=both("a")))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        client, server = world.connected("a", "web", 80)
        assert passes(client, server)

        reader.tell(NodeUpdate(sets=(SetChange(id=CLIENTS, removed=frozenset(both("a"))),), mark=Mark(revision=2)))
        await realized(cven, 2)

        for _ in range(20):
            server.sendall(b"push")
        assert not passes(client, server)
        assert not any(marks(world.path("web")))


async def test_4_1_the_side_that_is_not_isolated_marks_too_so_that_answers_come_in(world):
    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await realized(cven, 1)
        client, server = world.connected("web", "a", 80)

        assert passes(client, server)
        assert passes(server, client)


async def test_4_5_a_peer_that_moves_between_two_allowed_sets_keeps_its_connections_and_loses_nothing(world):
    wanted = program(ingress=isolated(rule(PORT_80, peers=(CLIENTS, OTHERS))))
    update = told(1, wanted, clients=both("a"))
    reader = Told(
        NodeUpdate(programs=update.programs, sets=(*update.sets, SetChange(id=OTHERS)), mark=update.mark, complete=True)
    )
    async with running(world, reader) as cven:
        await realized(cven, 1)
        client, server = world.connected("a", "web", 80)

        for revision in range(2, 22):
            here, there = (CLIENTS, OTHERS) if revision % 2 == 0 else (OTHERS, CLIENTS)
            moved = frozenset(both("a"))
            changes = (SetChange(id=there, added=moved), SetChange(id=here, removed=moved))
            reader.tell(NodeUpdate(sets=changes, mark=Mark(revision=revision)))
            assert passes(client, server)
        await realized(cven, 21)

        assert passes(server, client)
        assert cven.node.metrics.cuts._value.get() == 0


async def test_4_5_a_tightening_that_still_allows_a_connection_leaves_it(world):
    wide = program(ingress=isolated(rule(PORT_80, PortRange(TCP, 81, 81))))
    reader = Told(told(1, wide, clients=both("a", "b")))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        client, server = world.connected("a", "web", 80)

        gone = SetChange(id=CLIENTS, removed=frozenset(both("b")))
        reader.tell(NodeUpdate(programs=(ALLOW,), sets=(gone,), mark=Mark(revision=2)))
        await realized(cven, 2)

        assert passes(client, server)
        assert passes(server, client)


async def test_4_5_each_cut_is_reported_with_its_reason_and_its_rule(world):
    reader = Told(told(1, ALLOW, clients=both("a")))
    with structlog.testing.capture_logs() as logs:
        async with running(world, reader) as cven:
            await realized(cven, 1)
            world.connected("a", "web", 80)
            reader.tell(NodeUpdate(sets=(SetChange(id=CLIENTS, removed=frozenset(both("a"))),), mark=Mark(revision=2)))
            await realized(cven, 2)

    (cut,) = [entry for entry in logs if entry["event"] == "connection cut"]
    assert cut["pod"] == "shop/web"
    assert cut["connection"] == f"TCP {address('a')} → {address('web')} port 80"
    assert cut["policies"] == (POLICY,)
    assert cut["rule"] == denial_id(Denial.DEFAULT, (POLICY,))
    assert cut["rule"] in world.rules()
    (told_of,) = cven.node.cuts.recent
    assert str(told_of) == f"cut shop/web: {cut['connection']}: no rule ({cut['rule']} of {POLICY})"


async def test_once_realized_nothing_forbidden_is_delivered_and_nothing_allowed_is_lost(world):
    """Counted at the receiver, while the rules of the Pod are rewritten again and again."""
    server = world.receive("web", 80)
    server.setblocking(False)
    ports = [PortRange(UDP, 80, 80)]
    reader = Told(told(1, program(ingress=isolated(rule(*ports))), clients=both("a")))
    senders = {name: world.open_socket(name, kind=socket.SOCK_DGRAM) for name in ("a", "b")}
    async with running(world, reader) as cven:
        await realized(cven, 1)
        sent = 0
        arrived: list[bytes] = []

        def all_arrived() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    arrived.append(server.recv(8))
            return arrived.count(b"a") == sent

        for revision in range(2, 22):
            more = rule(*ports, PortRange(UDP, revision, revision))
            reader.tell(NodeUpdate(programs=(program(ingress=isolated(more)),), mark=Mark(revision=revision)))
            while cven.revision < revision:
                for name, sender in senders.items():
                    sender.sendto(name.encode(), (address("web"), 80))
                sent += 1
                all_arrived()  # or its buffer would overflow
                await asyncio.sleep(0.001)

        await until("every allowed datagram", all_arrived)
        assert arrived.count(b"b") == 0


async def test_5_5_a_pod_without_ipv6_is_enforced_as_any_other(world):
    for link in ("all", "default", "eth0"):
        world.command("web", "sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1")
    world.listen("web", 80)
    async with running(world, Told(told(1, ALLOW, clients=both("a")))) as cven:
        await realized(cven, 1)

        assert cven.exceptions == ()
        assert world.reaches("a", "web", 80)
        assert not world.reaches("b", "web", 80)
