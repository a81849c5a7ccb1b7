"""The connection table of one namespace: list what carries our mark, take the mark away."""

import errno
import socket
from pathlib import Path

from enforcers.core.netlink import connections
from enforcers.core.netlink.connections import Connection, Endpoints
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket


def marked(netlink: NetlinkSocket, mark: int) -> list[Connection]:
    """Every connection in the socket's namespace that has all bits of *mark*; 0: every connection.

    Raises `NetlinkRefused`. Blocks the caller: some milliseconds for the walk, some microseconds per entry. A namespace
    that has none, as a new Pod's, costs no walk.
    """
    if not count(netlink):
        return []
    found: list[Connection] = []
    # Both families at once: all namespaces share one table, and a dump walks the whole of it.
    for _, body in netlink.dump(connections.dump_request(socket.AF_UNSPEC, mark)):
        connection = connections.parse(body)
        if connection is not None and connection.mark & mark == mark:
            found.append(connection)
    return found


def count(netlink: NetlinkSocket) -> int:
    """How many connections there are. Raises `NetlinkRefused`."""
    return connections.parse_count(netlink.request(connections.count_request())[0])


def unmark(netlink: NetlinkSocket, mark: int, cut: list[Connection]) -> int:
    """Clear the bits *mark* of the connections *cut*; return how many there still were."""
    return _each(netlink, [connections.mark_request(each, mark, 0) for each in cut])


def forget(netlink: NetlinkSocket, ended: list[Connection]) -> int:
    """Delete entries: at the end of tracking, or they would later be taken for connections that rules allowed."""
    return _each(netlink, [connections.delete_request(each) for each in ended])


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


def translations(path: Path) -> dict[Endpoints, Endpoints]:
    """What a node's table says about where each connection really goes: original → reply direction."""
    with NetlinkSocket(path, NETLINK_NETFILTER) as netlink:
        found = marked(netlink, 0)
    return {each.original: each.reply for each in found if each.original.destination != each.reply.source}
