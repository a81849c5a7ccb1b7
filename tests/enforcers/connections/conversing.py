"""Live conversations between a Pod and its peers, each side pushing numbered messages, while rules change under them.

What was lost and what was delivered is counted where it arrives: messages by their numbers in the receiving process,
packets by a rule of the test's own in the receiving namespace.
"""

import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from schemas.addresses import TCP, UDP
from tests.enforcers.pod_world import command, eventually
from tests.enforcers.sockets import Sockets

NUMBER: Final = struct.Struct("!Q")
PAUSE_SECONDS: Final = 0.01
FIRST_PORT: Final = 8000


class Kind(NamedTuple):
    """One kind of conversation between ``web`` and *peer*."""

    protocol: int
    family: int
    inbound: bool
    """Begun by the peer."""
    peer: str
    pushing: str
    """``client``, ``server``, ``both``."""

    def forbidden(self, *, ingress: bool, egress: bool) -> bool:
        """Whether a Pod that is isolated in these directions, and then admits only ``a``, forbids it."""
        return self.peer != "a" and (ingress if self.inbound else egress)


KINDS: Final = [
    Kind(*each) for each in product((TCP, UDP), (4, 6), (True, False), ("a", "b"), ("client", "server", "both"))
]


class Side:
    """One end: what it sent, and which numbers of the other's it has."""

    def __init__(self, netns: Path, end: socket.socket, *, pushes: bool) -> None:
        self.netns = netns
        self.socket = end
        self.pushes = pushes
        self.sent = 0
        self.received: set[int] = set()
        self._unsent = self._unread = b""
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def push(self) -> None:
        if not self._unsent:
            self._unsent = NUMBER.pack(self.sent)
            self.sent += 1
        with contextlib.suppress(OSError):  # its buffer is full, or its rules drop: a stream says it later
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        if self.socket.type is socket.SOCK_DGRAM:
            self._unsent = b""

    def take(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.socket.recv(65536):
                self._unread += data
                whole = len(self._unread) // NUMBER.size * NUMBER.size
                self.received.update(each for (each,) in NUMBER.iter_unpack(self._unread[:whole]))
                self._unread = self._unread[whole:]


class Conversation(NamedTuple):
    kind: Kind
    client: Side
    server: Side

    @property
    def pod(self) -> Side:
        return self.server if self.kind.inbound else self.client

    @property
    def other(self) -> Side:
        return self.client if self.kind.inbound else self.server

    @property
    def lost(self) -> int:
        """Messages that did not arrive, or have not yet."""
        return sum(
            sender.sent - len(receiver.received)
            for sender, receiver in ((self.client, self.server), (self.server, self.client))
        )

    def rule(self, receiver: Side) -> str:
        """An nft rule that counts its packets where they arrive."""
        here, there = receiver.socket.getsockname(), receiver.socket.getpeername()
        ip, protocol = ("ip", "ip6")[self.kind.family == 6], ("udp", "tcp")[self.kind.protocol == TCP]
        return (
            f"{ip} saddr {there[0]} {ip} daddr {here[0]} {protocol} sport {there[1]} {protocol} dport {here[1]} counter"
        )


class Conversations:
    """Conversations that a thread keeps alive until they are ended."""

    def __init__(self) -> None:
        self.all: list[Conversation] = []
        self._stop = threading.Event()
        self._silent = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="conversing", daemon=True)

    def add(self, kind: Kind, client: Side, server: Side) -> None:
        """Before `start`."""
        self.all.append(Conversation(kind, client, server))

    def __enter__(self) -> Self:
        """Begin to push, and wait until everybody was heard."""
        self._thread.start()
        self.await_news()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def await_news(self, *, ingress: bool = False, egress: bool = False) -> None:
        """Wait until everybody whom a Pod with these directions isolated allows has pushed more, and was heard."""
        pushing = [
            (sender, receiver, sender.sent)
            for each in self.all
            if not each.kind.forbidden(ingress=ingress, egress=egress)
            for sender, receiver in ((each.client, each.server), (each.server, each.client))
            if sender.pushes
        ]
        eventually(
            "everybody to be heard",
            lambda: all(max(receiver.received, default=-1) > sent + 2 for _, receiver, sent in pushing),
        )

    @contextlib.contextmanager
    def counting(self, *, ingress: bool, egress: bool) -> Iterator[dict[Kind, int]]:
        """Count, while inside, the packets that arrive although the direction they take is isolated from them."""
        rules: dict[Path, list[tuple[Kind, str]]] = {}
        for each in self.all:
            for receiver, isolated in ((each.pod, ingress), (each.other, egress)):
                if isolated and each.kind.forbidden(ingress=ingress, egress=egress):
                    rules.setdefault(receiver.netns, []).append((each.kind, each.rule(receiver)))
        counts: dict[Kind, int] = {}
        for netns, named in rules.items():
            lines = ["table inet counting {", "chain input {", "type filter hook input priority 100;"]
            lines += [f'{rule} comment "{number}"' for number, (_, rule) in enumerate(named)]
            command(netns, "nft", "-f", "-", text="\n".join([*lines, "}", "}", ""]))
        yield counts
        for netns, named in rules.items():
            listing = json.loads(command(netns, "nft", "-j", "list", "table", "inet", "counting"))
            for item in listing["nftables"]:
                if found := item.get("rule"):
                    packets = sum(part["counter"]["packets"] for part in found["expr"] if "counter" in part)
                    kind = named[int(found["comment"])][0]
                    counts[kind] = counts.get(kind, 0) + packets
            command(netns, "nft", "delete", "table", "inet", "counting")

    def lost(self, *, ingress: bool, egress: bool) -> dict[Kind, int]:
        """Fall silent, wait for what is under way, and return what of the allowed never arrived."""
        allowed = [each for each in self.all if not each.kind.forbidden(ingress=ingress, egress=egress)]
        self._silent.set()
        with contextlib.suppress(AssertionError):
            eventually("all that is under way", lambda: not any(each.lost for each in allowed))
        return {each.kind: each.lost for each in allowed if each.lost}

    def _talk(self) -> None:
        sides = [side for each in self.all for side in (each.client, each.server)]
        by_number = {side.socket.fileno(): side for side in sides}
        poll = select.poll()
        for number in by_number:
            poll.register(number, select.POLLIN)
        due = time.monotonic()
        while not self._stop.is_set():
            for number, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000):
                by_number[number].take()
            if time.monotonic() < due:
                continue
            due = time.monotonic() + PAUSE_SECONDS
            for side in sides:
                if side.pushes and not self._silent.is_set():
                    side.push()


def conversations(world: Sockets, kinds: Iterable[Kind] = KINDS) -> Conversations:
    """One conversation of each kind, each with a port of its own."""
    talks = Conversations()
    for port, kind in enumerate(kinds, start=FIRST_PORT):
        source, target = (kind.peer, "web") if kind.inbound else ("web", kind.peer)
        make = world.connected if kind.protocol == TCP else world.associated
        client, server = make(source, target, port, kind.family)
        talks.add(
            kind,
            Side(world.path(source), client, pushes=kind.pushing in ("client", "both")),
            Side(world.path(target), server, pushes=kind.pushing in ("server", "both")),
        )
    return talks
