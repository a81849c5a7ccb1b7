"""Two ways to change ipsets in place that keep the same promises: by netlink, and by the tool.

By netlink a change costs some 20 µs on a socket that is kept, by the tool a process.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal, Protocol

from enforcers.core.difference import Membership
from enforcers.core.netlink import ipset
from enforcers.core.set_rendering import change
from enforcers.kernel.namespaces import CommandFailed, run
from enforcers.kernel.sockets import NetlinkRefused, NetlinkSocket

BackendName = Literal["netlink", "restore"]

ATTEMPTS: Final = 50
PAUSE_SECONDS: Final = 0.01
"""A set stays busy for some 10 ms after its last rule went (the kernel waits for a grace period)."""


class SetBackend(Protocol):
    async def change(self, memberships: Iterable[Membership]) -> None:
        """Sets that exist gain and lose members; of what fails, part may be done.

        Raises `NoNamespace`, and `CommandFailed` or `NetlinkRefused`.
        """
        ...

    async def destroy(self, name: str) -> None:
        """An ipset goes; waits where the kernel still holds it. Raises as `change` does."""
        ...


class NetlinkSets:
    """*opened* gives the kept socket in the Pod's namespace."""

    def __init__(self, opened: Callable[[], NetlinkSocket]) -> None:
        self._opened = opened

    async def change(self, memberships: Iterable[Membership]) -> None:
        for each in memberships:
            for members, adding in ((each.added, True), (each.removed, False)):
                for request in ipset.changes(each.id, each.family, members, adding=adding):
                    self._opened().request(request)

    async def destroy(self, name: str) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._opened().request(ipset.destroy(name))
            except NetlinkRefused as error:
                if error.number != ipset.BUSY or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return


class RestoreSets:
    """``ipset restore`` in *namespace*."""

    def __init__(self, namespace: Path) -> None:
        self._namespace = namespace

    async def change(self, memberships: Iterable[Membership]) -> None:
        await restore(
            self._namespace,
            [line for each in memberships for line in change(each.id, each.family, each.added, each.removed)],
        )

    async def destroy(self, name: str) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await run(self._namespace, ["ipset", "destroy", name])
            except CommandFailed as error:
                if "in use" not in error.message or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return


async def restore(namespace: Path, lines: list[str]) -> None:
    """Run ipset commands, if there are any. Raises `NoNamespace`, `CommandFailed`."""
    if lines:
        await run(namespace, ["ipset", "restore", "-exist"], "\n".join([*lines, ""]))
