"""What a namespace holds may be doubted while somebody writes to it: a Pod gets another address, or goes, meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from enforcers.kernel import tables
from enforcers.kernel.connections import judging
from tests.enforcers.pod_world import ALLOW, both, pod_of, sets

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]

Write = Callable[..., Awaitable[None]]


def after_each_write(monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> None:
    """*do* something while a Pod is being programmed."""
    write: Write = tables.write

    async def wrote(*arguments: Any) -> None:
        await write(*arguments)
        do()

    monkeypatch.setattr(tables, "write", wrote)


async def test_a_pod_whose_connections_are_being_adopted_gets_its_rules_all_the_same(world, monkeypatch):
    world.connected("a", "web", 80)
    pod, loop, adopt = pod_of(world), asyncio.get_running_loop(), judging.adopt

    def adopted(*arguments: Any) -> judging.Judged:  # in a thread
        judged = adopt(*arguments)
        loop.call_soon_threadsafe(pod.doubt)
        return judged

    monkeypatch.setattr(judging, "adopt", adopted)

    await pod.realize(ALLOW, sets(clients=both("a")))

    assert (world.reaches("a", "web", 80), world.reaches("b", "web", 80)) == (True, False)


async def test_another_namespace_that_came_during_a_write_gets_rules_of_its_own(world, monkeypatch, tmp_path):
    named = tmp_path / "namespace"
    world.nest("before", "addr add 10.77.1.2/24 dev eth0", "addr add fd77::2/64 dev eth0")
    named.symlink_to(world.path("before"))
    sandbox = replace(world.sandbox(), netns=named)
    pod = pod_of(world, sandbox=sandbox)

    def come_again() -> None:
        named.unlink()
        named.symlink_to(world.path("web"))
        assert pod.let_go_if_gone()

    with monkeypatch.context() as patching:
        after_each_write(patching, come_again)
        await pod.realize(ALLOW, sets(clients=both("a")))
    await pod.realize(ALLOW, sets(clients=both("a")))

    world.listen("web", 80)
    assert (world.reaches("a", "web", 80), world.reaches("b", "web", 80)) == (True, False)
