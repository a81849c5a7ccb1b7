"""Addresses of a namespace, from the kernel: which link carries a Pod's, and all that the node itself has."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Final

from enforcers.core.netlink import DUMP, REQUEST, attributes, message
from enforcers.namespaces import inside
from enforcers.sockets import NETLINK_ROUTE, RECEIVE_BYTES, NetlinkSocket

GETADDR: Final = 22
NEWADDR: Final = 20
ADDRESS, LOCAL = 1, 2
ADDRESS_CHANGES: Final = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""
LOOPBACK: Final = (b"\x7f", b"\0" * 15 + b"\x01")


def addresses(path: Path) -> dict[bytes, int]:
    """Every address in the namespace, packed, with the index of its link; loopback ones left out."""
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        found: dict[bytes, int] = {}
        for kind, body in netlink.dump(message(GETADDR, REQUEST | DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
            if kind != NEWADDR:
                continue
            index = struct.unpack_from("=I", body, 4)[0]
            parts = dict(attributes(body[8:]))
            address = parts.get(LOCAL) or parts.get(ADDRESS)
            if address and not address.startswith(LOOPBACK[0]) and address != LOOPBACK[1]:
                found[address] = index
        return found


def interface_of(path: Path, wanted: Collection[bytes]) -> str | None:
    """The name of the link that carries any of the addresses *wanted*; ``None``: none does (yet)."""
    index = next((index for address, index in addresses(path).items() if address in wanted), None)
    return None if index is None else inside(path, lambda: socket.if_indextoname(index))


async def watch_addresses(path: Path) -> AsyncGenerator[frozenset[bytes]]:
    """All addresses of the namespace, now and whenever they change."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    with NetlinkSocket(path, NETLINK_ROUTE, ADDRESS_CHANGES) as netlink:

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
