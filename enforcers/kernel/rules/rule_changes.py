"""Hearing of every change of rules in every namespace, on one socket.

The kernel tells a listener in one namespace of all others that have a number there (NETLINK_LISTEN_ALL_NSID), if it has
NET_BROADCAST. A filter lets through only the end of each transaction, which says how many there were and by whom.
"""

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from enforcers.core.netlink import nftables
from enforcers.core.netlink.messages import messages
from enforcers.core.netlink.nftables import Generation
from enforcers.kernel.namespaces import HERE
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket

SOL_NETLINK: Final = 270
ADD_MEMBERSHIP: Final = 1
LISTEN_ALL_NSID: Final = 8
SO_ATTACH_FILTER: Final = 26
LOAD_HALF, EQUAL, RETURN = 0x28, 0x15, 0x06
TYPE_OFFSET: Final = 4
DATA_BYTES, CONTROL_BYTES = 1 << 16, 256
PAUSE_SECONDS: Final = 0.005
"""A storm of changes is taken in batches."""
OWN: Final = -1
"""For a change in the listener's own namespace, which has no number."""


class RuleChange(msgspec.Struct, frozen=True, gc=False):
    namespace: int
    """As `NamespaceIds` numbers them."""
    generation: Generation


class Changes(msgspec.Struct, frozen=True):
    """What was heard at once."""

    changes: tuple[RuleChange, ...] = ()
    lost: bool = False
    """More came than could be kept: anything may have changed."""


async def hear_rule_changes() -> AsyncGenerator[Changes]:
    """Changes from now on; the first, empty one says that it listens. Raises PermissionError without the right to."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    with NetlinkSocket(HERE, NETLINK_NETFILTER) as netlink:
        _filter(netlink.socket)
        netlink.socket.setsockopt(SOL_NETLINK, LISTEN_ALL_NSID, 1)
        netlink.socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, nftables.CHANGES_GROUP)

        def readable() -> None:
            loop.remove_reader(netlink.socket)  # it stays readable until it is read, after a pause
            heard.set()

        try:
            yield Changes()
            while True:
                loop.add_reader(netlink.socket, readable)
                await heard.wait()
                heard.clear()
                yield _receive(netlink.socket)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            loop.remove_reader(netlink.socket)


def _receive(listener: socket.socket) -> Changes:
    found: list[RuleChange] = []
    lost = False
    while True:
        try:
            data, control, *_ = listener.recvmsg(DATA_BYTES, CONTROL_BYTES)
        except BlockingIOError:
            return Changes(tuple(found), lost)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            lost = True
            continue
        namespace = next(
            (struct.unpack("=i", value[:4])[0] for level, _, value in control if level == SOL_NETLINK), OWN
        )
        found += [
            RuleChange(namespace, nftables.parse_generation(body))
            for kind, body in messages(data)
            if kind == nftables.NEW_GENERATION
        ]


def _filter(listener: socket.socket) -> None:
    """A classic BPF program; it loads as big-endian what netlink keeps in the machine's order."""
    wanted = struct.unpack(">H", struct.pack("=H", nftables.NEW_GENERATION))[0]
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (LOAD_HALF, 0, 0, TYPE_OFFSET),
            (EQUAL, 0, 1, wanted),
            (RETURN, 0, 0, 0xFFFFFFFF),
            (RETURN, 0, 0, 0),
        )
    )
    kept = ctypes.create_string_buffer(program)
    length = len(program) // 8
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", length, ctypes.addressof(kept)))
