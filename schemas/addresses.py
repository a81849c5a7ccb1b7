"""Addresses as packed bytes: 4 for IPv4, 16 for IPv6; protocols by number (IANA)."""

import ipaddress
from typing import Final

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
SCTP: Final = 132

PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
PROTOCOL_NAMES: Final = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ICMP: "ICMP", ICMPV6: "ICMPv6"}

ECHO: Final = {ICMP: 8, ICMPV6: 128}
"""The message type of an echo request, by protocol."""

WIDTHS: Final = {4: 4, 6: 16}
"""Bytes of an address, by family."""


def pack(text: str) -> bytes:
    """An address as bytes, an IPv4-mapped IPv6 one as IPv4; raises `ValueError` for what is not an address.

    Parts of IPv4 may begin with zeros and are decimal all the same, as for the API server and for kube-proxy.
    """
    parts = text.split(".")
    if len(parts) == 4 and text.isascii() and all(map(str.isdecimal, parts)):  # the usual case, five times as fast
        numbers = tuple(map(int, parts))
        if max(numbers) < 256:
            return bytes(numbers)
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    packed: bytes = (mapped or address).packed
    return packed


def unpack(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def family(packed: bytes) -> int:
    """4 or 6."""
    return 4 if len(packed) == WIDTHS[4] else 6


def is_loopback(packed: bytes) -> bool:
    """Whether what goes there never leaves its namespace."""
    return packed.startswith(b"\x7f") if len(packed) == WIDTHS[4] else packed == bytes(15) + b"\x01"
