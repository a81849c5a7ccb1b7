"""Beside others' rules, over restarts and errors: nothing foreign is touched, nothing of ours is lost or left."""

import asyncio
import sys

import pytest

from enforcers.kernel import tables
from enforcers.kernel.namespaces import CommandFailed
from enforcers.kernel.sets.set_backends import RestoreSets
from enforcers.kernel.sockets import NetlinkRefused
from enforcers.pods.placement import Unenforceable
from enforcers.runtimes.runtime import Sandbox
from enforcers.uninstalling import uninstall
from schemas.addresses import UDP
from schemas.programs import PortRange
from schemas.sets import SetKind, set_id
from tests.enforcers.pod_world import (
    ALLOW,
    CLIENTS,
    DENY,
    PORT_80,
    World,
    both,
    enforced,
    eventually,
    isolated,
    pod_of,
    program,
    rule,
    sets,
)
from tests.enforcers.sockets import passes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]


async def test_foreign_rules_and_sets_stay_as_they_are_and_ours_stand_before_them(world):
    foreign = (
        "*mangle\n:MINE - [0:0]\n-A PREROUTING -p tcp -j MINE\n-A MINE -j MARK --set-xmark 0x1/0x1\nCOMMIT\n"
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp --dport 9 -j DROP\nCOMMIT\n"
    )
    world.command("web", "iptables-nft-restore", "--noflush", text=foreign)
    world.command("web", "ipset", "create", "theirs", "hash:ip")
    before = world.foreign_rules()

    pod = await enforced(world, ALLOW, sets(clients=both("a")))

    assert world.foreign_rules() == before
    prerouting = [line for line in world.rules().splitlines() if line.startswith("-A PREROUTING")]
    assert "-j EW-IN" in prerouting[0]
    world.command("web", "iptables-nft", "-t", "mangle", "-I", "PREROUTING", "-j", "MINE")
    pod.doubt()
    await pod.realize(ALLOW, sets(clients=both("a")))
    prerouting = [line for line in world.rules().splitlines() if line.startswith("-A PREROUTING")]
    assert "-j EW-IN" in prerouting[0]
    assert sum("EW-IN" in line for line in prerouting) == 1
    assert "theirs" in world.command("web", "ipset", "list", "-n")


async def test_what_the_pod_itself_forbids_stays_forbidden(world):
    world.listen("web", 80)
    world.command("web", "iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP")

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert not world.reaches("a", "web", 80)


async def test_a_restart_finds_everything_in_place_and_writes_nothing(world):
    members = sets(clients=both("a", "b"))
    wanted = program(ingress=isolated(rule(PORT_80)), egress=isolated(rule(PORT_80)))
    await enforced(world, wanted, members)
    before = world.handles()

    again = pod_of(world)
    wrote = await again.realize(wanted, members)

    assert not wrote
    assert world.handles() == before


async def test_a_native_rule_that_hides_the_table_from_iptables_hides_nothing_from_us(world):
    members = sets(clients=both("a"))
    await enforced(world, ALLOW, members)
    world.command("web", "nft", "add map ip mangle theirs { type ipv4_addr : verdict; }")
    world.command("web", "nft", "add rule ip mangle PREROUTING ct state new limit rate 3/second accept")
    assert "EW-" not in world.rules()
    before = world.handles()

    again = pod_of(world)
    assert not await again.realize(ALLOW, members)
    assert world.handles() == before
    await again.realize(program(), members)
    assert "EW-" not in world.handles()


async def test_what_someone_removed_or_changed_of_ours_is_put_back(world):
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    before = world.rules()
    world.command("web", "iptables-nft", "-t", "mangle", "-D", "EW-IN-NEW", "1")
    world.command("web", "ipset", "flush", f"ew-{CLIENTS}-4")

    pod.doubt()
    assert await pod.realize(ALLOW, members)

    assert world.rules() == before
    world.listen("web", 80)
    assert world.reaches("a", "web", 80)


async def test_a_pod_that_nothing_isolates_any_more_keeps_no_rule_set_or_mark(world):
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client, server = world.connected("a", "web", 80)

    await pod.realize(program(), members)

    assert "EW-" not in world.rules() + world.rules(family=6)
    assert "ew-" not in world.command("web", "ipset", "list", "-n")
    assert passes(client, server)


async def test_uninstalling_leaves_nothing_of_ours_and_everything_else(world):
    world.command("web", "iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-p", "udp", "-j", "DROP")
    before = world.foreign_rules()
    await enforced(world, ALLOW, sets(clients=both("a")))

    await uninstall([world.path("web")])

    assert world.rules().replace(before, "") == ""
    assert not await tables.observe(world.path("web"), RestoreSets(world.path("web")))
    world.listen("web", 80)
    assert world.reaches("b", "web", 80)


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_what_the_kernel_refuses_is_an_error_and_the_next_try_repairs(world, backend):
    members = sets(clients=both("a"))
    name = f"ew-{CLIENTS}-4"
    naming = ("OUTPUT", "-m", "set", "--match-set", name, "dst", "-j", "DROP")
    world.command("web", "ipset", "create", name, "hash:net")
    world.command("web", "iptables-nft", "-A", *naming)

    pod = pod_of(world, backend=backend)
    with pytest.raises((CommandFailed, NetlinkRefused), match=f"{name} should be hash:ip family inet, .* is in use"):
        await pod.realize(ALLOW, members)
    world.command("web", "iptables-nft", "-D", *naming)
    pod.doubt()
    await pod.realize(ALLOW, members)

    world.listen("web", 80)
    assert world.reaches("a", "web", 80)
    assert not world.reaches("b", "web", 80)


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_a_set_that_someone_swapped_for_a_smaller_one_is_whole_after_the_next_try(world, backend):
    members = sets(clients=both("a"))
    pod = pod_of(world, backend=backend)
    await pod.realize(ALLOW, members)
    name = f"ew-{CLIENTS}-4"
    world.command("web", "ipset", "create", "small", "hash:ip", "maxelem", "10")
    world.command("web", "ipset", "swap", "small", name)

    members[CLIENTS].change({bytes((10, 77, 2, number)) for number in range(1, 100)}, ())
    with pytest.raises((CommandFailed, NetlinkRefused), match="full"):  # some of them are in by now
        await pod.realize(ALLOW, members)
    pod.doubt()
    await pod.realize(ALLOW, members)

    assert world.command("web", "ipset", "save", name).count("add ") == 100
    world.listen("web", 80)
    assert world.reaches("a", "web", 80)


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_an_exception_of_half_of_everything_outlives_a_comparison(world, backend):
    blocks = set_id(SetKind.BLOCKS, "everything but the lower half")
    everything, half = bytes(6), bytes(4) + bytes((1, 1))
    wanted, members = program(egress=isolated(rule(peers=(blocks,)))), sets(**{blocks: {everything, half}})
    await pod_of(world, backend=backend).realize(wanted, members)

    again = pod_of(world, backend=backend)
    assert not await again.realize(wanted, members)

    flipped = f"ew-{blocks}-4"
    world.command("web", "ipset", "-exist", "add", flipped, "0.0.0.0/1")
    again.doubt()
    await again.realize(wanted, members)
    assert "0.0.0.0/1 nomatch" in world.command("web", "ipset", "save", flipped)


async def test_a_pod_without_its_address_on_a_link_is_not_called_enforced(world):
    lost = Sandbox(uid="u", namespace="shop", name="web", netns=world.path("web"), addresses=(b"\x0a\x00\x00\x01",))

    with pytest.raises(Unenforceable):
        await pod_of(world, sandbox=lost).realize(DENY, sets())


async def test_no_packet_slips_through_while_rules_are_rewritten(world):
    """Counted at the receiver: the Pod's own socket."""
    server = world.receive("web", 53)
    server.setblocking(False)
    members = sets(clients=both("b"))
    pod = await enforced(world, ALLOW, members)
    script = (
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "while True:\n s.sendto(b'x',('10.77.1.2',53))\n"
    )
    sender = await asyncio.create_subprocess_exec("nsenter", f"--net={world.path('a')}", sys.executable, "-c", script)
    try:
        eventually("packets to arrive at the rules", lambda: "[0:0]" not in _default_drop(world))
        for port in range(1000, 1030):
            await pod.realize(program(ingress=isolated(rule(PortRange(UDP, port, port)))), members)
    finally:
        sender.kill()
        await sender.wait()

    with pytest.raises(BlockingIOError):
        server.recv(64)


def _default_drop(world: World) -> str:
    """The rule that drops what no rule allows, with its counters."""
    saved = world.command("web", "iptables-nft-save", "-c")
    return next(line for line in saved.splitlines() if "EW-IN-NEW " in line and ":default-" in line)
