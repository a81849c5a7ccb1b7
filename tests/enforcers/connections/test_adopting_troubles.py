"""However many connections a Pod has, and whatever hinders us to judge them: it does not stay open for that."""

import asyncio
import errno
import threading
from typing import Any

import pytest

from enforcers.kernel.connections import judging
from enforcers.kernel.sockets import NetlinkRefused
from tests.enforcers.cven_world import until
from tests.enforcers.pod_world import ALLOW, DENY, both, enforced, isolated, pod_of, program, rule, sets
from tests.enforcers.sockets import passes

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]


async def test_rules_drop_though_the_connections_are_not_all_known_yet(world, monkeypatch):
    client, server = world.connected("a", "web", 80)
    adopt, go_on = judging.adopt, threading.Event()

    def slowly(*arguments: Any) -> judging.Judged:
        assert go_on.wait(20)
        return adopt(*arguments)

    monkeypatch.setattr(judging, "adopt", slowly)
    pod = pod_of(world)
    writing = asyncio.create_task(pod.realize(ALLOW, sets(clients=both("a"))))
    try:
        await until("rules that drop", lambda: "-j DROP" in world.rules(), seconds=10)
        assert not world.reaches("b", "web", 80)
    finally:
        go_on.set()
    await writing

    assert passes(server, client)  # and who is allowed is served once it is known


async def test_rules_drop_though_nobody_can_judge_the_connections(world, monkeypatch):
    client, server = world.connected("b", "web", 80)

    def refused(*_: Any) -> judging.Judged:
        raise NetlinkRefused(errno.EBUSY)

    monkeypatch.setattr(judging, "adopt", refused)
    with pytest.raises(NetlinkRefused):
        await pod_of(world).realize(DENY, sets())

    assert not world.reaches("b", "web", 80)
    assert not passes(client, server)


async def test_what_was_closed_is_closed_again_before_anybody_is_judged(world, monkeypatch):
    """By a foreign hand it was open for a moment; it is not for us to make that longer."""
    listener = world.listen("web", 80)
    pod = await enforced(world, program(ingress=isolated(rule())), sets(clients=both("a")))
    client = world.connect("a", "web", 80)
    server = world.accept(listener)
    adopt, met = judging.adopt, []

    def watched(*arguments: Any) -> judging.Judged:
        met.append((world.reaches("b", "web", 80), passes(client, server), passes(server, client)))
        return adopt(*arguments)

    monkeypatch.setattr(judging, "adopt", watched)
    world.command("web", "nft", "flush", "ruleset")
    pod.doubt()
    await pod.realize(program(ingress=isolated(rule())), sets(clients=both("a")))

    assert met[0] == (False, True, True)


async def test_more_connections_than_are_adopted_are_counted_and_those_adopted_keep_their_entries(world, monkeypatch):
    monkeypatch.setattr(judging, "MOST", 8)
    pairs = [world.connected("a", "web", 8000 + number) for number in range(12)]
    pod = await enforced(world, program(ingress=isolated(rule())), sets(clients=both("a")))

    assert "were not adopted" in "".join(pod.problems)
    assert sum(passes(client, server) for client, server in pairs) == len(pairs)  # judged by their next packet
