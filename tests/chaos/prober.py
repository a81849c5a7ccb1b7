"""Who reaches whom while everything falls over: numbered datagrams, received or not, judged when all is over.

Every volley sends one datagram from each Pod to each other on each port, and notes what both nodes had realized before
it. A receiver in the Pod takes what its rules let through; the number in a datagram says which sending it was. So a
datagram that arrives is evidence by itself, and nobody waits for silence.
"""

import asyncio
import contextlib
import functools
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from compose.lab.namespaces import inside_each
from compose.lab.plan import Plan, PlannedPod, family
from tests.chaos.history import PORTS
from tests.chaos.lab_enforcer import Progress

VOLLEY_SECONDS: Final = 0.2
FRESH_EVERY: Final = 5
"""In every so many volleys the sockets of the senders are new: new connections beside those that last."""
_NUMBER = struct.Struct("!I")


class Sent(msgspec.Struct, frozen=True, gc=False):
    """One datagram on its way."""

    volley: int
    source: str
    """Uid, as *destination*."""
    destination: str
    version: int
    port: int


class Volley(msgspec.Struct, frozen=True):
    """What was certain when its datagrams were sent."""

    realized: int
    """By both nodes."""
    settled: dict[str, int]
    """Uid → newest revision of its node at which it held what that revision asks."""
    excepted: frozenset[str]
    ended: float
    """Seconds since the Unix epoch; whatever of it passed, had passed by then."""


class _Mouth:
    """A Pod's sockets. They would keep its network alive, so they are closed with it."""

    def __init__(self, pod: PlannedPod) -> None:
        self.pod = pod
        self.addresses = {family(address): address for address in pod.pod.addresses}
        self.receivers: list[socket.socket] = []
        self.senders: dict[int, socket.socket] = {}

    def open(self) -> None:
        for address in self.addresses.values():
            for port in PORTS:
                made = _socket(address)
                made.bind((address, port))
                self.receivers.append(made)
        self.renew()

    def renew(self) -> None:
        for each in self.senders.values():
            each.close()
        self.senders = {version: _socket(address) for version, address in self.addresses.items()}

    def close(self) -> None:
        for each in (*self.receivers, *self.senders.values()):
            each.close()


class Prober:
    """Sends volleys for as long as its task runs; what it noted can be read afterwards."""

    def __init__(self, progress: Callable[[], Mapping[str, Progress]]) -> None:
        self.volleys: list[Volley] = []
        self.sent: list[Sent] = []
        self.arrived: set[tuple[int, str]] = set()
        """Number and the uid of who got it."""
        self._progress = progress
        self._mouths: dict[str, _Mouth] = {}
        self._settled: dict[str, int] = {}

    def follow(self, plan: Plan) -> None:
        """Probe among the Pods of *plan* from now on."""
        wanted = {planned.pod.uid: planned for planned in plan.pods}
        for uid in self._mouths.keys() - wanted.keys():
            self._hear()
            self._mouths.pop(uid).close()
        new = [_Mouth(wanted[uid]) for uid in wanted.keys() - self._mouths.keys()]
        inside_each((mouth.pod.netns, mouth.open) for mouth in new)
        self._mouths |= {mouth.pod.pod.uid: mouth for mouth in new}

    def forget(self, uids: set[str]) -> None:
        """Close the sockets of Pods that are about to go."""
        self._hear()
        for uid in uids & self._mouths.keys():
            self._mouths.pop(uid).close()

    async def run(self) -> None:
        try:
            while True:
                self._volley()
                await asyncio.sleep(VOLLEY_SECONDS)
                self._hear()
        finally:
            self._hear()
            self.forget(set(self._mouths))

    def _volley(self) -> None:
        progress = self._progress()
        for one in progress.values():
            for uid in one.settled:
                self._settled[uid] = max(self._settled.get(uid, -1), one.revision)
        index = len(self.volleys)
        if index % FRESH_EVERY == 0:
            inside_each((mouth.pod.netns, mouth.renew) for mouth in self._mouths.values())
        for source in self._mouths.values():
            for destination in self._mouths.values():
                if source is not destination:
                    self._shoot(index, source, destination)
        self._hear()
        self.volleys.append(
            Volley(
                min(one.revision for one in progress.values()),
                dict(self._settled),
                frozenset().union(*(one.exceptions for one in progress.values())),
                time.time(),
            )
        )

    def _shoot(self, index: int, source: _Mouth, destination: _Mouth) -> None:
        for version, address in destination.addresses.items():
            for port in PORTS:
                number = len(self.sent)
                uids = source.pod.pod.uid, destination.pod.pod.uid
                self.sent.append(Sent(index, *uids, version, port))
                with contextlib.suppress(OSError):  # dropped on its way out
                    source.senders[version].sendto(_NUMBER.pack(number), (address, port))

    def _hear(self) -> None:
        for uid, mouth in self._mouths.items():
            for receiver in mouth.receivers:
                for data in iter(functools.partial(_receive, receiver), b""):
                    self.arrived.add((_NUMBER.unpack(data)[0], uid))


def _receive(receiver: socket.socket) -> bytes:
    """One datagram; nothing where none waits."""
    try:
        return receiver.recv(64)
    except OSError:
        return b""


def _socket(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET if family(address) == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made
