"""Asking who reaches whom: many probes at a time, each a socket made in its source's namespace.

A volley is opened by one thread that goes round the namespaces, and then watched by one epoll, which is itself watched
by the event loop: no process, task or thread per probe. A dropped packet costs the timeout, whatever the number.
"""

import asyncio
import contextlib
import errno
import functools
import resource
import secrets
import select
import socket
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from compose.lab.namespaces import inside_each
from compose.lab.plan import family
from compose.lab.talk import icmp, sctp
from compose.lab.talk.sockets import is_stream, make

DROP_SECONDS: Final = 0.25
"""How long silence must last to mean a drop. On the machine itself an answer takes well under a millisecond."""
AT_ONCE: Final = 512
BEAT_SECONDS: Final = 0.02
ATTEMPTS: Final = 4
"""At most, each with twice the patience of the one before."""


class Outcome(StrEnum):
    REACHABLE = "reachable"
    BLOCKED = "blocked"
    """Nothing came back, or the source's own rules dropped the packet."""
    REFUSED = "refused"
    """Somebody said no: nobody listens, or a rule rejects."""
    UNREACHABLE = "unreachable"
    """There is no way there."""


class Probe(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One question. Source and destination are names for the answer's reader; the network sees the rest."""

    source: str
    netns: str
    """The namespace that asks."""
    destination: str
    address: str
    protocol: str
    """``TCP``, ``UDP``, ``SCTP``; or ``ICMP``: an echo request, whatever the port."""
    port: int
    source_address: str = ""
    """Empty: the kernel chooses."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Outcome
    by: str = ""
    """The identity of the server that answered; empty for an echo, which a kernel answers."""
    attempts: int = 1


_REFUSALS: Final = {errno.ECONNREFUSED, errno.ENOPROTOOPT, errno.EPROTO, errno.ECONNRESET}
_REPORT_ERRORS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),  # IP_RECVERR: also what a router says, not only the destination
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),  # IPV6_RECVERR
}
_NO_WAY: Final = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}


async def probe_all(
    probes: Iterable[Probe], *, timeout_seconds: float = DROP_SECONDS, at_once: int = AT_ONCE
) -> dict[Probe, Answer]:
    """Ask all *probes*, *at_once* at a time; what was blocked is asked again if the machine seemed too busy to tell.

    Raises `compose.lab.namespaces.NoNamespace` when a source is gone. Leaves no socket, thread or task.
    """
    answers: dict[Probe, Answer] = {}
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    size = max(1, min(at_once, soft_limit // 4))  # the server's side of a connection needs one too
    waiting = sorted(set(probes), key=lambda probe: (probe.netns, probe))
    for start in range(0, len(waiting), size):
        asked: Sequence[Probe] = waiting[start : start + size]
        for attempt in range(ATTEMPTS):
            volley = _Volley(asked)
            found = await volley.run(timeout_seconds * 2**attempt)
            answers |= {probe: msgspec.structs.replace(answer, attempts=attempt + 1) for probe, answer in found.items()}
            asked = [probe for probe in asked if found[probe].outcome is Outcome.BLOCKED]
            if not asked or not (volley.busy or (volley.half_open and attempt == 0)):
                break
    return answers


class _Shot:
    """A probe under way."""

    def __init__(self, probe: Probe, opened: socket.socket) -> None:
        self.probe = probe
        self.socket = opened
        self.tag = secrets.randbits(32) | 1  # an SCTP tag is never 0
        self.request = f"{self.tag:08x}".encode()
        self.stream = is_stream(probe.protocol)
        self.connected = False

    def fire(self) -> Answer | None:
        """Send the first packet; an answer if it is known at once."""
        probe = self.probe
        if probe.source_address:
            self.socket.bind((probe.source_address, 0))
        if self.stream:
            # Closing resets: a matrix of thousands leaves no TIME_WAIT behind.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        level, report_errors = _REPORT_ERRORS[self.socket.family]
        self.socket.setsockopt(level, report_errors, 1)
        raw = self.socket.type == socket.SOCK_RAW
        failed = self.socket.connect_ex((probe.address, 0 if raw else probe.port))
        if failed not in (0, errno.EINPROGRESS):
            return _failure(failed)
        if not self.stream:
            self.socket.send(self._packet() if raw else self.request)
        return None

    def _packet(self) -> bytes:
        if self.probe.protocol == "ICMP":
            return icmp.echo(family(self.probe.address), self.tag)
        source_port = 32768 + self.tag % 28232
        return sctp.encode(
            sctp.Packet(
                source_port=source_port,
                destination_port=self.probe.port,
                tag=0,
                chunk=sctp.INIT,
                initiate_tag=self.tag,
            )
        )

    def advance(self) -> Answer | None:
        """Go on after the socket became ready; an answer if it is known now."""
        try:
            if self.stream and not self.connected:
                failed = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed:
                    return _failure(failed)
                self.connected = True
                self.socket.send(self.request)
                return None
            if self.socket.type != socket.SOCK_RAW:
                return self._read(self.socket.recv(4096))
            while True:  # it also hears what its peer says to others in this Pod
                if answer := self._read_raw(self.socket.recv(4096)):
                    return answer
        except BlockingIOError:
            return None
        except OSError as error:
            return _failure(error.errno or 0)

    def _read(self, data: bytes) -> Answer | None:
        request, _, identity = data.decode(errors="replace").rstrip("\n").partition(" ")
        if request != self.request.decode():  # closed by a server that is going away, or not one of ours
            return Answer(outcome=Outcome.REFUSED)
        return Answer(outcome=Outcome.REACHABLE, by=identity)

    def _read_raw(self, data: bytes) -> Answer | None:
        version = family(self.probe.address)
        received = sctp.without_ip_header(data, version)
        if self.probe.protocol == "ICMP":
            return Answer(outcome=Outcome.REACHABLE) if icmp.answers(version, self.tag, received) else None
        packet = sctp.decode(received)
        if packet is None or packet.source_port != self.probe.port or packet.tag != self.tag:
            return None  # meant for another probe of this Pod
        if packet.chunk == sctp.INIT_ACK:
            return Answer(outcome=Outcome.REACHABLE, by=packet.cookie.decode(errors="replace"))
        return Answer(outcome=Outcome.REFUSED) if packet.chunk == sctp.ABORT else None


def _failure(number: int) -> Answer:
    if number in _REFUSALS:
        return Answer(outcome=Outcome.REFUSED)
    if number in _NO_WAY:
        return Answer(outcome=Outcome.UNREACHABLE)
    if number in (errno.EPERM, errno.EACCES):  # dropped on the way out of the source itself
        return Answer(outcome=Outcome.BLOCKED)
    raise OSError(number, f"a probe failed in an unforeseen way: {errno.errorcode.get(number, number)}")


class _Pulse:
    """Beats while a volley waits: in a long pause between two beats nobody listened, neither prober nor servers."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._last = time.monotonic()
        self._next = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        self._longest = self.longest_pause()
        self._last = time.monotonic()
        self._next = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def longest_pause(self) -> float:
        """Seconds, the pause since the last beat included."""
        return max(self._longest, time.monotonic() - self._last)

    def stop(self) -> None:
        self._next.cancel()


class _Volley:
    """Probes that are under way together."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = probes
        self.busy = False
        """Whether silence may have come from a busy machine rather than from a drop."""
        self.half_open = False
        """Whether someone accepted a connection and then said nothing."""
        self._answers: dict[Probe, Answer] = {}
        self._shots: dict[int, _Shot] = {}
        self._ready = asyncio.Event()

    async def run(self, timeout_seconds: float) -> dict[Probe, Answer]:
        """Fire, wait, and count what is still silent after *timeout_seconds* as blocked."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as cleanup:
            poll = cleanup.enter_context(select.epoll())
            cleanup.callback(self._close)
            self._fire(poll)
            pulse = _Pulse()
            cleanup.callback(pulse.stop)
            loop.add_reader(poll.fileno(), self._advance, poll)
            cleanup.callback(loop.remove_reader, poll.fileno())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._ready.wait()
            if self._shots:
                self._advance(poll)  # what came while the loop was busy elsewhere counts
                self.busy = pulse.longest_pause() > timeout_seconds / 2
                self.half_open = any(shot.connected for shot in self._shots.values())
            silent = {shot.probe: Answer(outcome=Outcome.BLOCKED) for shot in self._shots.values()}
        return {**self._answers, **silent}

    def _fire(self, poll: select.epoll) -> None:
        inside_each((probe.netns, functools.partial(self._open, probe)) for probe in self.probes)
        for shot in list(self._shots.values()):
            events = select.EPOLLIN | select.EPOLLOUT if shot.stream else select.EPOLLIN
            poll.register(shot.socket.fileno(), events)
        if not self._shots:
            self._ready.set()

    def _open(self, probe: Probe) -> None:
        shot = _Shot(probe, make(probe.protocol, probe.address))
        self._shots[shot.socket.fileno()] = shot
        try:
            answer = shot.fire()
        except OSError as error:
            answer = _failure(error.errno or 0)
        if answer is not None:
            self._settle(shot, answer)

    def _advance(self, poll: select.epoll) -> None:
        for number, _ in poll.poll(0, max(1, len(self._shots))):
            shot = self._shots[number]
            was_connected = shot.connected
            answer = shot.advance()
            if answer is not None:
                poll.unregister(number)
                self._settle(shot, answer)
            elif shot.connected and not was_connected:
                poll.modify(number, select.EPOLLIN)
        if not self._shots:
            self._ready.set()

    def _settle(self, shot: _Shot, answer: Answer) -> None:
        self._answers[shot.probe] = answer
        del self._shots[shot.socket.fileno()]
        shot.socket.close()

    def _close(self) -> None:
        for shot in self._shots.values():
            shot.socket.close()
        self._shots.clear()
