"""What is done to a world while it works: everything is killed, and one processor is only put to sleep."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from streams.errors import StreamError
from tests.chaos.history import NODES
from tests.chaos.world import World
from tests.components.waiting import until

AWAY_SECONDS: Final = 1.0
"""At most this long is a killed process away before it is started again."""


class Disturbances:
    """By name; each returns when what it disturbed runs again. *random* chooses victims and absences."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self.all: dict[str, Callable[[], Awaitable[None]]] = {
            "kill Kafka": self._kafka,
            "kill NATS": self._nats,
            "kill the owner": self._owner,
            "kill the standby": self._standby,
            "pause the owner": self._pause,
            "kill the C-VEN of node-1": lambda: self._enforcers(NODES[:1]),
            "kill the C-VEN of node-2": lambda: self._enforcers(NODES[1:]),
            "kill both C-VENs and NATS": self._enforcers_and_nats,
        }

    async def _kafka(self) -> None:
        await self._world.kafka.kill()
        await self._away()
        await self._world.kafka.start()

    async def _nats(self) -> None:
        await self._world.nats.kill()
        await self._away()
        await self._world.nats.start()

    async def wipe(self) -> None:
        """Kill NATS and take everything it stored."""
        await self._world.nats.kill()
        await self._world.nats.wipe()
        await self._away()
        await self._world.nats.start()

    async def _owner(self) -> None:
        await self._kill_processor(await self._world.owner())

    async def _standby(self) -> None:
        owner = await self._world.owner()
        await self._kill_processor(next(name for name in self._world.processors if name != owner))

    async def _kill_processor(self, name: str) -> None:
        await self._world.processors[name].kill()
        await self._away()
        self._world.start_processor(name)

    async def _pause(self) -> None:
        """It sleeps until another has taken over, and then goes on as if nothing had been."""
        paused = await self._world.owner()
        self._world.processors[paused].signal(signal.SIGSTOP)
        try:
            async with self._world.stream() as stream:

                async def replaced() -> bool:
                    return await stream.holder() != paused

                await until(f"another to replace {paused}", replaced, within_seconds=30, ignoring=(StreamError,))
        finally:
            self._world.processors[paused].signal(signal.SIGCONT)

    async def _enforcers(self, nodes: tuple[str, ...]) -> None:
        for node in nodes:
            await self._world.enforcers[node].kill()
        await self._away()
        for node in nodes:
            self._world.start_enforcer(node)

    async def _enforcers_and_nats(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nats(), name="NATS")
            tasks.create_task(self._enforcers(NODES), name="C-VENs")

    async def _away(self) -> None:
        await asyncio.sleep(self._random.uniform(0, AWAY_SECONDS))
