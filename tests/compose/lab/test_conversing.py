"""Connections that last, under rules that change."""

from pathlib import Path

import pytest

from compose.lab import namespaces
from compose.lab.listening import Listeners, listeners_of
from compose.lab.network import Lab
from compose.lab.plan import LabPod, Layout
from compose.lab.talk.conversing import Conversation

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]

LAYOUT = Layout(
    pods=(
        LabPod(namespace="x", name="a", addresses=("10.244.1.10", "fd00:1::10")),
        LabPod(namespace="x", name="b", addresses=("10.244.1.11", "fd00:1::11")),
    )
)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize(("address", "command"), [("10.244.1.11", "iptables"), ("fd00:1::11", "ip6tables")])
async def test_a_connection_falls_silent_and_goes_on_with_a_rule(
    lab_root: Path, protocol: str, address: str, command: str
) -> None:
    async with Lab(LAYOUT, root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, [(protocol, 80)]))
        rule = ["PREROUTING", "-t", "mangle", "-i", "eth0", "-p", protocol.lower(), "-j", "DROP"]
        async with lab.converse("x/a", address, 80, protocol=protocol) as talk:
            assert await talk.ask() == "x/b"
            await namespaces.run(lab.pod("x/b").netns, [command, "-A", *rule])
            assert await talk.ask() is None
            await namespaces.run(lab.pod("x/b").netns, [command, "-D", *rule])
            assert await talk.ask(timeout_seconds=5.0) == "x/b"


async def test_a_connection_ends_with_its_server(lab_root: Path) -> None:
    async with Lab(LAYOUT, root=lab_root) as lab, Listeners() as listeners:
        listeners.want(listeners_of(lab.plan, [("TCP", 80)]))
        async with lab.converse("x/a", "10.244.1.11", 80) as talk:
            assert await talk.ask() == "x/b"
            listeners.want(())
            assert await talk.ask() is None


async def test_a_namespace_that_is_gone_is_named(lab_root: Path) -> None:
    async with Lab(LAYOUT, root=lab_root) as lab:
        netns = lab.pod("x/a").netns
    with pytest.raises(namespaces.NoNamespace, match=netns):
        async with Conversation(netns, "10.244.1.11", 80):
            pass
