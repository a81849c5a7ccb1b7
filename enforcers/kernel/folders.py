"""Being told that files came to or went from folders (inotify), of which some name network namespaces."""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CHANGES: Final = 0x40 | 0x80 | 0x100 | 0x200
"""IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE."""
EVENTS_BYTES: Final = 1 << 16
PAUSE_SECONDS: Final = 0.05
"""At least this long between two words: Pods come and go by the dozen."""

_libc = ctypes.CDLL(None, use_errno=True)


class Folders:
    """Folders that are watched; a context manager. That something changed is told, not what: whoever hears it looks.

    So an event that is lost, or a folder of which nothing is told (one that is gone, one of ``/proc``), costs time and
    nothing else: besides it says to look every so often.
    """

    def __init__(self) -> None:
        self._events = -1
        self._watched: set[Path] = set()

    def __enter__(self) -> Self:
        self._events = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._events < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch folders: {os.strerror(ctypes.get_errno())}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._events)

    def watch(self, folder: Path) -> None:
        """Watch *folder* too, if it can be."""
        if folder not in self._watched and _libc.inotify_add_watch(self._events, bytes(folder), CHANGES) >= 0:
            self._watched.add(folder)

    async def changes(self, *, every_seconds: float) -> AsyncGenerator[None]:
        """Whenever something came to or went from one of the folders, and at least *every_seconds*."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        loop.add_reader(self._events, self._read, changed)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every_seconds):
                        await changed.wait()
                changed.clear()
                yield
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            loop.remove_reader(self._events)

    def _read(self, changed: asyncio.Event) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._events, EVENTS_BYTES):
                changed.set()
