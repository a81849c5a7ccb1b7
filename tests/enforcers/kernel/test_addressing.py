"""What counts as the own node's address."""

import asyncio
from contextlib import aclosing

import pytest
from structlog.testing import capture_logs

from enforcers.kernel import sockets
from enforcers.kernel.addressing import addresses, watch_addresses
from tests.enforcers.cven_world import until
from tests.enforcers.pod_world import both

pytestmark = pytest.mark.netns

LINK_LOCAL = b"\xfe\x80"


def test_a_bridge_counts_with_all_its_addresses_its_ports_link_local_ones_do_not(world):
    found = addresses(world.path("node"))
    assert both("node") <= found.keys()
    assert b"\x7f\0\0\1" not in found
    link_local = {index for address, index in found.items() if address.startswith(LINK_LOCAL)}
    assert link_local <= {found[next(iter(both("node")))]}  # the bridge's own at most, whatever its ports have


def test_what_ipvs_keeps_on_the_node_is_not_the_nodes_own(world):
    """kube-proxy in IPVS mode puts every Service's address on a link of its own."""
    world.command("node", "ip", "link", "add", "kube-ipvs0", "type", "bridge")
    world.command("node", "ip", "address", "add", "10.96.0.1/32", "dev", "kube-ipvs0")
    assert bytes((10, 96, 0, 1)) not in addresses(world.path("node"))


async def test_links_that_change_during_every_listing_are_listed_once_they_rest(world, monkeypatch):
    monkeypatch.setattr(sockets, "DUMP_ATTEMPTS", 0)
    async with aclosing(watch_addresses(world.path("node"))) as watching:
        with capture_logs() as logs:
            first = asyncio.ensure_future(anext(watching))
            await until("a listing to fail", lambda: logs)
        assert not first.done()
        monkeypatch.setattr(sockets, "DUMP_ATTEMPTS", 20)
        assert both("node") <= await asyncio.wait_for(first, 15)


async def test_a_pod_that_comes_changes_nothing_for_the_others(world):
    async with aclosing(watch_addresses(world.path("node"))) as watching:
        before = await anext(watching)
        world.command("node", "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
        world.command("node", "ip", "link", "set", "late0", "master", "br0", "up")
        world.command("node", "ip", "link", "set", "late1", "up")
        world.command("node", "ip", "link", "set", "late1", "master", "br0")
        world.command("node", "ip", "address", "add", "10.77.9.1/32", "dev", "br0")
        after = before
        async with asyncio.timeout(15):
            while after - before != {bytes((10, 77, 9, 1))}:  # in between a port may have an address and no bridge yet
                after = await anext(watching)
        assert before <= after
