"""One cluster as the processor's surroundings see it: its log, its bus, what is published; and a processor to run."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from prometheus_client import CollectorRegistry

from processors import processor
from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from schemas import names
from schemas.policy import Mark, Policy, decode_fence, decode_mark
from streams.core.parts import Stored
from streams.core.publication import Publication
from streams.errors import ReadFailed
from streams.log import Log, Logs, Record
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import read_stream
from streams.telemetry import Health
from streams.topics import Topic
from tests.components.waiting import until
from tests.processors.histories import Writer, allow, namespace, node, pod


class World:
    """One cluster: its log, its bus, and what is published of it."""

    def __init__(self, cluster: str, logs: Logs, events: Log, bus: NatsBus, url: str) -> None:
        self.cluster = cluster
        self.logs = logs
        self.events = events
        self.bus = bus
        self.url = url
        self.writer = Writer(events)

    async def begin(self) -> int:
        """A shop with a policy, completely listed."""
        await self.writer.begin()
        revision = await self.writer.put(
            namespace("shop"),
            node("n1", "192.0.2.1"),
            pod("web", "10.0.0.1", app="web"),
            pod("client", "10.0.0.2", app="client"),
            allow("web", {"app": "web"}, {"app": "client"}),
        )
        await self.writer.sync()
        return revision

    async def mark(self) -> Mark | None:
        message = await self.bus.last_message(names.policy_stream(self.cluster), names.mark_subject(self.cluster))
        return decode_mark(message.data) if message else None

    async def mark_sequence(self) -> int:
        return await self._last(names.mark_subject(self.cluster))

    async def fence_sequence(self) -> int:
        return await self._last(names.fence_subject(self.cluster))

    async def _last(self, subject: str) -> int:
        async def read() -> tuple[int]:
            message = await self.bus.last_message(names.policy_stream(self.cluster), subject)
            return (int(message.headers["Nats-Sequence"]) if message and message.headers else 0,)

        # A read that failed says nothing; whoever reads tries again, and so do these tests.
        (sequence,) = await until(f"{subject} to be readable", read, ignoring=(ReadFailed,))
        return sequence

    async def holder(self) -> str:
        message = await self.bus.last_message(names.policy_stream(self.cluster), names.fence_subject(self.cluster))
        return decode_fence(message.data).name if message else ""

    async def _stored(self) -> list[Stored]:
        stream, everything = names.policy_stream(self.cluster), names.policy_subjects(self.cluster)
        return await until(
            f"{stream} to be readable",
            lambda: read_stream(self.bus, stream, everything, last_only=False),
            ignoring=(ReadFailed,),
        )

    async def published(self) -> Policy:
        stored = await self._stored()
        below = len(names.policy_subjects(self.cluster)) - 1
        return Publication(max_payload=self.bus.max_payload).read((one.subject[below:], one) for one in stored)

    async def sequence(self) -> int:
        """Messages ever stored in the policy stream, marks left out: nothing is said about them in a difference."""
        stored = await self._stored()
        return max(one.sequence for one in stored if not one.subject.endswith((".mark", ".fence")))

    async def desired(self) -> Policy:
        """What a fold of the log says."""
        fold = ClusterFold(self.cluster, ProcessorSettings().policy)
        async for records in self.events.read(0):
            fold.advance(records)
        return fold.policy()

    async def marked(self, revision: int) -> None:
        async def there() -> bool:
            mark = await self.mark()
            return mark is not None and mark.revision >= revision

        await until(f"a mark at revision {revision}", there, ignoring=(ReadFailed,))

    async def held_by(self, name: str) -> None:
        async def holds() -> bool:
            return await self.holder() == name

        await until(f"{name} to own the stream", holds, ignoring=(ReadFailed,))


class HeldLog:
    """A log whose readers get nothing while *goes_on* is not set, like those of a broker that hangs."""

    def __init__(self, log: Log, goes_on: asyncio.Event) -> None:
        self._log = log
        self._goes_on = goes_on
        self.topic = log.topic
        self.append, self.start, self.end, self.offset_at = log.append, log.start, log.end, log.offset_at

    async def read(
        self, start: int, *, follow: bool = False, end: int | None = None
    ) -> AsyncGenerator[list[Record], None]:
        async with aclosing(self._log.read(start, follow=follow, end=end)) as batches:
            async for records in batches:
                await self._goes_on.wait()
                yield records


class HeldLogs:
    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def open(self, topic: Topic) -> Log:
        return HeldLog(await self._logs.open(topic), self.goes_on)


@asynccontextmanager
async def running(
    world: World, name: str, *, logs: Logs | None = None, **changes: object
) -> AsyncIterator[asyncio.Task[None]]:
    """A processor with its own connection; drained at the end, unless the test killed it."""
    settings = ProcessorSettings(
        name=name,
        cluster=world.cluster,
        **{"take_over_seconds": 2.0, "inventory_seconds": 0.05, "status_seconds": 0.5} | changes,
    )
    stop = asyncio.Event()
    async with NatsBus(world.url) as bus:
        task = asyncio.create_task(
            processor.run(settings, logs or world.logs, bus, stop, health=Health(), registry=CollectorRegistry()),
            name=name,
        )
        try:
            yield task
            stop.set()
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
