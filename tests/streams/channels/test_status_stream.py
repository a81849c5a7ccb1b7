"""Status over a real nats-server, and what its age means."""

import asyncio
import contextlib
import secrets
import time

import pytest

from schemas import names
from schemas.status import Component, Connectivity, CvenStatus, KubelinkStatus, PodState, connectivity
from streams.channels.reporting import report_status
from streams.channels.status import create_status_stream, publish_status, read_status, watch_status
from streams.errors import ReadFailed
from streams.nats.nats_bus import NatsBus
from tests.components.waiting import until


@pytest.mark.parametrize(
    ("age_seconds", "expected"),
    [
        (0, Connectivity.ONLINE),
        (14.9, Connectivity.ONLINE),
        (15, Connectivity.DEGRADED),
        (59.9, Connectivity.DEGRADED),
        (60, Connectivity.OFFLINE),
        (-3, Connectivity.ONLINE),
    ],
)
def test_three_missed_heartbeats_degrade_and_twelve_are_offline(age_seconds, expected):
    assert connectivity(age_seconds) is expected


@pytest.mark.nats
async def test_the_newest_word_of_every_component_is_kept(nats):
    cluster = f"c-{secrets.token_hex(4)}"
    async with NatsBus(nats.url) as bus:
        with pytest.raises(ReadFailed):
            await read_status(bus, cluster)  # no stream yet: not the same as nobody there
        await create_status_stream(bus, cluster)
        assert await read_status(bus, cluster) == {}

        for realized in range(3):
            status = CvenStatus(node="a.b", heartbeat="t", realized=realized, pods={PodState.ENFORCED: 2})
            await publish_status(bus, cluster, status)
        await publish_status(bus, cluster, KubelinkStatus(name="k", heartbeat="t", epoch=5))
        for number, broken in enumerate((b"{", b"[" * 50_000)):
            await bus.publish(names.status_subject(cluster, "c-ven", f"broken-{number}"), broken)

        async def both():
            heard = await read_status(bus, cluster)
            return heard if len(heard) == 2 else None

        heard = await until("both components are stored", both)
        node = heard[Component.CVEN, "a.b"]
        assert node.status.realized == 2
        assert node.status.pods == {PodState.ENFORCED: 2}
        assert node.connectivity(time.time()) is Connectivity.ONLINE
        assert heard[Component.KUBELINK, "k"].status.epoch == 5


@pytest.mark.nats
async def test_who_always_has_something_new_says_so_ten_times_a_second_at_most(nats):
    changed, described = asyncio.Event(), 0

    def describe() -> list[CvenStatus]:
        nonlocal described
        described += 1
        return [CvenStatus(node="n", heartbeat="t", realized=described)]

    async def change_all_the_time() -> None:
        while True:
            changed.set()
            await asyncio.sleep(0)

    async with NatsBus(nats.url) as bus, asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        reporting = report_status(bus, f"c-{secrets.token_hex(4)}", describe, changed, seconds=60)
        running = [tasks.create_task(reporting), tasks.create_task(change_all_the_time())]
        await until("five words", lambda: described >= 5)
        for task in running:
            task.cancel()
    assert described <= 1 + 10 * (time.monotonic() - began)


@pytest.mark.nats
async def test_a_watch_hears_all_and_then_each_and_all_again_after_a_restart(nats):
    cluster = f"c-{secrets.token_hex(4)}"
    async with NatsBus(nats.url) as bus, asyncio.timeout(30):
        await create_status_stream(bus, cluster)
        await publish_status(bus, cluster, KubelinkStatus(name="k", heartbeat="1"))
        await until("the first word is stored", lambda: read_status(bus, cluster))
        async with contextlib.aclosing(watch_status(bus, cluster)) as changes:
            first = await anext(changes)
            assert first.complete
            await publish_status(bus, cluster, KubelinkStatus(name="k", heartbeat="2"))
            second = await anext(changes)
            assert not second.complete
            assert second.heard[Component.KUBELINK, "k"].status.heartbeat == "2"

            await nats.kill()
            await nats.start()
            again = await anext(changes)
            assert again.complete
            assert again.heard[Component.KUBELINK, "k"].status.heartbeat == "2"
