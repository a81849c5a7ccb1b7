"""A runtime whose sandboxes are told by whoever made them, as the lab does."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Self

from enforcers.runtimes.runtime import Sandbox


class GivenRuntime:
    """Keeps the promises of `Runtime` for sandboxes that are handed over."""

    description = ""

    def __init__(self, sandboxes: Iterable[Sandbox] = ()) -> None:
        self._sandboxes = {sandbox.uid: sandbox for sandbox in sandboxes}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def tell(self, sandboxes: Iterable[Sandbox]) -> None:
        """These are all there are now."""
        self._sandboxes = {sandbox.uid: sandbox for sandbox in sandboxes}
        self._changed.set()

    async def watch(self) -> AsyncIterator[Mapping[str, Sandbox]]:
        while True:
            self._changed.clear()
            yield dict(self._sandboxes)
            await self._changed.wait()
