"""A Pod that may change its own rules, sets and links names them as it likes: nobody else suffers by that."""

import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enforcers.core.drift.verification import FOREIGN
from enforcers.core.layout import TABLE, set_name
from enforcers.core.netlink import nftables, transaction
from enforcers.core.netlink.messages import attribute
from enforcers.core.netlink.nftables import FAMILY_NUMBERS, NEW_CHAIN, NEW_TABLE
from enforcers.core.netlink.transaction import CHAIN, CREATE, Step
from enforcers.kernel import sockets as kernel_sockets
from enforcers.kernel.connections import inspecting
from enforcers.kernel.sets.set_backends import RestoreSets, listed
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket
from enforcers.pods.placement import Unenforceable
from schemas.sets import SetKind, set_id
from tests.components.presence import missing
from tests.enforcers.pod_world import ALLOW, CLIENTS, World, both, enforced, pod_of, sets

pytestmark = pytest.mark.netns

NAMES = {
    "a line of its own": b"EW-X - [0:0]\n-I PREROUTING -j ACCEPT\n:EW-Y",
    "another table": b"EW-X\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n:EW-Y",
    "a command": b"EW-X -j ACCEPT",
    "no text at all": b"EW-\xff\xfe",
    "a terminal's escape": b"EW-\x1b[2J",
}


def make_chain(world: World, name: bytes) -> None:
    """The tools would refuse it; the kernel does not."""
    table = bytes((FAMILY_NUMBERS[4], 0, 0, 0)) + attribute(1, TABLE.encode() + b"\0")
    steps = [
        Step("table", NEW_TABLE, CREATE, table),
        Step("chain", NEW_CHAIN, CREATE, table + attribute(CHAIN, name + b"\0")),
    ]
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        assert netlink.transact(transaction.batch(steps, {}), len(steps)) is None


def in_bytes(world: World, *words: bytes) -> bytes:
    """What a command in the Pod prints."""
    there = [b"nsenter", b"--net=" + os.fsencode(world.path("web"))]
    return subprocess.run([*there, *words], capture_output=True, check=True).stdout


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_chain_that_is_named_like_lines_of_input_says_nothing_to_the_tool(world, name):
    world.listen("web", 80)
    make_chain(world, name)

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert (world.reaches("a", "web", 80), world.reaches("b", "web", 80)) == (True, False)
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        found = netlink.dump(nftables.dump_request(nftables.GET_CHAIN))
        assert any(name in body for _, body in found)


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_a_set_with_any_bytes_for_a_name_is_another_s(world, backend):
    names = (b"\xff\xfe", b"ew-\xff-4", b"ew-\x1b[2J", b"ew-", b"ew-x y-4x", b"ew-" + b"\xff" * 25 + b"-4x")
    for name in names:
        in_bytes(world, b"ipset", b"create", name, b"hash:ip")
    pod = pod_of(world, backend=backend)

    await pod.realize(ALLOW, sets(clients=both("a")))

    assert set(names) < set(in_bytes(world, b"ipset", b"list", b"-name").splitlines())


async def test_a_legacy_rule_whose_words_are_no_text_stops_nothing(world):
    if shutil.which("iptables-legacy") is None:
        missing("iptables-legacy is not installed", "apt install iptables")
    words = b"\xff\xfe\n:\n*\x1b[2J"
    in_bytes(world, b"iptables-legacy", b"-A", b"INPUT", b"-m", b"comment", b"--comment", words, b"-j", b"ACCEPT")

    pod = await enforced(world, ALLOW, sets(clients=both("a")))

    assert pod.tables.legacy == ("iptables-legacy's table filter (IPv4) is evaluated as well: 1 rule",)


async def test_what_the_ipset_tool_prints_of_others_sets_may_be_no_text(world):
    in_bytes(world, b"ipset", b"create", b"\xff\xfe", b"hash:ip")

    assert not (await RestoreSets(world.path("web")).read()).members


@pytest.mark.parametrize("name", ['eth"', "-M'x", "\x1b[2J", "eth+"])
async def test_a_link_that_no_rule_can_name_makes_the_pod_unenforceable(world, name):
    world.command("web", "ip", "link", "set", "eth0", "down")
    world.command("web", "ip", "link", "set", "eth0", "name", name, "up")
    world.command("web", "ip", "link", "set", name, "up")

    with pytest.raises(Unenforceable) as refused:
        await enforced(world, ALLOW, sets(clients=both("a")))

    assert str(refused.value).isprintable()


def test_the_name_of_whoever_changes_rules_harms_no_terminal():
    told = attribute(1, bytes((0, 0, 0, 7))) + attribute(3, b"\x1b[2J\xffnft\0")

    assert nftables.parse_generation(bytes(4) + told).process == r"\x1b[2J\\xffnft"


async def test_others_sets_are_not_read_however_much_they_hold(world):
    """The kernel keeps 65,536 addresses in 8 kB, and would list them in 900 kB: cheap for a Pod."""
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    ranges = "".join(f"create other{number} bitmap:ip range 10.0.0.0/16\n" for number in range(20))
    full = "".join(f"add other{number} 10.0.0.0-10.0.255.255\n" for number in range(20))
    world.command("web", "ipset", "restore", text=ranges + full)
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        read = sum(map(len, listed(netlink)))

    assert read < 4096
    assert (await pod.look(sets(clients=both("a")))).differences == ()


async def test_what_is_in_the_place_of_a_set_of_ours_is_not_read_either(world):
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    name = f"ew-{CLIENTS}-4"
    world.command("web", "ipset", "create", "longer", "hash:ip", "maxelem", "2000000")
    world.command("web", "ipset", "restore", text="add longer 10.0.0.0/20\n")
    world.command("web", "ipset", "swap", "longer", name)
    with NetlinkSocket(world.path("web"), NETLINK_NETFILTER) as netlink:
        assert sum(map(len, listed(netlink))) < 4096

    (difference,) = (await pod.look(sets(clients=both("a")), doubt=True)).differences
    assert difference.after == FOREIGN
    await pod.realize(ALLOW, sets(clients=both("a")))
    assert world.command("web", "ipset", "list", name).count("10.77.1.3") == 1


async def test_a_set_that_is_named_like_ours_and_in_nobodys_rules_goes_unread_however_full(world):
    name, pod = set_name(set_id(SetKind.ADDRESSES, "never told"), 4), pod_of(world)
    world.command("web", "ipset", "restore", text=f"create {name} hash:ip maxelem 1048576\nadd {name} 10.0.0.0/16\n")

    with kept_below(1 << 20):
        await pod.realize(ALLOW, sets(clients=both("a")))

    assert name not in world.command("web", "ipset", "list", "-name")


async def test_a_set_of_ours_that_someone_fills_up_is_replaced_unread(world):
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    name = set_name(CLIENTS, 4)
    world.command("web", "ipset", "add", name, "10.0.0.0/16")

    with kept_below(1 << 20):
        (difference,) = (await pod.look(members, doubt=True)).differences
        await pod.realize(ALLOW, members)

    assert (difference.object, difference.after) == (f"set {name}", FOREIGN)
    assert world.command("web", "ipset", "list", name).splitlines()[-1] == "10.77.1.3"
    assert (await pod.look(members)).differences == ()


@contextmanager
def kept_below(limit: int) -> Iterator[None]:
    """Never are so many bytes more in use meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("limit", "most"), [("MOST_LISTED", 100), ("MOST_LISTED_BYTES", 40_000)])
async def test_more_rules_than_anybody_can_keep_are_an_error_of_their_pod_and_rules_stand(
    world, monkeypatch, limit, most
):
    monkeypatch.setattr(kernel_sockets, limit, most)
    world.listen("web", 80)
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    words = f"-m comment --comment {'x' * 200} -j ACCEPT"
    flood = "".join(f"-A OUTPUT -d 10.9.0.{number} {words}\n" for number in range(101))
    world.command("web", "iptables-nft-restore", "--noflush", text=f"*mangle\n{flood}COMMIT\n")

    with pytest.raises(NetlinkRefused, match=f"more than {most}|over {most}"):
        await pod.look(sets(clients=both("a")))
    await pod.audit()

    assert (world.reaches("a", "web", 80), world.reaches("b", "web", 80)) == (True, False)
    world.command("web", "iptables-nft", "-t", "mangle", "-F", "OUTPUT")
    assert (await pod.look(sets(clients=both("a")))).differences == ()


async def test_who_writes_to_our_bit_is_sought_among_so_many_rules_and_not_more(world, monkeypatch):
    monkeypatch.setattr(inspecting, "RULES", 50)
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    flood = "-A OUTPUT -j CONNMARK --set-mark 1\n" * 60
    world.command("web", "iptables-nft-restore", "--noflush", text=f"*mangle\n{flood}COMMIT\n")

    await pod.inspect()

    meddling, uncertain = pod.problems
    assert "writes to the bit" in meddling
    assert "the first 50 were looked at" in uncertain
