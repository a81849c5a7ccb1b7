"""What no event tells of (ipsets, links) is found by looking again, and put back like rules."""

import asyncio
import ipaddress

import pytest

from enforcers.core.drift.verification import FOREIGN
from enforcers.core.set_rendering import reading_limits
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas import sets as packing
from schemas.programs import Virtual
from schemas.sets import SetKind, set_id
from schemas.status import DriftKind
from tests.enforcers.cven_world import enforcing, healed
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    PORT_80,
    VIRTUAL_ADDRESSES,
    VIRTUAL_ALLOWED,
    VIRTUAL_PORTS,
    address,
    both,
    isolated,
    packed,
    pod_of,
    program,
    rule,
    sets,
)

pytestmark = pytest.mark.netns

SOON = 0.1
"""Seconds between two verifications."""
BLOCKS = set_id(SetKind.BLOCKS, "blocks")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("lines", "after"),
    [
        (["flush SET"], "lacks A"),
        (["del SET A"], "lacks A"),
        (["add SET B"], "has B of others"),
        (["add SET B", "del SET A"], "lacks A; has B of others"),
        (["create theirs hash:ip family FAMILY", "add theirs B", "swap theirs SET"], FOREIGN),
    ],
    ids=["flush", "del", "add", "exchange", "swap"],
)
async def test_members_that_others_add_or_remove_are_put_back_and_named(world, family, lines, after):
    world.listen("web", 80, family)
    name = f"ew-{CLIENTS}-{family}"
    words = {
        "SET": name,
        "A": address("a", family),
        "B": address("b", family),
        "FAMILY": {4: "inet", 6: "inet6"}[family],
    }

    def said(text: str) -> str:
        return " ".join(words.get(word.rstrip(";"), word) + ";" * word.endswith(";") for word in text.split(" "))

    async with enforcing(world, verify_seconds=SOON) as cven:
        before = cven.node.pods["uid-web"].writes
        world.command("web", "ipset", "restore", text="\n".join([*map(said, lines), ""]))

        (found,) = (await healed(cven)).differences

        assert (found.kind, found.object, found.before) == (DriftKind.SET, f"set {name}", "1 members")
        assert found.after == said(after)
        assert cven.node.pods["uid-web"].writes == before + 1
        assert world.reaches("a", "web", 80, family)
        assert not world.reaches("b", "web", 80, family)


async def test_sets_of_every_kind_are_read_as_they_were_written(world):
    """Else each verification would find tampering, or none ever."""
    virtual = Virtual(addresses=VIRTUAL_ADDRESSES, ports=VIRTUAL_PORTS, allowed=(VIRTUAL_ALLOWED,))
    wanted = program(
        ingress=isolated(rule(PORT_80), rule(peers=(BLOCKS,))), egress=isolated(rule(PORT_80), virtual=virtual)
    )
    blocks = {"10.0.0.0/8": False, "10.1.0.0/16": True, "0.0.0.0/0": False, "fd00::/8": False, "fd00::1/128": True}
    members = sets(
        clients=both("a", "b"),
        **{
            BLOCKS: {packing.block(ipaddress.ip_network(text), exception=out) for text, out in blocks.items()},
            VIRTUAL_ADDRESSES: both("node"),
            VIRTUAL_PORTS: {
                packing.endpoint(packed("a", family), number, 53) for family in (4, 6) for number in (6, 17)
            },
            VIRTUAL_ALLOWED: set(),
        },
    )
    pod = pod_of(world)
    await pod.realize(wanted, members)
    assert await pod.verify(wanted, members) == []

    world.command("web", "ipset", "add", f"ew-{BLOCKS}-4", "10.2.0.0/16", "nomatch")
    world.command("web", "ipset", "del", f"ew-{VIRTUAL_PORTS}-6", f"{address('a', 6)},udp:53")

    assert await pod.verify(wanted, members) == [
        f"set ew-{BLOCKS}-4: 4 members before, now has !10.2.0.0/16 of others",
        f"set ew-{VIRTUAL_PORTS}-6: 2 members before, now lacks [fd77::3]:53/UDP",
    ]


async def test_what_a_pod_lags_behind_is_no_tampering(world):
    """Its sets hold what was realized; what the node was told since then is still to be written."""
    members = sets(clients=both("a"))
    pod = pod_of(world)
    await pod.realize(ALLOW, members)
    members[CLIENTS].change(both("b"), both("a"))

    seen = await pod.look(members)
    assert seen is not None
    assert seen.differences == ()

    world.command("web", "ipset", "del", f"ew-{CLIENTS}-4", address("a"))
    seen = await pod.look(members)
    assert seen is not None
    assert [each.after for each in seen.differences] == [f"lacks {address('a')}"]


async def test_a_large_set_that_did_not_change_is_not_read_again_and_one_member_is_found_missing(world):
    many = {bytes((10, 80, number >> 8, number & 255)) for number in range(30_000)}
    members = sets(clients=many)
    pod = pod_of(world)
    await pod.realize(ALLOW, members)
    await pod.look(members)
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        versions = {CLIENTS: members[CLIENTS].version}
        unknown, found = pod.tables.read_back.read_sets(netlink, versions, reading_limits(versions, members))
    assert (unknown, found.members) == ([], {})

    world.command("web", "ipset", "del", f"ew-{CLIENTS}-4", "10.80.1.1")
    seen = await pod.look(members)
    assert seen is not None
    assert [each.after for each in seen.differences] == ["lacks 10.80.1.1"]


async def test_a_link_that_got_another_name_is_followed(world):
    """Rules name the link: they would look at no packet any more."""
    world.listen("web", 80)
    async with enforcing(world, verify_seconds=SOON) as cven:
        lines = "link set eth0 down\nlink set eth0 name eth9\nlink set eth9 up\n"
        lines += "address add fd77::2/64 dev eth9 nodad\n"  # IPv6 addresses go with a link that is down
        await asyncio.to_thread(world.command, "web", "ip", "-batch", "-", text=lines)

        (found,) = (await healed(cven)).differences

        assert (found.kind, found.before, found.after) == (DriftKind.LINK, "eth0", "eth9")
        assert "-i eth9" in world.rules()
        assert world.reaches("a", "web", 80)
        assert not world.reaches("b", "web", 80)
