"""Rules that iptables-legacy holds beside ours: the kernel evaluates both, and a drop in either is a drop."""

import re
from collections.abc import Iterator
from typing import Final

from enforcers.core.layout import Family

_TABLE: Final = re.compile(r"\*([a-z]+)")
_POLICY: Final = re.compile(r":([A-Z]+) ([A-Z]+) \[")
"""Of a built-in chain. A Pod may give its own ones any name, even none, and a line break is a name as well."""


def describe(saved: str, family: Family) -> Iterator[str]:
    """A line for each table that may change what becomes of a packet, of what ``iptables-legacy-save`` prints."""
    table, rules, policies = "", 0, list[str]()
    for line in saved.splitlines():
        if found := _TABLE.fullmatch(line):
            table, rules, policies = found[1], 0, []
        elif found := _POLICY.match(line):
            if found[2] != "ACCEPT":
                policies.append(f"policy {found[2]} of {found[1]}")
        elif line.startswith("-A "):
            rules += 1
        elif line == "COMMIT" and (rules or policies):
            counted = [f"{rules} rule{'s' if rules != 1 else ''}"] if rules else []
            yield f"{named(table, family)} is evaluated as well: {', '.join([*counted, *policies])}"


def named(table: str, family: Family) -> str:
    return f"iptables-legacy's table {table} (IPv{family})"
