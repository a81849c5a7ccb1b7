"""Two ways to write chains that keep the same promises: by the tool, and by netlink.

By the tool a Pod costs two processes, some 2 ms of processor time each, and 10 to 20 ms of waiting where rules go; by
netlink some 0.5 ms on a socket that is kept.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from enforcers.core.layout import Family
from enforcers.core.netlink import ipset, transaction
from enforcers.core.netlink.rules import Unencodable
from enforcers.core.netlink.transaction import Step
from enforcers.kernel.namespaces import run
from enforcers.kernel.sockets import NetlinkRefused, NetlinkSocket

ChainBackendName = Literal["netlink", "restore"]

PREFIXES: Final[Mapping[Family, str]] = {4: "iptables-nft", 6: "ip6tables-nft"}

Use = Callable[[Callable[[NetlinkSocket], None]], Awaitable[None]]
"""Has a thread work with the socket in the namespace: a transaction may wait for an earlier one's rules to be gone."""


class ChainBackend(Protocol):
    async def write(self, tables: Mapping[Family, str]) -> None:
        """Write *tables*: input for ``iptables-nft-restore --noflush``, by family; each whole or not at all.

        Raises `NoNamespace`, and `CommandFailed` or `NetlinkRefused`.
        """
        ...


class RestoreChains:
    """``iptables-nft-restore`` in *namespace*, both families at a time."""

    def __init__(self, namespace: Path) -> None:
        self._namespace = namespace

    async def write(self, tables: Mapping[Family, str]) -> None:
        results = await asyncio.gather(
            *(
                run(self._namespace, [f"{PREFIXES[family]}-restore", "--noflush", "--wait"], text)
                for family, text in tables.items()
            ),
            return_exceptions=True,  # one family's error must not leave the other's tool running behind our back
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result


class NetlinkChains:
    """One transaction for both families; what it cannot express, or the kernel refuses, is left to the *tool*.

    So nothing is refused here that the tool would manage, and its words say what is wrong.
    """

    def __init__(self, use: Use, tool: ChainBackend) -> None:
        self._use = use
        self._tool = tool

    async def write(self, tables: Mapping[Family, str]) -> None:
        try:
            steps = transaction.steps(tables)
            await self._use(lambda netlink: commit(netlink, steps))
        except (Unencodable, NetlinkRefused, OSError):
            await self._tool.write(tables)


def commit(netlink: NetlinkSocket, steps: Sequence[Step]) -> None:
    """Have the kernel do all of *steps* or nothing. Raises `NetlinkRefused`, naming the line."""
    if not steps:
        return
    numbers = ipset.read_numbers(body for _, body in netlink.dump(ipset.numbers_query()))
    try:
        batch = transaction.batch(steps, numbers)
    except KeyError as error:
        raise NetlinkRefused(errno.ENOENT, f"no set {error.args[0]}") from None
    refused = netlink.transact(batch, len(steps))
    if refused is not None:
        number, sequence = refused
        line = steps[sequence - 1].line if sequence else "the transaction"
        raise NetlinkRefused(number, f"{os.strerror(number)}: {line}")
