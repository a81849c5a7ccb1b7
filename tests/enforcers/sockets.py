"""Real sockets in named network namespaces, closed when the test is over."""

import contextlib
import socket
from pathlib import Path
from typing import Final

from enforcers.kernel.namespaces import inside

DROPPED_SECONDS: Final = 0.3
"""Long enough for a packet between two namespaces of one machine."""
YOUNG_SECONDS: Final = 5.0
"""Links are young: a neighbour's first answer may be late."""


class Sockets:
    """Where the namespaces are, and which addresses they have, a subclass knows."""

    def __init__(self) -> None:
        self.sockets = contextlib.ExitStack()

    def path(self, name: str) -> Path:
        """The file that names the namespace."""
        raise NotImplementedError

    def address(self, name: str, family: int) -> str:
        """Where *name* listens."""
        raise NotImplementedError

    def reached_at(self, name: str, port: int, family: int) -> tuple[str, int]:
        """Where others find what listens at *port*."""
        return self.address(name, family), port

    def open_socket(
        self, name: str, family: int = 4, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        """A socket that belongs to the namespace, closed at the end of the test."""
        domain = socket.AF_INET if family == 4 else socket.AF_INET6
        made = inside(self.path(name), lambda: socket.socket(domain, kind, protocol))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(DROPPED_SECONDS)
        return self.sockets.enter_context(made)

    def listen(self, name: str, port: int, family: int = 4) -> socket.socket:
        listener = self.open_socket(name, family)
        listener.bind((self.address(name, family), port))
        listener.listen(1024)  # nobody accepts most of what tests open
        return listener

    def receive(self, name: str, port: int, family: int = 4) -> socket.socket:
        """A datagram socket; several may share the port."""
        receiver = self.open_socket(name, family, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        receiver.bind((self.address(name, family), port))
        return receiver

    def accept(self, listener: socket.socket) -> socket.socket:
        accepted = self.sockets.enter_context(listener.accept()[0])
        accepted.settimeout(DROPPED_SECONDS)
        return accepted

    def connect(self, source: str, target: str, port: int, family: int = 4) -> socket.socket:
        """Raises TimeoutError where packets are dropped."""
        made = self.open_socket(source, family)
        made.connect(self.reached_at(target, port, family))
        return made

    def connected(self, source: str, target: str, port: int, family: int = 4) -> tuple[socket.socket, socket.socket]:
        """Both ends of a TCP connection, the source's first; *target* goes on listening."""
        listener = self.listen(target, port, family)
        client = self.open_socket(source, family)
        client.settimeout(YOUNG_SECONDS)
        client.connect(self.reached_at(target, port, family))
        client.settimeout(DROPPED_SECONDS)
        return client, self.accept(listener)

    def associated(self, source: str, target: str, port: int, family: int = 4) -> tuple[socket.socket, socket.socket]:
        """Two datagram sockets that are connected to each other; *target* goes on receiving from whoever is new."""
        client = self.open_socket(source, family, socket.SOCK_DGRAM)
        client.connect(self.reached_at(target, port, family))
        self.receive(target, port, family)
        server = self.receive(target, port, family)
        server.connect(client.getsockname())
        client.send(b"")  # who is behind a translation is reached only once he has spoken
        return client, server

    def reaches(self, source: str, target: str, port: int, family: int = 4) -> bool:
        """Whether a new connection comes about, to whoever listens there."""
        try:
            self.connect(source, target, port, family).close()
        except TimeoutError:
            return False
        return True


def passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether a byte arrives; a receiver that has others waiting must be emptied first."""
    sender.sendall(b"x")
    try:
        return receiver.recv(1) == b"x"
    except TimeoutError:
        return False
