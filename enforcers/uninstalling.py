"""Taking everything of ours out of Pods again."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from enforcers.core.layout import DEFAULT_MARK
from enforcers.kernel import tables
from enforcers.kernel.connections import conntrack
from enforcers.kernel.namespaces import CommandFailed, NoNamespace
from enforcers.kernel.rules.chain_backends import RestoreChains
from enforcers.kernel.sets.set_backends import RestoreSets
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket

PARALLEL = 8


class Removal(msgspec.Struct, frozen=True):
    """What became of one namespace."""

    removed: bool = False
    """There was something of ours."""
    trouble: str = ""
    """Why something of ours may still be there."""


async def uninstall(namespaces: Iterable[Path], *, mark: int = DEFAULT_MARK) -> Mapping[Path, Removal]:
    """Remove every chain and set of ours, and the connections' marks. One namespace's trouble stops no other."""
    turns = asyncio.Semaphore(PARALLEL)

    async def one(namespace: Path) -> Removal:
        sets = RestoreSets(namespace)
        async with turns:
            try:
                observed = await tables.observe(namespace, sets)
                if not observed:
                    return Removal()
                await tables.write(namespace, tables.removal(observed), sets, RestoreChains(namespace))
                await asyncio.to_thread(_forget, namespace, mark)
            except NoNamespace:
                return Removal()
            except (CommandFailed, NetlinkRefused, OSError) as error:
                return Removal(trouble=str(error))
        return Removal(removed=True)

    paths = list(namespaces)
    return dict(zip(paths, await asyncio.gather(*map(one, paths)), strict=True))


def _forget(namespace: Path, mark: int) -> None:
    with NetlinkSocket(namespace, NETLINK_NETFILTER) as netlink:
        conntrack.end(netlink, namespace, mark)
