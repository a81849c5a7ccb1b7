"""When rules came into Pods' namespaces, as the kernel tells a listener that is no part of the product.

One socket on the node hears of every transaction of nftables in every namespace that has an id there, and the Pods'
have one: the other end of a veth tells.
"""

import json
import os
import select
import socket
import struct
import subprocess
import threading
import time
from types import TracebackType
from typing import Final, Self

from enforcers.kernel.namespaces import inside
from tests.components.kubernetes.node import Node

NETLINK_NETFILTER: Final = 12
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_LISTEN_ALL_NSID: Final = 8
NFNLGRP_NFTABLES: Final = 7
NEW_GENERATION: Final = 10 << 8 | 15
"""NFT_MSG_NEWGEN: a transaction was committed."""
SO_RCVBUFFORCE: Final = 33
BUFFER_BYTES: Final = 64 << 20
"""Every rule comes along with its transaction; what did not fit would be an error of the next read."""


class Commits:
    """``with Commits(node) as commits:`` listens; `times` tells."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._heard: dict[int, list[float]] = {}  # namespace id → when, by the clock on the wall
        self._socket = inside(node.netns, _listening)
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="commits", daemon=True)

    def times(self) -> dict[str, list[float]]:
        """Of the commits in each namespace, by the name of its file; in seconds since the epoch."""
        listed = subprocess.run(
            ["ip", "-j", "-n", self.node.namespace, "netns", "list-id"], check=True, capture_output=True, timeout=20
        )
        names = {each["nsid"]: each.get("name", "") for each in json.loads(listed.stdout)}
        return {names[nsid]: times for nsid, times in self._heard.items() if names.get(nsid)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._end)
        self._thread.join()
        os.close(self._over)
        self._socket.close()

    def _listen(self) -> None:
        while self._over not in select.select([self._socket, self._over], [], [])[0]:
            data, ancillary, _, _ = self._socket.recvmsg(1 << 16, 64)
            now = time.time()
            for level, kind, value in ancillary:
                if (level, kind) == (SOL_NETLINK, NETLINK_LISTEN_ALL_NSID) and NEW_GENERATION in _types(data):
                    self._heard.setdefault(struct.unpack("i", value)[0], []).append(now)


def _listening() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    made.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
    made.bind((0, 0))
    made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    return made


def _types(data: bytes) -> set[int]:
    """Of the messages in *data*: each begins with its length and its type."""
    found, start = set(), 0
    while start + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, start)
        found.add(kind)
        start += max(16, (length + 3) & ~3)
    return found
