"""A namespace's sockets as the kernel tells: the sock_diag messages that list them.

Source: Linux ``uapi/linux/sock_diag.h``, ``inet_diag.h``; states are those of ``include/net/tcp_states.h``.
"""

import struct
from enum import IntEnum
from typing import Final

import msgspec

from enforcers.core.netlink.connections import Endpoints
from enforcers.core.netlink.messages import DUMP, REQUEST, message
from schemas.addresses import TCP, UDP

BY_FAMILY: Final = 20
AF_INET, AF_INET6 = 2, 10
PROTOCOLS: Final = (TCP, UDP)
"""Those whose sockets tell both ends. An SCTP association has as many addresses as it likes, and its entry cannot be
made without the tags of its INIT."""
MAPPED: Final = bytes(10) + b"\xff\xff"
"""An IPv6 socket that speaks IPv4."""
HEAD: Final = struct.Struct("=BBBB")  # family, state, timer, retransmits
PORTS: Final = struct.Struct(">HH")
SHORTEST: Final = HEAD.size + PORTS.size + 32


class SocketState(IntEnum):
    """Of TCP; a UDP socket that is connected is ESTABLISHED, any other CLOSED."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTENING = 10
    CLOSING = 11
    NEW_SYN_RECEIVED = 12


EVERY_STATE: Final = sum(1 << state for state in SocketState)


class Socket(msgspec.Struct, frozen=True, gc=False):
    """One socket; also one that nobody has accepted yet, or that its process has closed and the kernel has not."""

    ends: Endpoints
    """From the own end; without a peer its addresses and ports are 0."""
    state: SocketState

    @property
    def connected(self) -> bool:
        """Whether it has a peer, and something may still come from it."""
        return self.state not in (SocketState.CLOSED, SocketState.LISTENING, SocketState.TIME_WAIT)

    @property
    def receiving(self) -> bool:
        """Whether strangers can begin a connection to it."""
        return self.state is (SocketState.LISTENING if self.ends.protocol == TCP else SocketState.CLOSED)


def dump_requests(protocol: int) -> list[bytes]:
    """One request for each family."""
    return [
        message(BY_FAMILY, REQUEST | DUMP, struct.pack("=BBBBI", family, protocol, 0, 0, EVERY_STATE) + bytes(48))
        for family in (AF_INET, AF_INET6)
    ]


def parse(protocol: int, body: bytes) -> Socket | None:
    """One socket of a dump; ``None`` for what is cut short."""
    if len(body) < SHORTEST:
        return None
    family, state, _, _ = HEAD.unpack_from(body)
    local_port, remote_port = PORTS.unpack_from(body, 4)
    local, remote = _address(family, body[8:24]), _address(family, body[24:40])
    return Socket(Endpoints(local, remote, protocol, local_port, remote_port), SocketState(state))


def _address(family: int, words: bytes) -> bytes:
    if family == AF_INET:
        return words[:4]
    return words[12:] if words.startswith(MAPPED) else words
