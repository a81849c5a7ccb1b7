"""The connection table of one namespace: list, find and count, make and end entries, set and clear marks."""

import errno
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from enforcers.core.connections.adopting import Entry
from enforcers.core.netlink import connections
from enforcers.core.netlink.connections import Connection, Endpoints
from enforcers.kernel.namespaces import inside
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket
from schemas import addresses
from schemas.addresses import UDP

EVERY: Final = sys.maxsize
PIECE: Final = 1 << 16
"""Connections that are had in hand at a time, 600 bytes each: a Pod may have a million."""
LOOPBACKS: Final = (b"\x7f\0\0\1", bytes(15) + b"\1")


def each_marked(netlink: NetlinkSocket, bits: int, *, most: int = EVERY) -> Iterator[Connection]:
    """Every connection in the socket's namespace that has all *bits* in its mark, 0: every connection; not more than
    *most*. Has to be read to its end before anything else is asked.

    Raises `NetlinkRefused`. Blocks the caller: some milliseconds for the walk, some microseconds per entry. A namespace
    that has none, as a new Pod's, costs no walk.
    """
    if not usage(netlink)[0]:
        return
    # Both families at once: all namespaces share one table, and a dump walks the whole of it.
    for _, body in netlink.stream(connections.dump_request(socket.AF_UNSPEC, bits)):
        connection = connections.parse(body) if most else None
        if connection is not None and connection.mark & bits == bits:
            most -= 1
            yield connection


def marked(netlink: NetlinkSocket, bits: int, *, most: int = EVERY) -> list[Connection]:
    """`each_marked` at once."""
    return list(each_marked(netlink, bits, most=most))


def pieces(netlink: NetlinkSocket) -> int:
    """In how many walks all connections are met, if each walk takes a `PIECE` of them away."""
    return usage(netlink)[0] // PIECE + 1


def mark(netlink: NetlinkSocket, bits: int, allowed: list[Connection]) -> int:
    """Set *bits* of the mark of each; return how many there still were."""
    return _each(netlink, [connections.mark_request(each, bits, bits) for each in allowed])


def unmark(netlink: NetlinkSocket, bits: int, cut: list[Connection]) -> int:
    """Clear *bits* of the mark of each; return how many there still were."""
    return _each(netlink, [connections.mark_request(each, bits, 0) for each in cut])


def forget(netlink: NetlinkSocket, ended: list[Connection]) -> int:
    """Delete entries: at the end of tracking, or they would later be taken for connections that rules allowed."""
    return _each(netlink, [connections.delete_request(each) for each in ended])


def end(netlink: NetlinkSocket, path: Path, bits: int) -> None:
    """Our rules have left the namespace *path*, the socket's: take their marks away.

    Where nobody else tracks there, every entry goes: it would outlive what it says. Where somebody does, entries are
    theirs, and hold what they translate.
    """
    tracked = {len(address) for address in LOOPBACKS if _tracks(netlink, path, address)}

    def foreign(entry: Connection) -> bool:
        return len(entry.original.source) in tracked

    for _ in range(pieces(netlink)):
        due = (each for each in each_marked(netlink, 0) if each.mark & bits or not foreign(each))
        found = [each for number, each in enumerate(due) if number < PIECE]
        forget(netlink, [each for each in found if not foreign(each)])
        unmark(netlink, bits, [each for each in found if foreign(each)])


def _tracks(netlink: NetlinkSocket, path: Path, loopback: bytes) -> bool:
    """Whether the kernel tracks this family. It has no word for that, so that a datagram to oneself has to tell."""

    def send() -> Endpoints:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((addresses.unpack(loopback), 0))
            port = probe.getsockname()[1]
            probe.sendto(b"", probe.getsockname())
        return Endpoints(loopback, loopback, UDP, port, port)

    family = socket.AF_INET if len(loopback) == 4 else socket.AF_INET6
    try:
        entry = find(netlink, inside(path, send))
    except OSError:  # it has no such loopback: whoever tracks there, we cannot know
        return True
    if entry is not None:
        forget(netlink, [entry])
    return entry is not None


def add(netlink: NetlinkSocket, bits: int, entry: Entry) -> bool:
    """Put *entry* in place of what stands the wrong way round; return whether that is so: a packet may be quicker.

    Raises `NetlinkRefused`, with ENOMEM where the table is full.
    """
    if entry.instead_of is not None:
        forget(netlink, [entry.instead_of])
    try:
        netlink.request(connections.create_request(entry.original, entry.state, bits if entry.allowed else 0))
    except NetlinkRefused as error:
        if error.number != errno.EEXIST:
            raise
        return False
    return True


def find(netlink: NetlinkSocket, ends: Endpoints) -> Connection | None:
    """The connection that has *ends* as either of its directions."""
    try:
        (found,) = netlink.request(connections.find_request(ends))
    except NetlinkRefused as error:
        if error.number != errno.ENOENT:
            raise
        return None
    return connections.parse(found)


def usage(netlink: NetlinkSocket) -> tuple[int, int]:
    """How many connections the socket's namespace tracks, and how many it may; some microseconds, no walk.

    The kernel counts per namespace and has one limit for each of them; from there on new connections are dropped.
    """
    (told,) = netlink.request(connections.statistics_request())
    return connections.parse_statistics(told)


def _each(netlink: NetlinkSocket, requests: list[bytes]) -> int:
    done = 0
    for request in requests:
        try:
            netlink.request(request)
        except NetlinkRefused as error:
            if error.number != errno.ENOENT:  # ended by itself meanwhile
                raise
        else:
            done += 1
    return done


class NodeTable:
    """The node's own connection table, asked for single connections; a context manager, opened when it is first asked.

    *path* is the node's namespace; without one nothing is known.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._netlink: NetlinkSocket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._netlink is not None:
            self._netlink.close()

    def find(self, ends: Endpoints) -> Connection | None:
        """The connection that has *ends* as either direction, or answers the one that has."""
        if self._path is None:
            return None
        if self._netlink is None:
            self._netlink = NetlinkSocket(self._path, NETLINK_NETFILTER)
        return find(self._netlink, ends) or find(self._netlink, ends.reverse)
