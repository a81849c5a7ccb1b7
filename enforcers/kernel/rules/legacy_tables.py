"""Whether a namespace also has rules of iptables-legacy, of which nftables and its tools know nothing."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from enforcers.core.layout import FAMILIES, Family
from enforcers.core.legacy_rules import describe, named
from enforcers.kernel.namespaces import CommandFailed, inside, run

TABLE_LISTS: Final[dict[Family, Path]] = {
    4: Path("/proc/thread-self/net/ip_tables_names"),
    6: Path("/proc/thread-self/net/ip6_tables_names"),
}
"""Tables that someone has used in the namespace; absent where the kernel has no legacy iptables."""
TOOLS: Final[dict[Family, str]] = {4: "iptables-legacy-save", 6: "ip6tables-legacy-save"}


def used_tables(namespace: Path) -> Mapping[Family, Sequence[str]]:
    """By family, those of iptables-legacy that someone used in *namespace*: nearly always none. Blocks for some 50 µs.

    Raises `NoNamespace`.
    """
    return inside(namespace, lambda: {family: _names(TABLE_LISTS[family]) for family in FAMILIES})


async def legacy_problems(namespace: Path, used: Mapping[Family, Sequence[str]]) -> tuple[str, ...]:
    """What people must know of the *used* tables. Starts no process where there are none.

    A Pod may have more of these rules than anybody reads: that is to be known, and no reason to do without ours.
    Raises `NoNamespace`.
    """
    problems: list[str] = []
    for family, tables in used.items():
        if not tables:
            continue
        tool = TOOLS[family]
        if shutil.which(tool) is None:
            problems += (f"{named(each, family)} exists; {tool} is not here to read it" for each in tables)
            continue
        try:
            problems += describe(await run(namespace, [tool]), family)
        except CommandFailed:
            problems += (f"{named(each, family)} exists; {tool} cannot read it" for each in tables)
    return tuple(problems)


def _names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
