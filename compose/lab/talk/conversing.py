"""A connection that stays: for what must hold, or end, while rules change under it."""

import asyncio
import secrets
import socket
from types import TracebackType
from typing import Final, Self

from compose.lab.namespaces import inside
from compose.lab.probing import DROP_SECONDS
from compose.lab.talk.sockets import is_stream, make

CONNECT_SECONDS: Final = 5.0


class Conversation:
    """A TCP connection or a connected UDP socket from one namespace to a server of `compose.lab.listening`.

    An async context manager: entering connects, which raises `TimeoutError` or `OSError` where that is not possible.
    """

    def __init__(self, netns: str, address: str, port: int, *, protocol: str = "TCP", source_port: int = 0) -> None:
        if not is_stream(protocol) and protocol != "UDP":
            raise ValueError(f"no conversation by {protocol}: this kernel has no sockets for it")
        self.netns = netns
        self.address = address
        self.port = port
        self.protocol = protocol
        self.source_port = source_port
        self._socket: socket.socket | None = None
        self._unread = b""

    def __repr__(self) -> str:
        return f"Conversation({self.protocol} {self.netns} → {self.address}:{self.port})"

    async def __aenter__(self) -> Self:
        made = inside(self.netns, lambda: make(self.protocol, self.address))
        try:
            made.bind(("", self.source_port))
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, (self.address, self.port))
        except BaseException:
            made.close()
            raise
        self._socket = made
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def ask(self, *, timeout_seconds: float = DROP_SECONDS) -> str | None:
        """Send one line and return the identity that answered it; `None` for silence, or a connection that ended.

        Answers to earlier lines, which may come late when a way opens again, are passed over.
        """
        assert self._socket is not None, "ask inside `async with`"
        loop = asyncio.get_running_loop()
        request = secrets.token_hex(4).encode()
        try:
            await loop.sock_sendall(self._socket, request + b"\n")
            async with asyncio.timeout(timeout_seconds):
                while True:
                    asked, _, identity = (await self._line(self._socket)).partition(b" ")
                    if asked == request:
                        return identity.decode()
        except (TimeoutError, ConnectionError, PermissionError):  # the last: dropped on the way out
            return None

    async def _line(self, stream: socket.socket) -> bytes:
        while b"\n" not in self._unread:
            data = await asyncio.get_running_loop().sock_recv(stream, 4096)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line
