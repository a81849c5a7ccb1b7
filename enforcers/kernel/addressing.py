"""Addresses of a namespace, from the kernel: which link carries a Pod's, and all that the node itself has."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Final

from enforcers.core.netlink.messages import DUMP, REQUEST, attributes, message
from enforcers.kernel.namespaces import inside
from enforcers.kernel.sockets import NETLINK_ROUTE, RECEIVE_BYTES, NetlinkSocket

GETADDR, NEWADDR = 22, 20
GETLINK, NEWLINK = 18, 16
ADDRESS, LOCAL = 1, 2
LINK_NAME, LINK_INFO, PORT_KIND = 3, 18, 4
CHANGES: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""
LOOPBACK: Final = (b"\x7f", b"\0" * 15 + b"\x01")
LINK_LOCAL: Final = b"\xfe\x80"
SERVICES_LINK: Final = b"kube-ipvs0"
"""Where kube-proxy in IPVS mode puts every Service's addresses, so that the node takes them for its own."""


def addresses(path: Path) -> dict[bytes, int]:
    """Every address in the namespace, packed, with the index of its link.

    Left out are loopback ones; those of Services in IPVS mode, which are nobody's own; and link-local ones of bridge
    ports: nobody can speak from these, and every Pod that comes or goes brings or takes one, so that all other Pods of
    its node would be written to each time.
    """
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        ports, services = _special_links(netlink)
        found: dict[bytes, int] = {}
        for kind, body in netlink.dump(message(GETADDR, REQUEST | DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
            if kind != NEWADDR:
                continue
            index = struct.unpack_from("=I", body, 4)[0]
            parts = dict(attributes(body[8:]))
            address = parts.get(LOCAL) or parts.get(ADDRESS) or LOOPBACK[0]
            if address.startswith(LOOPBACK[0]) or address == LOOPBACK[1]:
                continue
            if index in services or (index in ports and address.startswith(LINK_LOCAL)):
                continue
            found[address] = index
        return found


def _special_links(netlink: NetlinkSocket) -> tuple[set[int], set[int]]:
    """Indices of the links that belong to a bridge, and of the one that holds Services."""
    ports: set[int] = set()
    services: set[int] = set()
    for kind, body in netlink.dump(message(GETLINK, REQUEST | DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0))):
        if kind != NEWLINK:
            continue
        index: int = struct.unpack_from("=i", body, 4)[0]
        parts = dict(attributes(body[16:]))
        if dict(attributes(parts.get(LINK_INFO, b""))).get(PORT_KIND, b"").rstrip(b"\0") == b"bridge":
            ports.add(index)
        if parts.get(LINK_NAME, b"").rstrip(b"\0") == SERVICES_LINK:
            services.add(index)
    return ports, services


def interface_of(path: Path, wanted: Collection[bytes]) -> str | None:
    """The name of the link that carries any of the addresses *wanted*; ``None``: none does (yet)."""
    index = next((index for address, index in addresses(path).items() if address in wanted), None)
    return None if index is None else inside(path, lambda: socket.if_indextoname(index))


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
