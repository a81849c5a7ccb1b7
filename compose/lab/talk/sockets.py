"""Sockets of the lab's protocols. Made by a thread inside a Pod's namespace (`compose.lab.namespaces.inside_each`)."""

import functools
import socket
from typing import Final

from compose.lab.plan import family

SCTP: Final = 132
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
"""Those that have ports."""


@functools.cache
def kernel_has_sctp() -> bool:
    """Whether the kernel makes SCTP sockets; without, the lab speaks SCTP by raw packets on both sides."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()
    except OSError:
        return False
    return True


def is_stream(protocol: str) -> bool:
    """Whether *protocol* is spoken over connected stream sockets here."""
    return protocol == "TCP" or (protocol == "SCTP" and kernel_has_sctp())


def make(protocol: str, address: str) -> socket.socket:
    """A non-blocking socket of *protocol* for the family of *address*; ``ICMP`` means that family's.

    Raises `ValueError` for an unknown protocol.
    """
    kind = socket.AF_INET if family(address) == 4 else socket.AF_INET6
    raw = {"SCTP": SCTP, "ICMP": socket.IPPROTO_ICMP if kind == socket.AF_INET else socket.IPPROTO_ICMPV6}
    if is_stream(protocol):
        made = socket.socket(kind, socket.SOCK_STREAM, SCTP if protocol == "SCTP" else 0)
    elif protocol == "UDP":
        made = socket.socket(kind, socket.SOCK_DGRAM)
    elif protocol in raw:
        made = socket.socket(kind, socket.SOCK_RAW, raw[protocol])
    else:
        raise ValueError(f"protocol {protocol!r} is not one of {', '.join((*PROTOCOLS, 'ICMP'))}")
    made.setblocking(False)
    return made
