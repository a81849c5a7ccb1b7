"""One namespace's rules and sets, read and written as a whole."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from enforcers.core.counting import parse_counters
from enforcers.core.difference import Jump, Patch, compare, desire
from enforcers.core.layout import FAMILIES, TABLE, Family, Interface
from enforcers.core.observation import Observed
from enforcers.kernel.namespaces import run
from enforcers.kernel.rules import native
from enforcers.kernel.rules.chain_backends import PREFIXES, ChainBackend
from enforcers.kernel.rules.legacy_tables import legacy_problems, used_tables
from enforcers.kernel.rules.native import RulesRead
from enforcers.kernel.sets.set_backends import SetBackend
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas.local import RuleCounter
from schemas.programs import Program


async def observe(namespace: Path, sets: SetBackend, limits: Mapping[str, int] | None = None) -> Observed:
    """Read what is there of ours; of sets what `SetBackend.read` does.

    Raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`.
    """
    (rules_read, legacy), found = await asyncio.gather(asyncio.to_thread(_read, namespace), sets.read(limits))
    problems = await legacy_problems(namespace, legacy)
    return Observed(rules_read.tables, found.members, found.leftovers, problems, rules_read.generation)


def _read(namespace: Path) -> tuple[RulesRead, Mapping[Family, Sequence[str]]]:
    with NetlinkSocket(namespace, NETLINK_NETFILTER) as netlink:
        return native.read(netlink), used_tables(namespace)


async def write(namespace: Path, patch: Patch, sets: SetBackend, chains: ChainBackend) -> None:
    """Write *patch*, in its order. Raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`: part is written then."""
    await sets.change(patch.release)
    await sets.create(patch.create)
    await sets.replace(patch.replace)
    await sets.change(patch.gain)
    await _remove(namespace, patch.unhook)
    await chains.write(patch.tables)
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
            await asyncio.to_thread(native.remove, netlink, jumps)
        finally:
            netlink.close_behind()


def removal(observed: Observed) -> Patch:
    """The patch that leaves nothing of ours."""
    return compare(desire(None, Interface("")), observed, {})
