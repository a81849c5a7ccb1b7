"""What the log says of Pods comes to a node as addresses that were given up, on the way of every change."""

import asyncio
import uuid
from pathlib import Path

import pytest

from schemas import addresses
from schemas.policy import NodeUpdate
from streams import topics
from streams.channels.policy_reader import PolicyReader
from streams.nats.nats_bus import NatsBus
from streams.sqlite.sqlite_log import SqliteLogs
from tests.processors.histories import allow, pod
from tests.processors.live_cluster import World, running

pytestmark = [pytest.mark.nats, pytest.mark.timeout(60)]

HANDED, RELABELLED = "10.0.0.5", "10.0.0.6"


async def up_to(reader: PolicyReader, revision: int) -> list[NodeUpdate]:
    updates: list[NodeUpdate] = []
    async with asyncio.timeout(15):
        while not (updates and updates[-1].mark and updates[-1].mark.revision >= revision):
            updates.append(await anext(reader))
    return updates


async def test_an_address_that_another_pod_gets_was_given_up_and_that_of_a_relabelled_pod_was_not(nats, tmp_path: Path):
    cluster = f"c{uuid.uuid4().hex[:10]}"
    async with SqliteLogs(tmp_path / "log.db") as logs, NatsBus(nats.url) as bus:
        world = World(cluster, logs, await logs.open(topics.events(cluster)), bus, nats.url)
        await world.begin()
        revision = await world.writer.put(
            allow("from-old", {"app": "web"}, {"app": "old"}),
            allow("from-new", {"app": "web"}, {"app": "new"}),
            pod("goes", HANDED, app="old"),
            pod("stays", RELABELLED, app="old"),
        )
        async with running(world, "one"), PolicyReader(bus, cluster, "n1", jitter_seconds=0.0) as reader:
            await up_to(reader, revision)
            await world.writer.put(pod("stays", RELABELLED, app="new"))
            await world.writer.delete(pod("goes", HANDED, app="old"))
            revision = await world.writer.put(pod("comes", HANDED, app="new"))
            updates = await up_to(reader, revision)

    handed, relabelled = addresses.pack(HANDED), addresses.pack(RELABELLED)
    given_up = [number for number, update in enumerate(updates) if update.released]
    assert [updates[number].released for number in given_up] == [{handed}]
    lost = [n for n, update in enumerate(updates) for change in update.sets if handed in change.removed]
    gained = [n for n, update in enumerate(updates) for change in update.sets if handed in change.added]
    assert lost == given_up <= gained
    assert any(relabelled in change.removed for update in updates for change in update.sets)
