"""Addresses of a namespace, from the kernel: which link carries a Pod's, and all that the node itself has."""

import asyncio
import struct
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Final

from enforcers.core.netlink.messages import ACK, DUMP, REQUEST, attributes, message
from enforcers.kernel.sockets import NETLINK_ROUTE, RECEIVE_BYTES, NetlinkRefused, NetlinkSocket

GETADDR, NEWADDR = 22, 20
GETLINK, NEWLINK = 18, 16
ADDRESS, LOCAL = 1, 2
LINK_NAME, LINK_INFO, PORT_KIND = 3, 18, 4
CHANGES: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""
LOOPBACK: Final = (b"\x7f", b"\0" * 15 + b"\x01")
LINK_LOCAL: Final = b"\xfe\x80"


def addresses(path: Path) -> dict[bytes, int]:
    """Every address in the namespace, packed, with the index of its link.

    Left out are loopback ones, and link-local ones of bridge ports: nobody can speak from these, and every Pod that
    comes or goes brings or takes one, so that all other Pods of its node would be written to each time.
    """
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        return _addresses(netlink)


def _addresses(netlink: NetlinkSocket) -> dict[bytes, int]:
    ports = _bridge_ports(netlink)
    found: dict[bytes, int] = {}
    for kind, body in netlink.dump(message(GETADDR, REQUEST | DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
        if kind != NEWADDR:
            continue
        index = struct.unpack_from("=I", body, 4)[0]
        parts = dict(attributes(body[8:]))
        address = parts.get(LOCAL) or parts.get(ADDRESS) or LOOPBACK[0]
        if address.startswith(LOOPBACK[0]) or address == LOOPBACK[1]:
            continue
        if index in ports and address.startswith(LINK_LOCAL):
            continue
        found[address] = index
    return found


def _bridge_ports(netlink: NetlinkSocket) -> set[int]:
    """Indices of the links that belong to a bridge."""
    ports: set[int] = set()
    for kind, body in netlink.dump(message(GETLINK, REQUEST | DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0))):
        information = dict(attributes(dict(attributes(body[16:])).get(LINK_INFO, b"")))
        if kind == NEWLINK and information.get(PORT_KIND, b"").rstrip(b"\0") == b"bridge":
            ports.add(struct.unpack_from("=i", body, 4)[0])
    return ports


def interface_of(path: Path, wanted: Collection[bytes]) -> str | None:
    """The name of the link that carries any of the addresses *wanted*; ``None``: none does (yet)."""
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        index = next((index for address, index in _addresses(netlink).items() if address in wanted), None)
        return None if index is None else _name(netlink, index)


def _name(netlink: NetlinkSocket, index: int) -> str | None:
    try:
        answer, *_ = netlink.request(message(GETLINK, REQUEST | ACK, struct.pack("=BxHiII", 0, 0, index, 0, 0)))
    except NetlinkRefused:  # it went meanwhile
        return None
    return dict(attributes(answer[16:]))[LINK_NAME].rstrip(b"\0").decode()


async def watch_addresses(path: Path) -> AsyncGenerator[frozenset[bytes]]:
    """All addresses of the namespace, now and whenever they change."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    with NetlinkSocket(path, NETLINK_ROUTE, CHANGES) as netlink:

        def readable() -> None:
            try:
                while netlink.socket.recv(RECEIVE_BYTES):
                    pass
            except BlockingIOError:
                pass
            except OSError:  # ENOBUFS: something was lost, so look again
                pass
            changed.set()

        loop.add_reader(netlink.socket, readable)
        try:
            before: frozenset[bytes] | None = None
            while True:
                changed.clear()
                now = frozenset(addresses(path))
                if now != before:
                    before = now
                    yield now
                await changed.wait()
        finally:
            loop.remove_reader(netlink.socket)
