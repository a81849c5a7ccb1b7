"""One Pod's enforcement in the kernel, shown with real packets."""

import asyncio
import socket
import sys
from collections.abc import Iterable

import pytest

from enforcers import kernel
from enforcers.core.layout import DEFAULT_MARK
from enforcers.core.node_state import TrackedSet
from enforcers.namespaces import CommandFailed
from enforcers.pod import NoInterface, PodEnforcement
from enforcers.runtime import Sandbox
from enforcers.set_backends import BackendName
from enforcers.sockets import NetlinkRefused
from enforcers.uninstalling import uninstall
from schemas import addresses
from schemas.addresses import SCTP, TCP, UDP
from schemas.programs import PortRange, Program, Virtual
from schemas.sets import SetKind, endpoint, set_id
from tests.enforcers.pod_world import (
    CLIENTS,
    PORT_80,
    VIRTUAL_ADDRESSES,
    VIRTUAL_ALLOWED,
    VIRTUAL_PORTS,
    World,
    both,
    eventually,
    isolated,
    packed,
    program,
    rule,
    sets,
)

pytestmark = pytest.mark.netns

DENY = program(ingress=isolated())
ALLOW = program(ingress=isolated(rule(PORT_80)))


def pod_of(world: World, *, sandbox: Sandbox | None = None, backend: BackendName = "netlink") -> PodEnforcement:
    pod = PodEnforcement(sandbox or world.sandbox(), DEFAULT_MARK, backend)
    world.sockets.callback(pod.close)
    return pod


async def enforced(world: World, wanted: Program, members: dict[str, TrackedSet]) -> PodEnforcement:
    pod = pod_of(world)
    await pod.realize(wanted, members)
    return pod


@pytest.mark.parametrize("family", [4, 6])
async def test_an_isolated_pod_admits_nobody_but_its_own_node(world, family):
    world.listen("web", 80, family)
    assert world.reaches("a", "web", 80, family)

    await enforced(world, DENY, sets())

    assert not world.reaches("a", "web", 80, family)
    assert world.reaches("node", "web", 80, family)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_rule_admits_its_set_on_its_ports_only(world, family):
    for port in (80, 81):
        world.listen("web", port, family)

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert world.reaches("a", "web", 80, family)
    assert not world.reaches("a", "web", 81, family)
    assert not world.reaches("b", "web", 80, family)


async def test_more_ports_than_one_rule_holds_are_all_matched(world):
    ports = [*(PortRange(TCP, port, port) for port in range(1000, 1040, 2)), PortRange(TCP, 2000, 2010)]
    for port in (1000, 1038, 2005):
        world.listen("web", port)

    await enforced(world, program(ingress=isolated(rule(*ports))), sets(clients=both("a")))

    assert [world.reaches("a", "web", port) for port in (1000, 1038, 2005)] == [True, True, True]


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_a_membership_change_touches_no_rule(world, backend):
    world.listen("web", 80)
    members = sets()
    pod = pod_of(world, backend=backend)
    await pod.realize(ALLOW, members)
    before = world.handles()

    members[CLIENTS].change(both("a"), ())
    await pod.realize(ALLOW, members)

    assert world.reaches("a", "web", 80)
    members[CLIENTS].change(both("b"), both("a"))
    await pod.realize(ALLOW, members)
    assert not world.reaches("a", "web", 80)
    assert world.reaches("b", "web", 80)
    assert world.handles() == before


@pytest.mark.parametrize("backend", ["netlink", "restore"])
async def test_sets_of_every_kind_follow_many_changes_in_both_families(world, backend):
    blocks, tuples = set_id(SetKind.BLOCKS, "blocks"), set_id(SetKind.TUPLES, "tuples")
    wanted = program(ingress=isolated(rule(peers=(CLIENTS, blocks, tuples))))
    hosts = [bytes((10, 9, number >> 8, number & 255)) for number in range(1500)]
    hosts += [b"\xfd\x09" + bytes(12) + number.to_bytes(2, "big") for number in range(1500)]
    many = {
        CLIENTS: set(hosts),
        blocks: {host + bytes((8 * len(host), number % 2)) for number, host in enumerate(hosts)},
        tuples: {endpoint(host, (TCP, UDP, SCTP)[number % 3], number) for number, host in enumerate(hosts)},
    }
    members = sets(**{blocks: set(), tuples: set()})
    pod = pod_of(world, backend=backend)
    await pod.realize(wanted, members)

    for identity, found in many.items():
        members[identity].change(found, ())
    await pod.realize(wanted, members)
    assert await held(world, many) == many

    fewer = {identity: set(sorted(found)[::3]) for identity, found in many.items()}
    for identity, found in fewer.items():
        members[identity].change((), many[identity] - found)
    await pod.realize(wanted, members)
    assert await held(world, many) == fewer


async def held(world: World, identities: Iterable[str]) -> dict[str, set[bytes]]:
    """What the kernel's sets hold, as the tool tells."""
    found = (await kernel.observe(world.path("web"))).sets
    return {identity: {*(found[identity, 4] or ()), *(found[identity, 6] or ())} for identity in identities}


async def test_replies_to_the_pods_own_connections_pass_its_isolated_side(world):
    world.listen("a", 80)

    await enforced(world, DENY, sets())

    assert world.reaches("web", "a", 80)


async def test_isolated_egress_reaches_what_rules_allow_and_the_own_node(world):
    for name in ("a", "b", "node"):
        world.listen(name, 80)

    await enforced(world, program(egress=isolated(rule(PORT_80))), sets(clients=both("a")))

    assert world.reaches("web", "a", 80)
    assert not world.reaches("web", "b", 80)
    assert world.reaches("web", "node", 80)


async def test_a_block_with_an_exception_and_one_of_everything(world):
    blocks = set_id(SetKind.BLOCKS, "everything but b")
    everything = addresses.pack("0.0.0.0") + bytes((0, 0))
    exception = packed("b") + bytes((32, 1))
    for name in ("a", "b"):
        world.listen(name, 80)

    wanted = program(egress=isolated(rule(PORT_80, peers=(blocks,))))
    await enforced(world, wanted, sets(**{blocks: {everything, exception}}))

    assert world.reaches("web", "a", 80)
    assert not world.reaches("web", "b", 80)


async def test_a_virtual_address_is_open_only_where_it_is_allowed_itself(world):
    virtual = Virtual(addresses=VIRTUAL_ADDRESSES, ports=VIRTUAL_PORTS, allowed=(VIRTUAL_ALLOWED,))
    for port in (80, 81):
        world.listen("a", port)
    world.listen("b", 80)

    wanted = program(egress=isolated(rule(peers=None), virtual=virtual))
    members = {
        VIRTUAL_ADDRESSES: {packed("a")},
        VIRTUAL_PORTS: set[bytes](),
        VIRTUAL_ALLOWED: {endpoint(packed("a"), TCP, 80)},
    }
    await enforced(world, wanted, sets(**members))

    assert world.reaches("web", "a", 80)
    assert not world.reaches("web", "a", 81)
    assert world.reaches("web", "b", 80)


async def test_an_allowed_connection_survives_every_change_that_still_allows_it(world):
    listener = world.listen("web", 80)
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client = world.connect("a", "web", 80)
    server = world.accept(listener)

    wider = program(ingress=isolated(rule(PORT_80), rule(PortRange(TCP, 443, 443))), egress=isolated())
    await pod.realize(wider, members)
    await pod.audit(wider, members, dict)

    client.sendall(b"still here")
    assert server.recv(64) == b"still here"
    server.sendall(b"so am I")
    assert client.recv(64) == b"so am I"


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
    cuts = await pod.audit(ALLOW, members, dict)

    assert [cut.connection.original.source for cut in cuts] == [packed("a")]
    client, server = pairs["a"]
    server.sendall(b"pushed by the server")  # goes out unmarked: nobody isolates egress, and a reply earns no mark
    client.sendall(b"asked again")
    with pytest.raises(TimeoutError):
        server.recv(64)
    client, server = pairs["b"]
    client.sendall(b"kept")
    assert server.recv(64) == b"kept"
    assert await pod.audit(ALLOW, members, dict) == []

    members[CLIENTS].change(both("a"), ())
    await pod.realize(ALLOW, members)
    server = pairs["a"][1]
    server.settimeout(5)
    assert server.recv(64) == b"asked again"  # allowing again resumes it


async def test_a_syn_from_the_port_of_a_cut_connection_is_judged_anew(world):
    listener = world.listen("web", 80)
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client = world.connect("a", "web", 80)
    world.accept(listener)
    name = client.getsockname()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    members[CLIENTS].change((), both("a"))
    await pod.realize(ALLOW, members)  # and no audit: the entry keeps its mark
    client.close()
    again = world.open_socket("a")
    again.bind(name)

    with pytest.raises(TimeoutError):
        again.connect(("10.77.1.2", 80))


async def test_udp_follows_rules_and_marks_alike(world):
    server = world.open_socket("web", kind=socket.SOCK_DGRAM)
    server.bind(("10.77.1.2", 53))
    wanted = program(ingress=isolated(rule(PortRange(UDP, 53, 53))))
    await enforced(world, wanted, sets(clients=both("a")))

    for name in ("a", "b"):
        world.open_socket(name, kind=socket.SOCK_DGRAM).sendto(name.encode(), ("10.77.1.2", 53))

    data, peer = server.recvfrom(64)
    assert (data, peer[0]) == (b"a", "10.77.1.3")
    with pytest.raises(TimeoutError):
        server.recvfrom(64)


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
    listener = world.listen("web", 80)
    members = sets(clients=both("a"))
    pod = await enforced(world, ALLOW, members)
    client = world.connect("a", "web", 80)
    server = world.accept(listener)

    await pod.realize(program(), members)

    assert "EW-" not in world.rules() + world.rules(family=6)
    assert "ew-" not in world.command("web", "ipset", "list", "-n")
    client.sendall(b"goes on")
    assert server.recv(64) == b"goes on"


async def test_uninstalling_leaves_nothing_of_ours_and_everything_else(world):
    world.command("web", "iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-p", "udp", "-j", "DROP")
    before = world.foreign_rules()
    await enforced(world, ALLOW, sets(clients=both("a")))

    await uninstall([world.path("web")])

    assert world.rules().replace(before, "") == ""
    assert not await kernel.observe(world.path("web"))
    world.listen("web", 80)
    assert world.reaches("b", "web", 80)


async def test_what_the_kernel_refuses_is_an_error_and_the_next_try_repairs(world):
    members = sets(clients=both("a"))
    world.command("web", "ipset", "create", f"ew-{CLIENTS}-4", "hash:ip", "family", "inet6")

    pod = pod_of(world)
    with pytest.raises((CommandFailed, NetlinkRefused)):
        await pod.realize(ALLOW, members)
    world.command("web", "ipset", "destroy", f"ew-{CLIENTS}-4")
    await pod.realize(ALLOW, members)

    world.listen("web", 80)
    assert world.reaches("a", "web", 80)
    assert not world.reaches("b", "web", 80)


async def test_a_pod_without_its_address_on_a_link_is_not_called_enforced(world):
    lost = Sandbox(uid="u", namespace="shop", name="web", netns=world.path("web"), addresses=(b"\x0a\x00\x00\x01",))

    with pytest.raises(NoInterface):
        await pod_of(world, sandbox=lost).realize(DENY, sets())


async def test_no_packet_slips_through_while_rules_are_rewritten(world):
    """Counted at the receiver: the Pod's own socket."""
    server = world.open_socket("web", kind=socket.SOCK_DGRAM)
    server.bind(("10.77.1.2", 53))
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
    return next(line for line in saved.splitlines() if ":default-" in line)
