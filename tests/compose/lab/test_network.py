"""The lab's network with real packets."""

import asyncio
import contextlib
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from compose.lab import namespaces, state
from compose.lab.listening import Arrival, Listeners, listeners_of
from compose.lab.matrix import full_matrix, service_probes
from compose.lab.network import Lab
from compose.lab.plan import LabNode, LabPod, Layout, VirtualPort
from compose.lab.probing import Outcome, Probe, probe_all
from compose.lab.talk.sockets import make
from compose.lab.wires.checking import NotClosed, check_closed
from compose.lab.wires.removing import existing
from compose.lab.wires.wiring import wire

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]

PORTS = [("TCP", 80), ("UDP", 80), ("SCTP", 80)]
QUESTIONS = [*PORTS, ("ICMP", 0)]
"""What the matrix asks: echo beside."""


def pod(name: str, *addresses: str, node: str = "", host_network: bool = False, uid: str = "") -> LabPod:
    return LabPod(
        namespace="x", name=name, uid=uid or f"uid-{name}", addresses=addresses, node=node, host_network=host_network
    )


TRIO = (
    pod("a", "10.244.1.10", "fd00:1::10", node="node-1"),
    pod("b", "10.244.1.11", "fd00:1::11", node="node-1"),
    pod("c", "10.244.1.12", "fd00:1::12", node="node-2"),
)


async def matrix(lab: Lab, version: int):
    """(source, destination, protocol) → outcome of every pair, after listening everywhere; echo too."""
    async with Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        answers = await probe_all(full_matrix(lab.plan, QUESTIONS, version=version))
    for probe, answer in answers.items():
        assert answer.by in ("", "outside", probe.destination)
    return {(probe.source, probe.destination, probe.protocol): answer.outcome for probe, answer in answers.items()}


def in_pod(lab: Lab, key: str, *command: str) -> str:
    path = namespaces.path_of(lab.pod(key).netns)
    done = subprocess.run(["nsenter", f"--net={path}", *command], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("version", [4, 6])
async def test_without_rules_everybody_reaches_everybody_and_itself(lab_root: Path, version: int) -> None:
    async with Lab(Layout(pods=TRIO, externals=("203.0.113.7", "2001:db8::7")), root=lab_root) as lab:
        outcomes = await matrix(lab, version)

    assert len(outcomes) == (4 * 4 - 1) * len(QUESTIONS)
    assert set(outcomes.values()) == {Outcome.REACHABLE}


async def test_any_address_may_be_on_any_node(lab_root: Path) -> None:
    pods = (
        pod("near", "192.168.7.9", node="one"),
        pod("neighbour", "192.168.7.10", node="two"),
        pod("far", "10.247.3.200", node="three"),
        pod("host", "172.18.0.2", node="two", host_network=True),
    )
    async with Lab(Layout(pods=pods), root=lab_root) as lab:
        assert set((await matrix(lab, 4)).values()) == {Outcome.REACHABLE}
        assert "172.18.0.2" in lab.plan.node("two").addresses
        assert [sandbox.name for sandbox in lab.sandboxes()] == ["near", "neighbour", "far"]


@pytest.mark.parametrize(("version", "command"), [(4, "iptables"), (6, "ip6tables")])
async def test_a_drop_in_a_pods_namespace_is_seen_as_blocked(lab_root: Path, version: int, command: str) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab:
        in_pod(lab, "x/b", command, "-t", "mangle", "-A", "PREROUTING", "-i", "eth0", "-j", "DROP")
        outcomes = await matrix(lab, version)

    for (source, destination, _), outcome in outcomes.items():
        touched = "x/b" in (source, destination) and source != destination
        assert outcome is (Outcome.BLOCKED if touched else Outcome.REACHABLE)


@pytest.mark.parametrize(("version", "command", "a"), [(4, "iptables", "10.244.1.10"), (6, "ip6tables", "fd00:1::10")])
async def test_sctp_that_is_dropped_never_arrives(lab_root: Path, version: int, command: str, a: str) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, [("SCTP", 80), ("SCTP", 81)]))
        rule = f"-t mangle -A PREROUTING -p sctp --dport 81 -s {a} -j DROP"
        in_pod(lab, "x/c", command, *rule.split())
        probes = full_matrix(lab.plan, [("SCTP", 80), ("SCTP", 81)], version=version, sources=["x/a"])
        answers = await probe_all(probes)

    blocked = {(probe.destination, probe.port) for probe in probes if answers[probe].outcome is Outcome.BLOCKED}
    assert blocked == {("x/c", 81)}
    arrived = {(arrival.identity, arrival.port) for arrival in listeners.arrivals if arrival.source == a}
    assert arrived == {("x/a", 80), ("x/a", 81), ("x/b", 80), ("x/b", 81), ("x/c", 80)}


async def test_a_closed_port_is_refused_and_an_unknown_address_unreachable(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        netns = lab.pod("x/a").netns
        closed = [
            Probe(source="x/a", netns=netns, destination="x/c", address="10.244.1.12", protocol=protocol, port=9)
            for protocol in ("TCP", "UDP", "SCTP")
        ]
        nowhere = Probe(source="x/a", netns=netns, destination="?", address="8.8.8.8", protocol="UDP", port=53)
        answers = await probe_all([*closed, nowhere])

    assert [answers[probe].outcome for probe in closed] == [Outcome.REFUSED] * 3
    assert answers[nowhere].outcome is Outcome.UNREACHABLE


def service(*endpoints: tuple[str, int], protocol: str = "TCP", node_port: int | None = None) -> VirtualPort:
    return VirtualPort(
        service="x/web",
        addresses=("10.96.0.1", "fd00:96::1"),
        protocol=protocol,
        port=8080,
        endpoints=endpoints,
        node_port=node_port,
    )


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
async def test_a_cluster_address_leads_to_its_endpoints_in_turn(lab_root: Path, protocol: str) -> None:
    web = service(("10.244.1.11", 80), ("10.244.1.12", 80), ("fd00:1::12", 80), protocol=protocol)
    async with Lab(Layout(pods=TRIO, services=(web,)), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        reached = Counter()
        for _ in range(20):
            answers = await probe_all(service_probes(lab.plan, sources=["x/a"]))
            reached.update((probe.address, answer.by) for probe, answer in answers.items())

    assert set(reached) == {("10.96.0.1", "x/b"), ("10.96.0.1", "x/c"), ("fd00:96::1", "x/c")}
    seen = {arrival.source for arrival in listeners.arrivals}
    assert seen == {"10.244.1.10", "fd00:1::10"}, "the endpoint sees the client, not the node"


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
async def test_a_pod_reaches_itself_through_its_service_with_its_nodes_address(lab_root: Path, protocol: str) -> None:
    own = service(("10.244.1.10", 80), ("fd00:1::10", 80), protocol=protocol)
    async with Lab(Layout(pods=TRIO, services=(own,)), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        answers = await probe_all(service_probes(lab.plan, sources=["x/a"]))
        gateways = set(lab.plan.node("node-1").gateways)

    assert {answer.by for answer in answers.values()} == {"x/a"}
    assert {arrival.source for arrival in listeners.arrivals} == gateways


async def test_endpoints_change_live_and_a_service_without_any_refuses(lab_root: Path) -> None:
    layout = Layout(pods=TRIO, services=(service(("10.244.1.11", 80), ("fd00:1::11", 80)),))
    async with Lab(layout, root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        first = await probe_all(service_probes(lab.plan, sources=["x/a"]))
        await lab.apply(Layout(pods=TRIO, services=(service(("10.244.1.12", 80), ("fd00:1::12", 80)),)))
        second = await probe_all(service_probes(lab.plan, sources=["x/a"]))
        await lab.apply(Layout(pods=TRIO, services=(service(),)))
        third = await probe_all(service_probes(lab.plan, sources=["x/a"]))

    assert {answer.by for answer in first.values()} == {"x/b"}
    assert {answer.by for answer in second.values()} == {"x/c"}
    assert {answer.outcome for answer in third.values()} == {Outcome.REFUSED}


async def test_udp_follows_its_service_to_the_new_endpoint(lab_root: Path) -> None:
    """As kube-proxy: the node forgets flows of endpoints that went, or a busy UDP client would never leave them."""
    before = Layout(pods=TRIO, services=(service(("10.244.1.11", 80), protocol="UDP"),))
    after = Layout(pods=TRIO, services=(service(("10.244.1.12", 80), protocol="UDP"),))
    async with Lab(before, root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        async with lab.converse("x/a", "10.96.0.1", 8080, protocol="UDP") as talk:
            assert await talk.ask() == "x/b"
            await lab.apply(after)
            assert await talk.ask() == "x/c"


async def test_a_node_port_leads_to_an_endpoint_on_another_node(lab_root: Path) -> None:
    web = service(("10.244.1.12", 80), node_port=30080)
    layout = Layout(pods=TRIO, services=(web,), externals=("203.0.113.7",))
    async with Lab(layout, root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        node = next(address for address in lab.plan.node("node-1").addresses if "." in address)
        probe = Probe(
            source="outside",
            netns=lab.plan.outside,
            source_address="203.0.113.7",
            destination="node port",
            address=node,
            protocol="TCP",
            port=30080,
        )
        answers = await probe_all([probe])

    assert answers[probe].by == "x/c"
    assert {arrival.source for arrival in listeners.arrivals} == {node}


async def test_pods_come_go_move_and_change_their_address_live(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab:
        before = lab.pod("x/a")
        changed = (
            TRIO[0],
            pod("b", "10.244.9.9", "fd00:9::9", node="node-1"),
            pod("c", "10.244.1.12", "fd00:1::12", node="node-1"),
            pod("d", "10.244.1.11", "fd00:1::11", node="node-3"),
        )
        await lab.apply(Layout(pods=changed))
        for version in (4, 6):
            outcomes = await matrix(lab, version)
            assert len(outcomes) == 16 * len(QUESTIONS)
            assert set(outcomes.values()) == {Outcome.REACHABLE}
        assert lab.pod("x/a") == before
        assert "10.244.1.11" not in in_pod(lab, "x/b", "ip", "-br", "address")

        await lab.apply(Layout(pods=changed[:1]))
        assert set(await matrix(lab, 4)) == {("x/a", "x/a", protocol) for protocol, _ in QUESTIONS}
        assert not any("pod.x.d" in name for name in existing(lab.name))


async def test_nobody_loses_its_way_when_others_come_and_go(lab_root: Path) -> None:
    crowd = tuple(
        pod(f"p{number}", f"10.244.5.{number + 1}", f"fd00:5::{number + 1:x}", node="node-1") for number in range(8)
    )
    probes = []
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        for version in (4, 6):
            probes += full_matrix(lab.plan, PORTS, version=version)
        for number in (0, 8, 3, 1, 5, 0, 2):
            await lab.apply(Layout(pods=(*TRIO, *crowd[:number])))
            answers = await probe_all(probes)
            assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}


async def test_a_pod_of_the_same_name_with_another_uid_gets_a_fresh_namespace(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        answers = await probe_all(full_matrix(lab.plan, PORTS))  # now everybody knows the hardware of everybody
        assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}
        in_pod(lab, "x/a", "iptables", "-A", "INPUT", "-j", "DROP")
        successor = pod("a", "10.244.1.10", "fd00:1::10", node="node-1", uid="another")
        await lab.apply(Layout(pods=(successor, *TRIO[1:])))
        listeners.want(listeners_of(lab.plan, PORTS))

        assert "DROP" not in in_pod(lab, "x/a", "iptables", "-S", "INPUT")
        # Only from others: what it sent itself would tell them where it is now.
        answers = await probe_all(full_matrix(lab.plan, PORTS, sources=["x/b", "x/c"]))
        assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}


async def test_nothing_leads_out_of_the_lab(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO, externals=("203.0.113.7",)), root=lab_root) as lab:
        wirings = wire(lab.plan)
        assert set(wirings) == set(existing(lab.name))
        check_closed(wirings)
        for name in existing(lab.name):
            routes = await namespaces.run(name, ["ip", "route", "show", "default"])
            routes += await namespaces.run(name, ["ip", "-6", "route", "show", "default"])
            assert bool(routes) is ("-pod." in name)

        await namespaces.run(lab.plan.outside, ["ip", "link", "add", "way-out", "type", "bridge"])
        await namespaces.run(lab.plan.outside, ["ip", "link", "set", "way-out", "up"])
        await namespaces.run(lab.plan.outside, ["ip", "addr", "add", "198.51.100.1/24", "dev", "way-out"])
        with pytest.raises(NotClosed, match="way-out"):
            check_closed(wirings)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def namespaces_of_threads() -> set[Path]:
    return {path.readlink() for path in Path("/proc/self/task").glob("*/ns/net")}


async def test_a_lab_leaves_nothing_behind(lab_root: Path) -> None:
    descriptors = open_files()
    tasks = len(asyncio.all_tasks())
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab:
        await matrix(lab, 4)
        assert existing(lab.name)

    assert existing(lab.name) == []
    assert state.labs(lab_root) == {}
    assert open_files() == descriptors
    assert len(asyncio.all_tasks()) == tasks
    assert len(namespaces_of_threads()) == 1


async def test_silence_of_a_busy_machine_is_not_taken_for_a_drop(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, PORTS))
        loop = asyncio.get_running_loop()
        loop.call_later(0, time.sleep, 0.4)  # the loop is stuck, and with it the servers, for longer than the limit
        answers = await probe_all(full_matrix(lab.plan, PORTS), timeout_seconds=0.2)

    assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}


async def test_a_machine_that_is_busy_in_between_is_no_drop_either(lab_root: Path) -> None:
    """Raw sockets hear each other's questions as well, so their answers come late in their queues."""
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab, Listeners() as listeners:
        ports = [("SCTP", 80), ("SCTP", 81)]
        listeners.want(listeners_of(lab.plan, ports))
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, time.sleep, 0.15)  # over before the limit, and there is little left of it
        answers = await probe_all(full_matrix(lab.plan, ports), timeout_seconds=0.2)

    assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}


async def test_an_outside_address_that_goes_takes_no_other_way_along(lab_root: Path) -> None:
    pods = (pod("a", "10.244.1.10", node="node-1"), pod("c", "10.244.1.12", node="node-2"))
    async with Lab(Layout(pods=pods, externals=("203.0.113.7",)), root=lab_root) as lab, Listeners() as listeners:
        await lab.apply(Layout(pods=pods))
        await lab.apply(Layout(pods=pods[:1], externals=("10.244.1.12",)))  # a Pod's address is beyond the cluster now
        await lab.apply(Layout(pods=pods, externals=("203.0.113.8",)))
        listeners.want(listeners_of(lab.plan, [("TCP", 80)]))
        answers = await probe_all(full_matrix(lab.plan, [("TCP", 80)], version=4))

    assert len(answers) == 8
    assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}


async def test_an_outside_address_that_is_also_a_services_answers_on_other_ports(lab_root: Path) -> None:
    shared = VirtualPort(service="x/web", addresses=("203.0.113.7",), port=8080, endpoints=(("10.244.1.11", 80),))
    layout = Layout(pods=TRIO, services=(shared,), externals=("203.0.113.7",))
    async with Lab(layout, root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, [("TCP", 80)]))
        probes = [
            Probe(
                source="x/a",
                netns=lab.pod("x/a").netns,
                destination="?",
                address="203.0.113.7",
                protocol="TCP",
                port=port,
            )
            for port in (80, 8080)
        ]
        answers = await probe_all(probes)

    assert [answers[probe].by for probe in probes] == ["outside", "x/b"]


async def test_a_server_that_accepts_and_says_nothing_is_asked_twice(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as lab:
        with contextlib.closing(namespaces.inside(lab.pod("x/b").netns, lambda: make("TCP", "10.244.1.11"))) as mute:
            mute.bind(("10.244.1.11", 80))
            mute.listen()
            probes = full_matrix(lab.plan, [("TCP", 80)], version=4, sources=["x/a"])
            answers = await probe_all([probe for probe in probes if probe.destination == "x/b"])

    assert [(answer.outcome, answer.attempts) for answer in answers.values()] == [(Outcome.BLOCKED, 2)]


async def test_labs_live_side_by_side(lab_root: Path) -> None:
    async with Lab(Layout(pods=TRIO), root=lab_root) as one, Lab(Layout(pods=TRIO[:1]), root=lab_root) as other:
        assert set((await matrix(one, 4)).values()) == {Outcome.REACHABLE}
        assert set(await matrix(other, 4)) == {("x/a", "x/a", protocol) for protocol, _ in QUESTIONS}


async def test_a_hundred_pods_are_there_in_one_go(lab_root: Path) -> None:
    pods = tuple(pod(f"p{number}", f"10.244.{number % 3}.{number + 1}") for number in range(100))
    async with Lab(Layout(nodes=(LabNode(name="n1"), LabNode(name="n2")), pods=pods), root=lab_root) as lab:
        assert Counter(planned.pod.node for planned in lab.plan.pods) == {"n1": 50, "n2": 50}
        async with Listeners() as listeners:
            listeners.want(listeners_of(lab.plan, [("TCP", 80)]))
            answers = await probe_all(full_matrix(lab.plan, [("TCP", 80)], sources=["x/p0", "x/p99"]))

    assert len(answers) == 200
    assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}
    assert listeners.arrivals[Arrival(identity="x/p5", protocol="TCP", port=80, source="10.244.0.1")] == 1
