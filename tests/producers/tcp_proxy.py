"""A TCP proxy on the loopback that can fall silent, as a connection does whose other end has vanished."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class TcpProxy:
    """Passes bytes on to ``127.0.0.1:port`` until `stall`: then what is open stays open and says nothing more."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._stalled: set[int] = set()
        self._open: set[int] = set()
        self._numbers = 0
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open(self) -> int:
        """Connections that are open and not silent."""
        return len(self._open - self._stalled)

    def stall(self) -> None:
        """Silence every connection that is open now. New ones work."""
        self._stalled |= self._open

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._numbers += 1
        number = self._numbers
        self._open.add(number)
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(number, reader, far_writer), name="proxy: there")
                tasks.create_task(self._pass(number, far_reader, writer), name="proxy: back")
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(number)
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(*(end.wait_closed() for end in ends))

    async def _pass(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if number in self._stalled:
                continue  # swallowed: neither an end nor a reset, which is what makes it half-open
            writer.write(data)
            await writer.drain()
        if number not in self._stalled:
            writer.close()
