"""Conversations of real Pods, direct and through a real kube-proxy, that are under way while policy changes."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import product
from typing import Any, Final, NamedTuple

import pytest

from compose.lab.listening import Listener, Listeners
from compose.lab.talk.conversing import Conversation
from tests.components.waiting import until
from tests.node.fixtures.pods import netns_of
from tests.node.fixtures.serving import families, label, served_by, to
from tests.node.fixtures.shop import Shop, opened
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

SERVERS: Final = ("web-1", "web-2")
PROTOCOLS: Final = ("TCP", "UDP")
PORT: Final = 7000
SERVICE_PORT: Final = 70


class Talk(NamedTuple):
    """A conversation that *server* answers."""

    conversation: Conversation
    server: str

    async def goes_on(self) -> bool:
        return await self.conversation.ask() == self.server

    @property
    def told(self) -> str:
        """How a cut tells of it, but for the client."""
        return f"{self.conversation.protocol} → {self.conversation.address} port {self.conversation.port}"


async def test_a_tightening_ends_what_it_forbids_and_nothing_else_until_it_is_allowed_again(either_stack: Stack):
    async with opened(either_stack, "talks") as shop, Listeners() as listeners, AsyncExitStack() as kept:
        places = {name: (await netns_of(either_stack, shop, name)).name for name in ("friend", *SERVERS)}
        await publish(shop)
        listeners.want(served(shop, places))
        await label(shop, "web-1", "part=one")
        talks = await begun(shop, places["friend"], kept)  # nobody is isolated: nothing is tracked in the Pod
        staying = [talk for talk in talks if talk.server == "web-1"]
        ending = [talk for talk in talks if talk.server == "web-2"]

        async def enforce(*peers: dict[str, Any]) -> None:
            await shop.cluster.apply(shop.policy("friend", {"role": "friend"}, egress=list(peers)))
            await either_stack.enforced()

        async def ended() -> bool:
            return not any(await going_on(ending))

        async def cuts() -> Counter[str]:
            said = (await either_stack.cven(shop.pods["friend"]["spec"]["nodeName"])).cuts
            ours = [cut for cut in said if cut.pod == f"{shop.name}/friend"]
            assert all(cut.policies == (f"NetworkPolicy/{shop.name}/friend",) for cut in ours), ours
            return Counter(without_client(cut.connection) for cut in ours)

        await enforce(to(app="web"))
        assert all(await going_on(talks))
        assert not await cuts()

        await enforce(to(part="one"))
        await until("the end of what is forbidden", ended, within_seconds=20)
        assert all(await going_on(staying))
        wanted = Counter(talk.told for talk in ending)

        async def told() -> bool:
            return await cuts() == wanted

        await until(f"word of just these: {wanted}", told, within_seconds=20)

        await enforce(to(app="web"))

        async def resumed() -> bool:
            return all(await going_on(talks))

        await until("all to go on", resumed, within_seconds=40)


async def going_on(talks: list[Talk]) -> list[bool]:
    return await asyncio.gather(*(talk.goes_on() for talk in talks))


def without_client(connection: str) -> str:
    """Of ``TCP 10.0.0.1 → 10.0.0.2 port 80``."""
    begun, _, target = connection.partition(" → ")
    return f"{begun.split()[0]} → {target}"


async def publish(shop: Shop) -> None:
    """A Service ``talk`` before the servers of this test."""
    service = shop.service()
    service["metadata"]["name"] = "talk"
    service["spec"]["ports"] = [
        {"name": protocol.lower(), "protocol": protocol, "port": SERVICE_PORT, "targetPort": PORT}
        for protocol in PROTOCOLS
    ]
    await shop.cluster.apply(service)
    shop.place("talk", *(await shop.get("service", "talk"))["spec"]["clusterIPs"])
    await served_by(shop, "talk", len(SERVERS))


def served(shop: Shop, places: dict[str, str]) -> set[Listener]:
    """Servers of both protocols, at every address of the two Pods behind the Service."""
    return {
        Listener(netns=places[name], address=each["ip"], protocol=protocol, port=PORT, identity=name)
        for name, protocol in product(SERVERS, PROTOCOLS)
        for each in shop.pods[name]["status"]["podIPs"]
    }


async def begun(shop: Shop, netns: str, kept: AsyncExitStack) -> list[Talk]:
    """Of each family and protocol: one with each server at its own address, and one with each through the Service."""
    talks = []
    for family, protocol in product(families(shop), PROTOCOLS):
        shop.family = family
        for name in SERVERS:
            direct = partial(Conversation, netns, shop.address(name), PORT, protocol=protocol)
            talks += await one_with_each({name}, direct, kept)
        through = partial(Conversation, netns, shop.address("talk"), SERVICE_PORT, protocol=protocol)
        talks += await one_with_each(set(SERVERS), through, kept)
    return talks


async def one_with_each(servers: set[str], begin: Callable[[], Conversation], kept: AsyncExitStack) -> list[Talk]:
    """Who answers through a Service is a matter of luck: begin until all were met, each but the first time in vain."""
    met: dict[str, Talk] = {}

    async def all_met() -> bool:
        async with AsyncExitStack() as attempt:
            conversation = await attempt.enter_async_context(begin())
            server = await conversation.ask()
            if server and server not in met:
                met[server] = Talk(conversation, server)
                kept.push_async_exit(attempt.pop_all())
        return met.keys() == servers

    await until(f"{servers} to answer", all_met, within_seconds=40, ignoring=(OSError, TimeoutError))
    return list(met.values())
