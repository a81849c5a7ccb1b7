"""A patch in a line, for people."""

from collections.abc import Iterator
from typing import Final

from enforcers.core.difference import Patch
from enforcers.core.layout import CHAIN_PREFIX

NAMED: Final = 3
"""Chains that are named; of more, how many."""


def describe(patch: Patch) -> str:
    """``+3 -1 members; 2 sets made; IPv4, IPv6: EW-IN-NEW``; each part only where there is any."""
    return "; ".join(describe_parts(patch))


def describe_parts(patch: Patch) -> Iterator[str]:
    """The parts of `describe`."""
    changes = (*patch.release, *patch.gain, *patch.lose)
    gained, lost = sum(len(each.added) for each in changes), sum(len(each.removed) for each in changes)
    if gained or lost:
        yield " ".join([*([f"+{gained}"] if gained else []), *([f"-{lost}"] if lost else []), "members"])
    for count, what in ((len(patch.create), "made"), (len(patch.replace), "replaced"), (len(patch.destroy), "removed")):
        if count:
            yield f"{count} {'set' if count == 1 else 'sets'} {what}"
    written: dict[str, list[str]] = {}
    for family, text in patch.tables.items():
        chains = [line[1:].split()[0] for line in text.splitlines() if line.startswith(f":{CHAIN_PREFIX}")]
        what = ", ".join(chains) if len(chains) <= NAMED else f"{len(chains)} chains"
        written.setdefault(what or "jumps", []).append(f"IPv{family}")
    for what, families in written.items():
        yield f"{', '.join(families)}: {what}"
    if gone := len(patch.unhook) + len(patch.displaced):
        yield f"{gone} {'jump' if gone == 1 else 'jumps'} removed"
