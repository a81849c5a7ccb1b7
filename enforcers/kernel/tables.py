"""One namespace's rules and sets, read and written as a whole."""

import asyncio
from pathlib import Path

from enforcers.core import layout
from enforcers.core.counting import parse_counters
from enforcers.core.difference import Patch
from enforcers.core.layout import FAMILIES, TABLE, Family
from enforcers.core.observation import Observed, ObservedTable, parse_table
from enforcers.kernel.chain_backends import PREFIXES, ChainBackend
from enforcers.kernel.legacy_tables import legacy_problems
from enforcers.kernel.namespaces import run
from enforcers.kernel.set_backends import SetBackend
from schemas.local import RuleCounter
from schemas.programs import Program


async def observe(namespace: Path, sets: SetBackend) -> Observed:
    """Read what is there of ours. Raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`."""
    tables, found, problems = await asyncio.gather(
        asyncio.gather(*(_observe_table(namespace, family) for family in FAMILIES)),
        sets.read(),
        legacy_problems(namespace),
    )
    return Observed(dict(zip(FAMILIES, tables, strict=True)), found.members, found.leftovers, problems)


async def _observe_table(namespace: Path, family: Family) -> ObservedTable:
    return parse_table(await run(namespace, [f"{PREFIXES[family]}-save", "-t", TABLE]))


async def write(patch: Patch, sets: SetBackend, chains: ChainBackend) -> None:
    """Write *patch*, in its order. Raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`: part is written then."""
    await sets.create(patch.create)
    await sets.replace(patch.replace)
    await sets.change(patch.gain)
    await chains.write(patch.tables)
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


def removal(observed: Observed) -> Patch:
    """The patch that leaves nothing of ours."""
    tables: dict[Family, str] = {}
    for family, table in observed.tables.items():
        lines = [line.replace("-A ", "-D ", 1) for jumps in table.jumps.values() for line in jumps]
        if table.chains or lines:
            declared = [f":{name} - [0:0]" for name in table.chains]
            gone = [f"-X {name}" for name in table.chains]
            tables[family] = "\n".join([f"*{TABLE}", *declared, *lines, *gone, "COMMIT", ""])
    return Patch(tables=tables, destroy=(*observed.leftovers, *(layout.set_name(*key) for key in observed.sets)))
