"""One netlink socket in a namespace that is kept: opening is cheap, closing is not.

Until it is closed it also keeps the namespace's network alive, after its Pod is gone.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from enforcers.kernel.namespaces import NoNamespace
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket

T = TypeVar("T")

_long = ThreadPoolExecutor(4, thread_name_prefix="long-tables")
"""Pods decide how long their tables are. Who walks a long one keeps nobody's short work waiting."""


class KeptSocket:
    """netfilter's socket in the namespace *path*, opened when it is needed; one caller at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False
        self._socket: NetlinkSocket | None = None
        self._using: asyncio.Future[Any] | None = None
        """The newest work on the socket by a thread."""
        self._aside: set[asyncio.Future[Any]] = set()

    def opened(self) -> NetlinkSocket:
        """The socket. Raises `NoNamespace`, also once it was closed for good."""
        if self._closed:  # one that is opened now nobody would close
            raise NoNamespace(self._path)
        if self._socket is None:
            self._socket = NetlinkSocket(self._path, NETLINK_NETFILTER)
        return self._socket

    async def use(self, work: Callable[[NetlinkSocket], T], *, long: bool = False) -> T:
        """Let a thread do *work*; *long*: among those that may take seconds.

        A socket whose work was given up midway is not used again.
        """
        using = asyncio.get_running_loop().run_in_executor(_long if long else None, work, self.opened())
        self._using = using
        try:
            return await asyncio.shield(using)
        except BaseException:
            self.let_go()
            raise

    def aside(self, work: Callable[[NetlinkSocket], T]) -> "asyncio.Future[T]":
        """Let a thread do long *work* with a socket of its own, while others go on with the kept one."""
        if self._closed:
            raise NoNamespace(self._path)

        def do() -> T:
            netlink = NetlinkSocket(self._path, NETLINK_NETFILTER)
            try:
                return work(netlink)
            finally:
                netlink.close_behind()

        begun = asyncio.get_running_loop().run_in_executor(_long, do)
        self._aside.add(begun)
        begun.add_done_callback(self._end_aside)
        return begun

    def _end_aside(self, ended: "asyncio.Future[Any]") -> None:
        self._aside.discard(ended)
        if not ended.cancelled():
            ended.exception()  # looked at, where whoever began it has given up

    def let_go(self) -> None:
        """Close it; the next use opens another one."""
        netlink, self._socket = self._socket, None
        if netlink is None:
            return
        if self._using is None or self._using.done():
            netlink.close_behind()
        else:  # a thread still works on it, also where nobody awaits that any more
            self._using.add_done_callback(lambda _: netlink.close_behind())

    def close(self) -> None:
        """Let go of the namespace for good. Whatever still works on it ends with `NoNamespace`."""
        self._closed = True
        self.let_go()

    async def idle(self) -> None:
        """Wait until no thread works on the namespace, also for someone who gave up."""
        if working := [*self._aside, *([self._using] if self._using is not None else [])]:
            await asyncio.wait(working)
