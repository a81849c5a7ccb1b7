"""Packets made by hand, for what no ordinary socket sends: echo requests, errors about others' connections, SCTP."""

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator
from typing import Final

from compose.lab.talk import icmp, sctp
from schemas import addresses
from schemas.addresses import ICMP, ICMPV6, SCTP, TCP, UDP
from tests.enforcers.pod_world import World, address

TOO_BIG: Final = {4: (3, 4), 6: (2, 0)}
"""Type and code of "fragmentation needed", and of "packet too big"."""
PORT_UNREACHABLE: Final = {4: (3, 3), 6: (1, 4)}

_numbers = itertools.count(1)


def icmp_number(family: int) -> int:
    return ICMP if family == 4 else ICMPV6


def raw_socket(world: World, name: str, protocol: int, family: int = 4) -> socket.socket:
    return world.open_socket(name, family, socket.SOCK_RAW, protocol)


def message(family: int, kind: int, code: int, rest: bytes) -> bytes:
    """An ICMP message from its type on. The kernel itself computes ICMPv6's checksum."""
    whole = struct.pack("!BBH", kind, code, 0) + rest
    return whole[:2] + struct.pack("!H", icmp.checksum(whole)) + whole[4:] if family == 4 else whole


def ping(world: World, source: str, target: str, family: int = 4, *, to: str = "") -> bool:
    """Whether an echo request from *source* is answered by *target*, or by the address *to*."""
    sender = raw_socket(world, source, icmp_number(family), family)
    tag = next(_numbers) << 16  # an identifier of its own: a new connection
    where = to or address(target, family)
    with contextlib.suppress(PermissionError):  # that is how a drop on the way out is told
        sender.sendto(icmp.echo(family, tag), (where, 0))
    return any(icmp.answers(family, tag, found) for found in heard(sender, family))


def heard(listening: socket.socket, family: int) -> Iterator[bytes]:
    """What a raw socket receives, without IP header, until nothing has come for the time of a drop."""
    with contextlib.suppress(TimeoutError):
        while True:
            yield sctp.without_ip_header(listening.recv(2048), family)


def error_about(
    family: int, what: tuple[int, int], mtu: int, flow: tuple[str, int, str, int], protocol: int = UDP
) -> bytes:
    """An ICMP error about a packet of *flow*: (source, port, destination, port)."""
    source, source_port, destination, destination_port = flow
    ends = addresses.pack(source) + addresses.pack(destination)
    transport = struct.pack("!HHHH", source_port, destination_port, 8, 0) + bytes(12 if protocol == TCP else 0)
    if family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 1, 0, 64, protocol, 0) + ends
        head = head[:10] + struct.pack("!H", icmp.checksum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64) + ends
    return message(family, *what, struct.pack("!I", mtu) + head + transport)


def initiate(world: World, source: str, target: str, port: int, family: int = 4) -> bool:
    """Whether an SCTP INIT from *source* arrives at *target*."""
    hears = raw_socket(world, target, SCTP, family)
    packet = sctp.Packet(
        source_port=32768 + next(_numbers), destination_port=port, tag=0, chunk=sctp.INIT, initiate_tag=next(_numbers)
    )
    with contextlib.suppress(PermissionError):
        raw_socket(world, source, SCTP, family).sendto(sctp.encode(packet), (address(target, family), 0))
    found = map(sctp.decode, heard(hears, family))
    return any(each is not None and each.initiate_tag == packet.initiate_tag for each in found)
