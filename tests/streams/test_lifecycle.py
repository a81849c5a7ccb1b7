import asyncio
import os
import signal

import pytest

from streams.batches import Batches
from streams.lifecycle import first_of, happens, serve, until_stopped
from tests.components.waiting import until


async def test_a_signal_ends_intake_and_what_was_taken_in_is_worked_off():
    done: list[str] = []

    async def service(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        done.append("drained")

    assert await serve(service, name="service", drain_seconds=5)
    assert done == ["drained"]


async def test_what_does_not_drain_in_time_is_cancelled():
    async def service(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert not await serve(service, name="service", drain_seconds=0.01)


async def test_a_second_signal_does_not_wait_for_the_drain():
    async def service(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        assert not await serve(service, name="service", drain_seconds=3600)


async def test_what_a_service_raises_is_raised():
    async def service(stop: asyncio.Event) -> None:
        raise LookupError("bug")

    with pytest.raises(ExceptionGroup) as raised:
        await serve(service, name="service", drain_seconds=1)
    assert raised.group_contains(LookupError)


async def test_a_stop_ends_a_sleep_and_cancels_what_has_nothing_to_drain():
    stop = asyncio.Event()
    assert not await happens(stop, within_seconds=0.001)
    stop.set()
    assert await happens(stop, within_seconds=3600)
    await until_stopped(asyncio.Event().wait(), stop, name="endless")  # type: ignore[arg-type]


async def test_first_of_leaves_the_task_alone():
    task = asyncio.create_task(asyncio.Event().wait(), name="endless")
    stop = asyncio.Event()
    stop.set()
    assert await first_of(task, stop)
    assert not task.done()
    task.cancel()


async def test_a_slow_reader_gets_everything_put_meanwhile_as_one_batch_and_a_full_inbox_makes_the_writer_wait():
    inbox = Batches[int](limit=3)
    await inbox.put([1])
    await inbox.put([2])
    writer = asyncio.create_task(inbox.put([3, 4]), name="writer")
    await until("the writer has put", lambda: len(inbox) == 4)
    assert not writer.done()

    reading = aiter(inbox)
    assert await anext(reading) == [1, 2, 3, 4]
    await writer
    await inbox.put([5])
    inbox.close()
    assert [batch async for batch in reading] == [[5]]
    with pytest.raises(RuntimeError):
        await inbox.put([6])
