"""Addresses of a namespace, from the kernel: which links carry a Pod's, and all that the node itself has."""

import asyncio
import struct
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from enforcers.core.netlink.messages import DUMP, REQUEST, attributes, fields, message
from enforcers.kernel.sockets import NETLINK_ROUTE, RECEIVE_BYTES, NetlinkRefused, NetlinkSocket
from schemas.addresses import is_loopback

GETADDR, NEWADDR = 22, 20
GETLINK, NEWLINK = 18, 16
ADDRESS, LOCAL = 1, 2
LINK_NAME, LOWER_LINK, LINK_INFO, ELSEWHERE, LINK_KIND, PORT_KIND = 3, 5, 18, 37, 1, 4
SHARING: Final = frozenset((b"vlan", b"macvlan", b"ipvlan"))
"""Kinds of links that leave what is not theirs to the link below."""
LOOPBACK_TYPE: Final = 772
"""ARPHRD_LOOPBACK."""
CHANGES: Final = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""
LINK_LOCAL: Final = b"\xfe\x80"
AGAIN_SECONDS: Final = 0.1
"""Until links that came and went during every listing are listed again."""
SERVICES_LINK: Final = b"kube-ipvs0"
"""Where kube-proxy in IPVS mode puts every Service's addresses, so that the node takes them for its own."""

_log = structlog.get_logger("enforcers.kernel.addressing")


class Link(msgspec.Struct, frozen=True, gc=False):
    """A network interface."""

    name: str
    is_dead_end: bool
    """Loopback, or a dummy: packets of others neither arrive on it nor leave by it."""
    is_bridge_port: bool
    holds_services: bool
    """Its addresses are Services', and nobody's own."""
    below: int = 0
    """The index of the link that it shares; 0: none in this namespace."""


class Placement(msgspec.Struct, frozen=True):
    """Where in a namespace certain addresses are."""

    links: tuple[str, ...] = ()
    """The names of the links that carry any of them, and of those below: Linux answers for an address on any link."""
    dead_ends: tuple[str, ...] = ()
    """Those of links that no packet of others passes: it takes one that carries none of the addresses."""
    absent: tuple[bytes, ...] = ()
    """On no link. Not those of a family of which the namespace has no address at all: it is switched off there."""


def addresses(path: Path) -> dict[bytes, int]:
    """Every address in the namespace, packed, with the index of its link.

    Left out are loopback ones; those of Services in IPVS mode, which are nobody's own; and link-local ones of bridge
    ports: nobody can speak from these, and every Pod that comes or goes brings or takes one, so that all other Pods of
    its node would be written to each time.
    """
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        return _addresses(netlink, _links(netlink))


def place(path: Path, wanted: Collection[bytes]) -> Placement:
    """Find the addresses *wanted* in the namespace."""
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        links = _links(netlink)
        found = _addresses(netlink, links)
    indices = _carrying(wanted, found, links)
    carrying = [links[index] for index in sorted(indices & links.keys())]
    families = {len(each) for each in found}
    return Placement(
        links=tuple(link.name for link in carrying if not link.is_dead_end),
        dead_ends=tuple(link.name for link in carrying if link.is_dead_end),
        absent=tuple(each for each in wanted if each not in found and len(each) in families),
    )


def passing(path: Path, wanted: Collection[bytes]) -> dict[bytes, bool]:
    """Every address in the namespace, and whether packets for it pass a link that carries any of those *wanted*.

    What a dead end carries, packets reach by any other link.
    """
    with NetlinkSocket(path, NETLINK_ROUTE) as netlink:
        links = _links(netlink)
        found = _addresses(netlink, links)
    indices = _carrying(wanted, found, links) | {index for index, link in links.items() if link.is_dead_end}
    return {address: index in indices for address, index in found.items()}


def _carrying(wanted: Collection[bytes], found: Mapping[bytes, int], links: Mapping[int, Link]) -> set[int]:
    indices = {found[each] for each in wanted if each in found}
    while below := {links[index].below for index in indices if index in links} - indices - {0}:
        indices |= below
    return indices


def _addresses(netlink: NetlinkSocket, links: Mapping[int, Link]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for kind, body in netlink.dump(message(GETADDR, REQUEST | DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0))):
        if kind != NEWADDR:
            continue
        index = struct.unpack_from("=I", body, 4)[0]
        parts = fields(body, 8)
        address = parts.get(LOCAL) or parts.get(ADDRESS)
        if address is None or is_loopback(address):
            continue
        link = links.get(index)
        if link is not None and (link.holds_services or (link.is_bridge_port and address.startswith(LINK_LOCAL))):
            continue
        found[address] = index
    return found


def _links(netlink: NetlinkSocket) -> dict[int, Link]:
    """By index."""
    found: dict[int, Link] = {}
    for kind, body in netlink.dump(message(GETLINK, REQUEST | DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0))):
        if kind != NEWLINK:
            continue
        hardware, index = struct.unpack_from("=2xHi", body)
        parts = fields(body, 16)
        information = {kind: value.rstrip(b"\0") for kind, value in attributes(parts.get(LINK_INFO, b""))}
        shares = information.get(LINK_KIND) in SHARING
        name = parts.get(LINK_NAME, b"").rstrip(b"\0")
        found[index] = Link(
            name=name.decode(errors="replace"),
            is_dead_end=hardware == LOOPBACK_TYPE or information.get(LINK_KIND) == b"dummy",
            is_bridge_port=information.get(PORT_KIND) == b"bridge",
            holds_services=name == SERVICES_LINK,
            below=struct.unpack("=I", parts[LOWER_LINK])[0] if shares and ELSEWHERE not in parts else 0,
        )
    return found


async def watch_addresses(path: Path) -> AsyncGenerator[frozenset[bytes]]:
    """All addresses of the namespace, now and whenever they change; what cannot be listed now is listed later."""
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
                try:
                    now = frozenset(await asyncio.to_thread(addresses, path))
                except NetlinkRefused as error:
                    _log.info("addresses not listed yet", netns=str(path), reason=str(error))
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                if now != before:
                    before = now
                    yield now
                await changed.wait()
        finally:
            loop.remove_reader(netlink.socket)
