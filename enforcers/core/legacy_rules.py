"""Rules that iptables-legacy holds beside ours: the kernel evaluates both, and a drop in either is a drop."""

from collections.abc import Iterator

from enforcers.core.layout import Family


def describe(saved: str, family: Family) -> Iterator[str]:
    """A line for each table that may change what becomes of a packet, of what ``iptables-legacy-save`` prints."""
    table, rules, policies = "", 0, list[str]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table, rules, policies = line[1:], 0, []
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            if policy not in ("ACCEPT", "-"):
                policies.append(f"policy {policy} of {chain}")
        elif line.startswith("-A "):
            rules += 1
        elif line == "COMMIT" and (rules or policies):
            found = [f"{rules} rule{'s' if rules != 1 else ''}"] if rules else []
            yield f"{named(table, family)} is evaluated as well: {', '.join([*found, *policies])}"


def named(table: str, family: Family) -> str:
    return f"iptables-legacy's table {table} (IPv{family})"
