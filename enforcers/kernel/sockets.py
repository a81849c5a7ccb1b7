"""Netlink sockets that live in a Pod's namespace, made by a thread that entered it and used from anywhere."""

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from enforcers.core.netlink.messages import (
    DONE,
    DUMP_INTERRUPTED,
    ERROR,
    error_number,
    flagged_messages,
    messages,
    refused_sequence,
)
from enforcers.kernel.namespaces import inside

NETLINK_ROUTE: Final = 0
NETLINK_SOCK_DIAG: Final = 4
NETLINK_NETFILTER: Final = 12
RECEIVE_BYTES: Final = 1 << 16
"""The kernel fills no more than 32 kB at a time. Python is quick to get a buffer of this size, and slow for larger."""
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
"""An error does not repeat the message that it is about, which may be longer than what is received at a time."""
TRUNCATED: Final = int(socket.MSG_TRUNC)
"""As a plain number: to ask an enum for a bit takes as long as to receive."""
SO_RCVBUFFORCE: Final = 33
SO_SNDBUFFORCE: Final = 32
BUFFER_BYTES: Final = 8 << 20
ANSWER_SECONDS: Final = 5.0
"""The kernel answers within microseconds; only a kernel that is stuck takes longer."""
DUMP_ATTEMPTS: Final = 20
MOST_LISTED: Final = 1 << 16
"""A Pod may have as many rules and chains as it likes, and we have not the memory for them."""
MOST_LISTED_BYTES: Final = 1 << 25
"""One rule may have 30 kB."""


class NetlinkRefused(Exception):
    """The kernel refused a message; *number* is its errno, *reason* says more than that where more is known."""

    def __init__(self, number: int, reason: str = "") -> None:
        super().__init__(f"the kernel refused: {reason or os.strerror(number)}")
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
            self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
        except PermissionError:  # the root of a user namespace: what the machine's limit allows must do
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
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

    def receive(self) -> bytes:
        """The next datagram. Raises TimeoutError where none comes, OSError where something was lost."""
        try:
            return self._receive()  # what the kernel was asked for is there before the question returns
        except BlockingIOError:
            poll = select.poll()  # select() refuses file descriptors from 1024 on, which a node with many Pods has
            poll.register(self.socket, select.POLLIN)
            if not poll.poll(ANSWER_SECONDS * 1000):
                raise TimeoutError(f"the kernel did not answer within {ANSWER_SECONDS} s") from None
            return self._receive()

    def _receive(self) -> bytes:
        data, _, flags, _ = self.socket.recvmsg(RECEIVE_BYTES)
        if flags & TRUNCATED:
            raise OSError(errno.EMSGSIZE, f"the kernel sent more than {RECEIVE_BYTES} bytes at once")
        return data

    def request(self, message: bytes) -> list[bytes]:
        """Send *message*, which asks for an acknowledgement, and await it; return what else was answered.

        Raises `NetlinkRefused`.
        """
        self.socket.send(message)
        answers: list[bytes] = []
        while True:
            for kind, body in messages(self.receive()):
                if kind == ERROR:
                    if number := error_number(body):
                        raise NetlinkRefused(number)
                    return answers
                answers.append(body)

    def request_all(self, requests: Sequence[bytes]) -> list[int]:
        """Send *requests* at once, each of which asks for an acknowledgement; return the errno of each, 0: it was done.

        One that is refused keeps none of the others from being done.
        """
        self.socket.send(b"".join(requests))
        numbers: list[int] = []
        while len(numbers) < len(requests):
            numbers += [error_number(body) for kind, body in messages(self.receive()) if kind == ERROR]
        return numbers

    def transact(self, batch: bytes, last: int) -> tuple[int, int] | None:
        """Send *batch*, a transaction, whose message numbered *last* asks for an acknowledgement.

        Return errno and number of the first message that was refused, if any: then nothing of it took effect. All is
        said before the question returns, and nothing may be left for the next one to read.
        """
        self.socket.send(batch)
        refused: tuple[int, int] | None = None
        acknowledged = False
        while True:
            try:
                data = self._receive()
            except BlockingIOError:
                return refused if refused or acknowledged else (errno.EPROTO, 0)
            for kind, body in messages(data):
                if kind == ERROR:
                    number, sequence = error_number(body), refused_sequence(body)
                    acknowledged = acknowledged or sequence == last
                    if number and refused is None:
                        refused = number, sequence

    def dump(self, message: bytes) -> list[tuple[int, bytes]]:
        """Send a dump request and return all that it lists, as it was at one moment.

        Raises `NetlinkRefused`, also where that is more than `MOST_LISTED` messages, or `MOST_LISTED_BYTES`: close the
        socket then.
        """
        for _ in range(DUMP_ATTEMPTS):
            listed, whole = self._dump(message)
            if whole:
                return listed
        raise NetlinkRefused(errno.EAGAIN, f"what is listed changed during each of {DUMP_ATTEMPTS} listings")

    def _dump(self, message: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        listed: list[tuple[int, bytes]] = []
        whole, size = True, 0
        for kind, flags, body in self._listing(message):
            whole = whole and not flags & DUMP_INTERRUPTED
            if kind != DONE:
                listed.append((kind, body))
                size += len(body)
            if len(listed) > MOST_LISTED:
                raise NetlinkRefused(errno.E2BIG, f"to be listed in one piece: there are more than {MOST_LISTED}")
            if size > MOST_LISTED_BYTES:
                raise NetlinkRefused(errno.E2BIG, f"to be listed in one piece: it has over {MOST_LISTED_BYTES} bytes")
        return listed, whole

    def stream(self, message: bytes) -> Iterator[tuple[int, bytes]]:
        """As `dump`, one by one, for what may be long: nothing is kept, and it may change meanwhile.

        It has to be read to its end before anything else is asked.
        """
        return ((kind, body) for kind, _, body in self._listing(message) if kind != DONE)

    def _listing(self, message: bytes) -> Iterator[tuple[int, int, bytes]]:
        """(kind, flags, body) of each message that answers a dump request; the last one is DONE."""
        self.socket.send(message)
        while True:
            for kind, flags, body in flagged_messages(self.receive()):
                if kind in (DONE, ERROR) and (number := error_number(body)):
                    raise NetlinkRefused(number)
                yield kind, flags, body
                if kind == DONE:
                    return
