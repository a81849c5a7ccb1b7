"""Netlink sockets that live in a Pod's namespace, made by a thread that entered it and used from anywhere."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from enforcers.core.netlink.messages import DONE, ERROR, error_number, messages
from enforcers.kernel.namespaces import inside

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
RECEIVE_BYTES: Final = 1 << 20
SO_RCVBUFFORCE: Final = 33
BUFFER_BYTES: Final = 8 << 20
ANSWER_SECONDS: Final = 5.0
"""The kernel answers within microseconds; only a kernel that is stuck takes longer."""


class NetlinkRefused(Exception):
    """The kernel refused a message; *number* is its errno."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the kernel refused: {os.strerror(number) if number < 4096 else f'ipset error {number}'}")
        self.number = number
        self.retriable = True


class NetlinkSocket:
    """One socket of *protocol* in the namespace *path*; a context manager. Requests block for microseconds."""

    def __init__(self, path: Path, protocol: int, groups: int = 0) -> None:
        self.socket = inside(
            path, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        )
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:  # the root of a user namespace: what the machine's limit allows must do
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self.socket.bind((0, groups))
        self.socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Blocks for 10 to 30 ms where the socket was netfilter's: the kernel waits for a grace period."""
        self.socket.close()

    def close_behind(self) -> None:
        """Close it in a thread of its own, for whoever must not wait."""
        threading.Thread(target=self.close, name="close-netlink", daemon=True).start()

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """The messages of the next datagram. Raises TimeoutError where none comes."""
        poll = select.poll()  # select() refuses file descriptors from 1024 on, which a node with many Pods has
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(ANSWER_SECONDS * 1000):
            raise TimeoutError(f"the kernel did not answer within {ANSWER_SECONDS} s")
        return messages(self.socket.recv(RECEIVE_BYTES))

    def request(self, message: bytes) -> None:
        """Send *message*, which asks for an acknowledgement, and await it. Raises `NetlinkRefused`."""
        self.socket.send(message)
        while True:
            for kind, body in self.receive():
                if kind == ERROR:
                    if number := error_number(body):
                        raise NetlinkRefused(number)
                    return

    def dump(self, message: bytes) -> Iterator[tuple[int, bytes]]:
        """Send a dump request and yield what it lists. Raises `NetlinkRefused`."""
        self.socket.send(message)
        while True:
            for kind, body in self.receive():
                if kind == DONE:
                    return
                if kind == ERROR and (number := error_number(body)):
                    raise NetlinkRefused(number)
                yield kind, body
