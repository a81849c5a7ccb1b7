"""The inventory bucket: owned by one, read by any ordinary key-value client."""

import asyncio
import contextlib
import secrets

import pytest

from streams.channels.inventory_bucket import InventoryWriter, read_inventory, watch_inventory
from streams.errors import Fenced, ReadFailed
from streams.nats.nats_bus import NatsBus

pytestmark = pytest.mark.nats


@pytest.fixture
def cluster():
    return f"c-{secrets.token_hex(4)}"


@contextlib.asynccontextmanager
async def running(writer):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(writer.run(), name="inventory-writer")
        yield
        task.cancel()


def values(count, text="v"):
    return {f"workload.node-{number}": f'"{text}{number}"'.encode() for number in range(count)}


async def published_sequence(bus, cluster):
    info = await bus.call(f"STREAM.INFO.KV_inventory-{cluster}")
    return info["state"]["last_seq"]


async def test_ordinary_key_value_clients_read_and_watch_it(nats, cluster):
    async with NatsBus(nats.url) as bus, asyncio.timeout(30):
        writer = InventoryWriter(bus, cluster, "first", coalesce_seconds=0.01)
        assert await writer.take_over() == frozenset()
        async with running(writer):
            writer.replace({"summary": b"{}", **values(3)})
            await writer.settled()

            bucket = await bus.client.jetstream().key_value(f"inventory-{cluster}")
            assert (await bucket.get("summary")).value == b"{}"
            assert sorted(await bucket.keys()) == ["summary", "workload.node-0", "workload.node-1", "workload.node-2"]
            watcher = await bucket.watch("workload.*")
            first = [await watcher.updates() for _ in range(4)]
            assert {entry.key for entry in first[:3]} == set(values(3))
            assert first[3] is None  # the end of what there is

            writer.put("workload.node-1", b'"changed"')
            writer.put("workload.node-2", None)
            changed, deleted = await watcher.updates(), await watcher.updates()
            assert (changed.key, changed.value) == ("workload.node-1", b'"changed"')
            assert (deleted.key, deleted.operation) == ("workload.node-2", "DEL")
            await watcher.stop()


async def test_an_old_owner_writes_nothing_and_no_client_can(nats, cluster):
    async with NatsBus(nats.url) as bus, asyncio.timeout(30):
        old = InventoryWriter(bus, cluster, "old", coalesce_seconds=0.01)
        await old.take_over()
        new = InventoryWriter(bus, cluster, "new", coalesce_seconds=0.01)
        await new.take_over()
        old.put("summary", b'"stale"')
        with pytest.raises(Fenced):
            await old.run()
        await bus.publish(f"$KV.inventory-{cluster}.summary", b'"foreign"')
        async with running(new):
            new.put("profile.shop", b"{}")
            await new.settled()
        assert await read_inventory(bus, cluster) == {"profile.shop": b"{}"}


async def test_only_what_changed_is_written_also_by_the_next_owner(nats, cluster):
    async with NatsBus(nats.url) as bus, asyncio.timeout(30):
        for name in ("first", "second"):
            writer = InventoryWriter(bus, cluster, name, coalesce_seconds=0.01)
            await writer.take_over()
            before = await published_sequence(bus, cluster)
            async with running(writer):
                writer.replace(values(50))
                await writer.settled()
                writer.replace(values(50))
                await writer.settled()
            written = await published_sequence(bus, cluster) - before
            assert written == (50 if name == "first" else 0)


async def test_a_watch_gives_all_then_changes_and_a_missing_bucket_is_not_an_empty_one(nats, cluster):
    async with NatsBus(nats.url) as bus, asyncio.timeout(30):
        with pytest.raises(ReadFailed):
            await read_inventory(bus, cluster)
        writer = InventoryWriter(bus, cluster, "first", coalesce_seconds=0.01)
        await writer.take_over()
        async with running(writer), contextlib.aclosing(watch_inventory(bus, cluster)) as changes:
            writer.replace(values(2))
            await writer.settled()
            seen = {}
            while seen != values(2):
                change = await anext(changes)
                seen = dict(change.values) if change.complete else {**seen, **change.values}
            writer.put("workload.node-0", None)
            assert (await anext(changes)).values == {"workload.node-0": None}
