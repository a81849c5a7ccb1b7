"""A bounded inbox between two tasks that hands over whole batches: one wake-up for many items."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """What was put since the last take, as one list.

    The reader takes everything at once, so that the slower it is the larger, and cheaper per item, its batches are.
    The writer waits while *limit* items are in it (one batch may exceed that): pressure reaches the source.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: list[T] = []
        self._closed = False
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, items: Sequence[T]) -> None:
        """Add *items*, then wait until there is room for more. Raises RuntimeError once closed."""
        if self._closed:
            raise RuntimeError("the inbox is closed")
        self._items.extend(items)
        self._changed.set()
        while len(self._items) >= self._limit:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """Nothing more will come: the reader ends once it has taken what is there."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[list[T]]:
        """Everything there is, whenever there is something, until closed and empty."""
        while True:
            if self._items:
                items, self._items = self._items, []
                self._taken.set()
                yield items
            elif self._closed:
                return
            else:
                self._changed.clear()
                await self._changed.wait()
