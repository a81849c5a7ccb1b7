"""The sockets of one namespace: who is connected to whom, and what listens."""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Final

from enforcers.core.netlink import socket_diagnosis
from enforcers.core.netlink.socket_diagnosis import PROTOCOLS, Socket
from enforcers.kernel.namespaces import inside
from enforcers.kernel.sockets import NETLINK_SOCK_DIAG, NetlinkSocket

COUNTS: Final = (Path("/proc/thread-self/net/sockstat"), Path("/proc/thread-self/net/sockstat6"))
"""Of the reading thread's namespace: proc(5). The second is missing in a kernel without IPv6."""


def any_sockets(path: Path) -> bool:
    """Whether the namespace *path* has TCP or UDP sockets at all, as the kernel counts them: no walk.

    Raises `NoNamespace`.
    """

    def count() -> int:
        found = 0
        for file in COUNTS:
            with contextlib.suppress(FileNotFoundError):
                lines = [line.split() for line in file.read_text().splitlines()]
                found += sum(int(words[2]) for words in lines if words[0].startswith(("TCP", "UDP")))
        return found

    return inside(path, count) > 0


def sockets(path: Path) -> Generator[Socket]:
    """Every TCP and UDP socket in the namespace *path*, of both families.

    Raises `NoNamespace`, `NetlinkRefused`. Blocks the caller: a millisecond for the walk, microseconds per socket.
    """
    with NetlinkSocket(path, NETLINK_SOCK_DIAG) as netlink:
        for protocol in PROTOCOLS:
            for request in socket_diagnosis.dump_requests(protocol):
                for _, body in netlink.stream(request):
                    one = socket_diagnosis.parse(protocol, body)
                    if one is not None:
                        yield one
