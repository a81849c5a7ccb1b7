"""Rules of the older iptables, which a kernel evaluates beside those of nftables, in the same hooks."""

from pathlib import Path
from typing import Final

from enforcers.kernel.namespaces import inside

TABLE_NAMES: Final = (Path("/proc/thread-self/net/ip_tables_names"), Path("/proc/thread-self/net/ip6_tables_names"))


def legacy_tables(path: Path) -> frozenset[str]:
    """The tables that anyone has used in the namespace by iptables-legacy. Raises `NoNamespace`. 100 µs."""
    return inside(path, _used)


def _used() -> frozenset[str]:
    found: set[str] = set()
    for names in TABLE_NAMES:
        try:
            found.update(names.read_text().split())
        except FileNotFoundError:  # a kernel without it, or that has not needed it yet
            continue
    return frozenset(found)
