"""The numbers by which one network namespace knows others (RTM_GETNSID): events of all of them name no path.

A number is used again when its namespace is gone, so it is only ever a hint where to look.
"""

import errno
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from enforcers.core.netlink.messages import ACK, REQUEST, attribute, fields, message
from enforcers.kernel.namespaces import HERE, NoNamespace
from enforcers.kernel.sockets import NETLINK_ROUTE, NetlinkRefused, NetlinkSocket

NEW_ID, GET_ID = 88, 90
ID, FILE = 1, 3
ANY: Final = -1
"""As an answer: it has none; as a wish: whichever is free."""
GENERIC: Final = b"\0" * 4


class NamespaceIds:
    """Asks for the numbers that the process's own namespace has given; a context manager."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(HERE, NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()

    def id_of(self, path: Path) -> int:
        """The number of the namespace at *path*, which gets one where it has none: 10 µs.

        Raises `NoNamespace`, `NetlinkRefused`.
        """
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoNamespace(path) from None
        try:
            return self._ask(path, handle)
        finally:
            os.close(handle)

    def _ask(self, path: Path, handle: int) -> int:
        file = attribute(FILE, struct.pack("=I", handle))
        for _ in range(2):
            if (found := self._get(path, file)) != ANY:
                return found
            try:
                self._netlink.request(
                    message(NEW_ID, REQUEST | ACK, GENERIC + attribute(ID, struct.pack("=i", ANY)) + file)
                )
            except NetlinkRefused as error:
                if error.number != errno.EEXIST:  # someone else was quicker
                    raise
        return self._get(path, file)

    def _get(self, path: Path, file: bytes) -> int:
        try:
            (answer,) = self._netlink.request(message(GET_ID, REQUEST | ACK, GENERIC + file))
        except NetlinkRefused as error:
            if error.number == errno.EINVAL:  # a plain file, left when its namespace went
                raise NoNamespace(path) from None
            raise
        return int(struct.unpack("=i", fields(answer, 4)[ID])[0])
