"""The Pods of this node: each as soon as containerd makes it, and all of them as its CRI lists them.

    containerd's events ─┬─▶ a container was written: previewed ─┐
                         └─▶ listed again ───────────────────────┴─▶ all sandboxes, whenever that is something new

What is previewed counts until it is listed, or gone. A runtime that has no such events is listed every so often.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Final, Self

import structlog

from enforcers.runtimes import containerd
from enforcers.runtimes.calls import Calls, RuntimeUnavailable
from enforcers.runtimes.containerd import Containerd
from enforcers.runtimes.cri_listing import CriListing
from enforcers.runtimes.runtime import Sandbox
from streams.backoff import Backoff
from streams.lifecycle import happens

GATHER_SECONDS: Final = 0.03
"""From an event to the list: events come in bursts."""
SETTLE_SECONDS: Final = 0.25
"""After the last event the list is read once more: a sandbox is listed, and a container has its state, a moment after
its event, and nothing else says so."""
PREVIEW_SECONDS: Final = 120.0
"""A preview that is not listed by then never will be: the kubelet waits no longer for a sandbox."""

_log = structlog.get_logger("enforcers.cri")


class CriRuntime:
    """Keeps the promises of `Runtime`; an async context manager."""

    def __init__(self, socket: str, *, relist_seconds: float = 10.0) -> None:
        self._relist_seconds = relist_seconds
        self._cri, self._own = Calls(socket), Calls(socket, metadata=containerd.METADATA)
        self._listing = CriListing(self._cri)
        self._containerd = Containerd(self._own)
        self._listed: Mapping[str, Sandbox] | None = None
        self._previews: dict[str, Sandbox] = {}  # by sandbox id
        self._event = asyncio.Event()  # the list may be another by now
        self._news = asyncio.Event()  # there may be something to tell

    def __repr__(self) -> str:
        count = len(self._listed or ())
        return (
            f"<{self.description or 'runtime'} at {self._cri.socket}, {count} listed, {len(self._previews)} previewed>"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cri.close()
        self._own.close()

    @property
    def description(self) -> str:
        """See `Runtime.description`."""
        return self._listing.description

    async def sandboxes(self) -> dict[str, Sandbox]:
        """All Pods with a network of their own, by uid, as they are listed now. Raises `RuntimeUnavailable`."""
        return await self._listing.sandboxes()

    async def watch(self) -> AsyncGenerator[Mapping[str, Sandbox]]:
        """See `Runtime.watch`. A runtime that is away is waited for; meanwhile nothing is said to be gone."""
        working = asyncio.create_task(self._work(), name="follow the container runtime")
        working.add_done_callback(lambda _: self._news.set())
        before = None
        try:
            while not working.done():
                await self._news.wait()
                self._news.clear()
                if self._listed is None:
                    continue
                found = {**self._listed, **{each.uid: each for each in self._previews.values()}}
                if found != before:
                    before = found
                    yield found
            await working
        finally:
            working.cancel()
            await asyncio.wait([working])

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:

            def heard(topic: str, container: str) -> None:
                if topic in containerd.WRITTEN:
                    tasks.create_task(self._preview(container), name=f"preview {container:.12}")
                elif topic == containerd.DELETED:
                    self._previews.pop(container, None)
                else:
                    for missed in () if topic else self._previews:
                        tasks.create_task(self._preview(missed), name=f"preview {missed:.12} again")
                self._event.set()

            tasks.create_task(self._containerd.listen(heard, limit_seconds=self._relist_seconds), name="listen")
            tasks.create_task(self._list_again_and_again(), name="list")

    async def _preview(self, container: str) -> None:
        sandbox = await self._containerd.sandbox(container)
        if sandbox is None:
            self._previews.pop(container, None)
        elif container not in {each.id for each in (self._listed or {}).values()}:
            self._previews[container] = sandbox
        self._news.set()

    async def _list_again_and_again(self) -> None:
        backoff = Backoff(limit_seconds=self._relist_seconds)
        settled = True
        while True:
            self._event.clear()
            try:
                self._listed = await self._listing.sandboxes()
            except RuntimeUnavailable as error:
                if not backoff.attempts:
                    _log.warning("waiting for the container runtime", reason=str(error))
                await backoff.wait()
                continue
            backoff.reset()
            self._forget_previews({each.id for each in self._listed.values()})
            self._news.set()
            if await happens(self._event, within_seconds=self._relist_seconds if settled else SETTLE_SECONDS):
                settled = False
                await asyncio.sleep(GATHER_SECONDS)
            else:
                settled = True

    def _forget_previews(self, listed: set[str]) -> None:
        oldest = time.time() - PREVIEW_SECONDS
        self._previews = {
            identity: each
            for identity, each in self._previews.items()
            if identity not in listed and each.created_at > oldest
        }
