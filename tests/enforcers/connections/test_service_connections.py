"""Connections through a Service, in the lab's real address translation: the node's table knows who is behind them."""

import contextlib
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from compose.lab.network import Lab
from compose.lab.plan import LabPod, Layout, VirtualPort
from enforcers.core.connections.cutting import Cut
from enforcers.core.layout import DEFAULT_MARK
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel import namespaces
from enforcers.pods.pod import PodEnforcement
from schemas import addresses
from schemas.addresses import PROTOCOL_NAMES, TCP
from schemas.programs import Virtual
from schemas.sets import endpoint
from tests.enforcers.connections.conversing import FIRST_PORT, KINDS, conversations
from tests.enforcers.pod_world import (
    VIRTUAL_ADDRESSES,
    VIRTUAL_ALLOWED,
    VIRTUAL_PORTS,
    isolated,
    program,
    rule,
    sets,
)
from tests.enforcers.sockets import Sockets, passes

pytestmark = pytest.mark.netns

PODS: Final = {"web": (2, "node-1"), "a": (3, "node-1"), "b": (4, "node-2")}
TARGET_OFFSET: Final = 1000
"""From a Service's port to its endpoint's."""
SHARED: Final = 100
"""The number of the Service that has two endpoints, and its port."""


def own(name: str, family: int) -> str:
    number, _ = PODS[name]
    return f"10.244.1.{number}" if family == 4 else f"fd00:1::{number}"


def virtual(number: int, family: int) -> str:
    return f"10.96.0.{number}" if family == 4 else f"fd00:96::{number}"


def service(number: int, port: int, protocol: int, *endpoints: str) -> VirtualPort:
    return VirtualPort(
        service=f"shop/{'-'.join(endpoints)}",
        addresses=tuple(virtual(number, family) for family in (4, 6)),
        protocol=PROTOCOL_NAMES[protocol],
        port=port,
        endpoints=tuple((own(name, family), port + TARGET_OFFSET) for name in endpoints for family in (4, 6)),
    )


class Behind(Sockets):
    """Every Pod of the lab is reached by its Service."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab

    def path(self, name: str) -> Path:
        return Path("/run/netns") / self.lab.pod(f"shop/{name}").netns

    def address(self, name: str, family: int) -> str:
        return own(name, family)

    def reached_at(self, name: str, port: int, family: int) -> tuple[str, int]:
        return virtual(PODS[name][0], family), port - TARGET_OFFSET


VIPS: Final = {addresses.pack(virtual(number, family)) for number in (2, 3, 4, SHARED) for family in (4, 6)}
WANTED: Final = program(
    ingress=isolated(rule()),
    egress=isolated(
        rule(), virtual=Virtual(addresses=VIRTUAL_ADDRESSES, ports=VIRTUAL_PORTS, allowed=(VIRTUAL_ALLOWED,))
    ),
)


def members(*admitted: str) -> dict[str, TrackedSet]:
    """The sets as they are where web may speak with these, both ways, and each alone behind a Service."""
    allowed = {
        endpoint(addresses.pack(virtual(PODS[name][0], kind.family)), kind.protocol, port - TARGET_OFFSET)
        for name in admitted
        for port, kind in enumerate(KINDS, start=FIRST_PORT)
    }
    packed = {addresses.pack(own(name, family)) for name in admitted for family in (4, 6)}
    virtual_sets = {VIRTUAL_ADDRESSES: VIPS, VIRTUAL_PORTS: set[bytes](), VIRTUAL_ALLOWED: allowed}
    return sets(node=set(), clients=packed, **virtual_sets)


@pytest_asyncio.fixture
async def behind(capable: None, tmp_path: Path) -> AsyncIterator[Behind]:
    services = [
        service(PODS["web" if kind.inbound else kind.peer][0], port - TARGET_OFFSET, kind.protocol, target)
        for port, kind in enumerate(KINDS, start=FIRST_PORT)
        for target in ("web" if kind.inbound else kind.peer,)
    ]
    pods = tuple(
        LabPod(namespace="shop", name=name, uid=f"uid-{name}", node=node, addresses=(own(name, 4), own(name, 6)))
        for name, (_, node) in PODS.items()
    )
    layout = Layout(pods=pods, services=(*services, service(SHARED, SHARED, TCP, "a", "b")))
    async with Lab(layout, root=tmp_path / "eastwest") as lab:
        sockets = Behind(lab)
        with sockets.sockets:
            yield sockets


def enforcement(behind: Behind, cuts: list[Cut]) -> PodEnforcement:
    (sandbox,) = (each for each in behind.lab.sandboxes("node-1") if each.name == "web")
    pod = PodEnforcement(
        sandbox, DEFAULT_MARK, node_netns=behind.lab.node_netns("node-1"), cut=lambda _, found: cuts.extend(found)
    )
    behind.sockets.callback(pod.close)
    return pod


async def test_a_first_rule_and_a_tightening_judge_the_endpoint_behind_the_service(behind):
    cuts: list[Cut] = []
    pod = enforcement(behind, cuts)
    forbidden = len([kind for kind in KINDS if kind.peer == "b"])
    with conversations(behind) as talks:
        held = members("a", "b")
        await pod.realize(WANTED, held)
        talks.await_news()
        assert cuts == []

        for identity, wanted in members("a").items():
            held[identity].change(wanted.members, held[identity].members - wanted.members)
        await pod.realize(WANTED, held)
        await pod.audit()
        assert len(cuts) == forbidden
        with talks.counting(ingress=True, egress=True) as delivered:
            talks.await_news(ingress=True, egress=True)
            assert await pod.audit() == []

        assert talks.lost(ingress=True, egress=True) == {}
    assert len(delivered) == forbidden
    assert not any(delivered.values())


async def test_a_first_rule_ends_what_it_forbids_behind_a_service(behind):
    cuts: list[Cut] = []
    with conversations(behind) as talks:
        await enforcement(behind, cuts).realize(WANTED, members("a"))
        with talks.counting(ingress=True, egress=True) as delivered:
            talks.await_news(ingress=True, egress=True)

        assert talks.lost(ingress=True, egress=True) == {}
    assert delivered
    assert not any(delivered.values())
    assert len(cuts) == len(delivered)


async def test_of_the_endpoints_of_one_service_each_connection_is_judged_by_its_own(behind):
    """No new connection may be begun to it, since one endpoint is not allowed; what goes to the other one goes on."""
    listeners = {name: behind.listen(name, SHARED + TARGET_OFFSET) for name in ("a", "b")}
    for listener in listeners.values():
        listener.setblocking(False)
    talks: dict[str, tuple[socket.socket, socket.socket]] = {}
    while talks.keys() != listeners.keys():
        client = behind.open_socket("web")
        client.connect((virtual(SHARED, 4), SHARED))
        for name, listener in listeners.items():
            with contextlib.suppress(BlockingIOError):
                talks[name] = client, behind.accept(listener)

    await enforcement(behind, []).realize(WANTED, members("a"))

    assert passes(*reversed(talks["a"]))
    assert passes(*talks["a"])
    assert not passes(*reversed(talks["b"]))
    with pytest.raises(TimeoutError):
        behind.open_socket("web").connect((virtual(SHARED, 4), SHARED))


async def test_what_the_node_does_not_know_is_kept_and_is_a_problem_until_it_can_be_judged(behind):
    """Its table may have been flushed; which of the two endpoints it is nobody can say then."""
    listeners = [behind.listen(name, SHARED + TARGET_OFFSET) for name in ("a", "b")]
    client = behind.open_socket("web")
    client.connect((virtual(SHARED, 4), SHARED))
    ready, _, _ = select.select(listeners, [], [], 5)
    behind.accept(ready[0])
    await namespaces.run(behind.lab.node_netns("node-1"), ["conntrack", "-F"])
    cuts: list[Cut] = []
    pod = enforcement(behind, cuts)
    held = members("a")

    await pod.realize(WANTED, held)
    kept = ("1 connections to virtual addresses kept: the node knows no endpoint of theirs",)
    assert (pod.problems, cuts) == (kept, [])
    await pod.audit()
    assert (pod.problems, cuts) == (kept, [])

    held[VIRTUAL_ALLOWED].change({endpoint(addresses.pack(virtual(SHARED, 4)), TCP, SHARED)}, set())
    await pod.realize(WANTED, held)
    await pod.audit()
    assert (pod.problems, cuts) == ((), [])
