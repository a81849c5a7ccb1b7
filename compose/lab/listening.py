"""Servers of the Pods: whoever reaches one is told whom it reached.

Every server echoes what it was sent, followed by its own identity, so that a probe through a Service knows which
endpoint answered. TCP and UDP by ordinary sockets; SCTP too, or by raw packets where the kernel has none.
"""

import asyncio
import contextlib
import functools
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

import msgspec

from compose.lab.namespaces import inside_each
from compose.lab.plan import Plan, family
from compose.lab.talk import sctp
from compose.lab.talk.sockets import is_stream, make

OUTSIDE: Final = "outside"
"""The identity of every address beyond the cluster."""
BACKLOG: Final = 1024


class Listener(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A server as asked for."""

    netns: str
    address: str
    protocol: str
    port: int
    identity: str
    """``namespace/name`` of the Pod, or `OUTSIDE`."""
    incarnation: str = ""
    """Of the namespace: the server of a Pod that was replaced by one of the same name is another server."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a server saw: evidence that a packet passed, whatever became of the answer."""

    identity: str
    protocol: str
    port: int
    source: str
    """The source address as seen by the server."""


def listeners_of(plan: Plan, ports: Iterable[tuple[str, int]]) -> set[Listener]:
    """A server on every (protocol, port) at every address of every Pod of *plan*, and at every outside address."""
    places = {(plan.outside, address): (OUTSIDE, "") for address in plan.externals}
    for planned in plan.pods:
        for address in planned.pod.addresses:
            places.setdefault((planned.netns, address), (planned.key, planned.link))
    wanted = tuple(ports)
    return {
        Listener(netns=netns, address=address, protocol=protocol, port=port, identity=identity, incarnation=incarnation)
        for (netns, address), (identity, incarnation) in places.items()
        for protocol, port in wanted
    }


def declared_listeners(plan: Plan) -> set[Listener]:
    """A server on every port that a Pod's containers declare."""
    wanted: set[Listener] = set()
    for planned in plan.pods:
        alone = msgspec.structs.replace(plan, pods=(planned,), externals=())
        wanted |= listeners_of(alone, planned.pod.ports)
    return wanted


class Listeners:
    """The servers that run now; an async context manager that closes them all.

    They run on the loop that entered it, as callbacks: no task and no thread per server.
    """

    def __init__(self) -> None:
        self.arrivals: Counter[Arrival] = Counter()
        """Everything received since the start, refused or answered."""
        self._servers: dict[Listener, socket.socket] = {}
        self._connections: dict[Listener, set[socket.socket]] = {}
        self._ports: dict[tuple[str, str, str], set[int]] = {}

    def __repr__(self) -> str:
        return f"Listeners({len(self._servers)} servers, {sum(map(len, self._connections.values()))} connections)"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.want(())

    def want(self, wanted: Iterable[Listener]) -> None:
        """Make the servers be *wanted*: close the others with their connections, open the missing.

        Raises `OSError` naming the listener where an address cannot be bound, and `NoNamespace`; the others stand.
        """
        target = set(wanted)
        for listener in self._servers.keys() - target:
            self._close(listener)
        missing = sorted(target - self._servers.keys())
        inside_each((listener.netns, functools.partial(self._open, listener)) for listener in missing)
        self._ports = {}
        for listener in self._servers:
            self._ports.setdefault((listener.netns, listener.address, listener.protocol), set()).add(listener.port)
        loop = asyncio.get_running_loop()
        for listener in missing:
            server = self._servers[listener]
            loop.add_reader(server, self._reader(listener), listener, server)

    def _open(self, listener: Listener) -> None:
        server = make(listener.protocol, listener.address)
        try:
            # Beside connections that still end, and beside a closed server that goes on for a moment (`_close`).
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            raw = server.type == socket.SOCK_RAW
            server.bind((listener.address, 0 if raw else listener.port))
            if is_stream(listener.protocol):
                server.listen(BACKLOG)
        except OSError as error:
            server.close()
            where = f"{listener.identity} at {listener.address} {listener.protocol} {listener.port}"
            raise OSError(error.errno, f"cannot listen for {where}: {error.strerror}") from error
        self._servers[listener] = server

    def _reader(self, listener: Listener) -> Callable[[Listener, socket.socket], None]:
        if is_stream(listener.protocol):
            return self._accept
        return self._answer_datagram if listener.protocol == "UDP" else self._answer_init

    def _close(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        server = self._servers.pop(listener)
        if is_stream(listener.protocol):
            # Closed alone it would keep the address in a child that is being spawned, until that runs its program.
            server.shutdown(socket.SHUT_RDWR)
        for open_socket in (server, *self._connections.pop(listener, ())):
            loop.remove_reader(open_socket)
            open_socket.close()

    def _arrived(self, listener: Listener, port: int, source: str) -> None:
        arrival = Arrival(identity=listener.identity, protocol=listener.protocol, port=port, source=source)
        self.arrivals[arrival] += 1

    def _accept(self, listener: Listener, server: socket.socket) -> None:
        """Take every waiting connection: one wake-up may stand for many."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = server.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # reset while it waited
                continue
            self._arrived(listener, listener.port, peer[0])
            connection.setblocking(False)
            self._connections.setdefault(listener, set()).add(connection)
            loop.add_reader(connection, self._answer_stream, listener, connection)

    def _answer_stream(self, listener: Listener, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
            if data:
                connection.send(_answer(data, listener))
                return
        except BlockingIOError:
            return
        except OSError:  # reset by the peer: as closed
            pass
        asyncio.get_running_loop().remove_reader(connection)
        self._connections[listener].discard(connection)
        connection.close()

    def _answer_datagram(self, listener: Listener, server: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, peer = server.recvfrom(4096)
                self._arrived(listener, listener.port, peer[0])
                with contextlib.suppress(PermissionError):  # the Pod's own rules drop the answer
                    server.sendto(_answer(data, listener), peer)

    def _answer_init(self, listener: Listener, server: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, peer = server.recvfrom(4096)
                asked = sctp.decode(sctp.without_ip_header(data, family(listener.address)))
                if asked is None or asked.chunk != sctp.INIT or not self._answers_for(listener, asked.destination_port):
                    continue
                self._arrived(listener, asked.destination_port, peer[0])
                answer = sctp.answer(asked, listener.identity if asked.destination_port == listener.port else None)
                with contextlib.suppress(PermissionError):
                    server.sendto(sctp.encode(answer), (peer[0], 0))

    def _answers_for(self, listener: Listener, port: int) -> bool:
        """A raw socket sees every port of its address: each listener answers for its own, one refuses the others'."""
        here = self._ports[(listener.netns, listener.address, listener.protocol)]
        return port == listener.port or (port not in here and listener.port == min(here))


def _answer(data: bytes, listener: Listener) -> bytes:
    """Every line of *data*, with the identity behind it: what a stopped connection held back comes at once."""
    identity = listener.identity.encode()
    return b"".join(line + b" " + identity + b"\n" for line in data.splitlines())
