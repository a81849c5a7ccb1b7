"""A source that is told what exists, by who makes it exist: the lab."""

import asyncio
from collections.abc import Iterable, Sequence

from producers.core.observations import ListBegun, ListComplete, Observation, Observed, Trouble
from producers.source import Deliver
from schemas.events import KINDS, EventType
from schemas.objects import KubernetesObject


class ToldSource:
    """Tells complete lists, one each time it is told."""

    kinds = KINDS

    def __init__(self) -> None:
        self._objects: tuple[KubernetesObject, ...] | None = None
        self._told = asyncio.Event()
        self.delivered = asyncio.Event()
        """What was told last is in Kubelink's hands."""

    def tell(self, objects: Iterable[KubernetesObject]) -> None:
        """These are all there are now."""
        self._objects = tuple(objects)
        self.delivered.clear()
        self._told.set()

    async def check(self) -> Sequence[Trouble]:
        """See `producers.source.Source.check`: nothing can keep it."""
        return ()

    async def observing(self, deliver: Deliver) -> None:
        """See `producers.source.Source.observing`."""
        if self._objects is not None:
            self._told.set()
        while True:
            await self._told.wait()
            self._told.clear()
            assert self._objects is not None
            batch: list[Observation] = [ListBegun(kind) for kind in self.kinds]
            batch += [Observed(EventType.ADDED, each) for each in self._objects]
            batch += [ListComplete(kind) for kind in self.kinds]
            await deliver(batch)
            self.delivered.set()
