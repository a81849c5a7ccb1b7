"""One namespace's rules and sets: read from the kernel, written by the tools that people check them with."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from enforcers.core.counting import parse_counters
from enforcers.core.difference import Jump, Patch, compare, desire
from enforcers.core.layout import FAMILIES, TABLE, Family, Interface
from enforcers.core.observation import Observed
from enforcers.kernel import rules
from enforcers.kernel.namespaces import run
from enforcers.kernel.rules import RulesRead
from enforcers.kernel.set_backends import SetBackend
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas.local import RuleCounter
from schemas.programs import Program

PREFIXES: Final[dict[Family, str]] = {4: "iptables-nft", 6: "ip6tables-nft"}


async def observe(namespace: Path, sets: SetBackend) -> Observed:
    """Read what is there of ours. Raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`."""
    rules_read, found = await asyncio.gather(asyncio.to_thread(_read, namespace), sets.read())
    return Observed(rules_read.tables, found.members, found.leftovers)


def _read(namespace: Path) -> RulesRead:
    with NetlinkSocket(namespace, NETLINK_NETFILTER) as netlink:
        return rules.read(netlink)


async def write(namespace: Path, patch: Patch, sets: SetBackend) -> None:
    """Write *patch*, in its order. Raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`: part is written then."""
    await sets.create(patch.create)
    await sets.replace(patch.replace)
    await sets.change(patch.gain)
    await _remove(namespace, patch.unhook)
    results = await asyncio.gather(
        *(
            run(namespace, [f"{PREFIXES[family]}-restore", "--noflush", "--wait"], text)
            for family, text in patch.tables.items()
        ),
        return_exceptions=True,  # one family's error must not leave the other's tool running behind our back
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
    await _remove(namespace, patch.displaced)
    await sets.change(patch.lose)
    for name in patch.destroy:
        await sets.destroy(name)


async def counters(namespace: Path, program: Program | None) -> list[RuleCounter]:
    """What each rule of ours has counted, in both families. Raises `NoNamespace`, `CommandFailed`."""
    saved = await asyncio.gather(
        *(run(namespace, [f"{PREFIXES[family]}-save", "-c", "-t", TABLE]) for family in FAMILIES)
    )
    return [
        counter
        for family, text in zip(FAMILIES, saved, strict=True)
        for counter in parse_counters(text, family, program)
    ]


async def _remove(namespace: Path, jumps: Sequence[Jump]) -> None:
    """On a socket of its own: closing one that deleted rules waits for the kernel."""
    if jumps:
        netlink = NetlinkSocket(namespace, NETLINK_NETFILTER)
        try:
            await asyncio.to_thread(rules.remove, netlink, jumps)
        finally:
            netlink.close_behind()


def removal(observed: Observed) -> Patch:
    """The patch that leaves nothing of ours."""
    return compare(desire(None, Interface("")), observed, {})
