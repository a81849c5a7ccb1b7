"""The policy stream between a real writer, a real nats-server and real readers."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.policy import Policy
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, set_id
from streams.core.difference import difference
from streams.nats_bus import NatsBus
from streams.policy_reader import PolicyReader
from streams.policy_writer import PolicyWriter
from tests.components.nats_server import NatsServer

pytestmark = pytest.mark.nats


def program(uid, *sets, node="node-1"):
    rules = tuple(Rule(id=f"r-{name}", policy="NetworkPolicy/shop/web", sets=(name,)) for name in sets)
    return Program(
        uid=uid,
        namespace="shop",
        name=f"pod-{uid}",
        node=node,
        ingress=Direction(isolating=("NetworkPolicy/shop/web",), rules=rules),
    )


def addresses(first, last):
    return frozenset(number.to_bytes(4, "big") for number in range(first, last))


A, B = set_id(SetKind.ADDRESSES, "a"), set_id(SetKind.ADDRESSES, "b")


@pytest_asyncio.fixture
async def bus(nats: NatsServer) -> AsyncIterator[NatsBus]:
    async with NatsBus(nats.url) as bus:
        yield bus


@pytest.fixture
def cluster():
    return f"c-{secrets.token_hex(4)}"


async def test_what_is_sent_arrives_complete_and_marked(bus, cluster):
    writer = PolicyWriter(bus, cluster, "first")
    published = await writer.take_over()
    assert published.mark is None
    desired = Policy(programs={("node-1", "u1"): program("u1", A)}, sets={A: addresses(0, 100)})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(writer.run(), name="writer")
        await writer.send(difference(desired, published.policy), 7, "2026-01-01T00:00:00Z")
        await writer.settled()
        async with PolicyReader(bus, cluster, "node-1") as reader:
            async with asyncio.timeout(10):
                update = await anext(reader)
                print(update)
                assert update.complete
                assert update.mark.revision == 7
                assert update.programs == (program("u1", A),)
        running.cancel()
