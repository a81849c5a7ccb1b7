"""What a namespace holds of ours, read from what ``iptables-nft-save`` and ``ipset save`` print.

Our rules are recognised by their comment and compared by it. Foreign text is never read for meaning: a line without
our comment is only known to be there.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Self

import msgspec

from enforcers.core import layout
from enforcers.core.layout import Family
from enforcers.core.rendering import COMMENT
from enforcers.core.set_rendering import kind, parse_element, shape

_COMMENT: Final = re.compile(rf'--comment "?({re.escape(COMMENT)}[^"\s]*)')

_SIZE: Final = re.compile(r" (hashsize|bucketsize|initval) \S+")


class ObservedTable(msgspec.Struct, frozen=True):
    """One family of our table."""

    chains: Mapping[str, tuple[str, ...]] = {}
    """Our chains: the comment of each rule, empty for one that is not ours."""
    first: Mapping[str, str] = {}
    """Hook → comment of its first rule."""
    jumps: Mapping[str, tuple[str, ...]] = {}
    """Hook → our own rules in it, as printed."""


class ObservedSets(msgspec.Struct, frozen=True):
    """The ipsets of ours in one namespace."""

    members: Mapping[tuple[str, Family], frozenset[bytes] | None] = {}
    """By id and family; ``None``: it exists in a way that is not ours: of another type or family, with other options,
    or with something in it that we never wrote."""
    leftovers: tuple[str, ...] = ()
    """Names of ipsets that are ours and in nobody's use: a replacement that was interrupted."""

    @classmethod
    def of(
        cls,
        found: Mapping[tuple[str, Family], set[bytes]],
        misshapen: Iterable[tuple[str, Family]],
        leftovers: Iterable[str],
    ) -> Self:
        """What was *found*; of the *misshapen* ones only that they exist."""
        members = {key: frozenset(each) for key, each in found.items()}
        return cls(members | dict.fromkeys(misshapen), tuple(leftovers))


class Observed(msgspec.Struct, frozen=True):
    """Everything of ours in one namespace."""

    tables: Mapping[Family, ObservedTable]
    sets: Mapping[tuple[str, Family], frozenset[bytes] | None] = {}
    """As in `ObservedSets`."""
    leftovers: tuple[str, ...] = ()
    """As in `ObservedSets`."""
    problems: tuple[str, ...] = ()
    """Of others' making, for people: what may decide about packets beside our rules."""

    def __bool__(self) -> bool:
        tables = any(table.chains or any(table.jumps.values()) for table in self.tables.values())
        return bool(tables or self.sets or self.leftovers)


NOTHING: Final = Observed(tables={4: ObservedTable(), 6: ObservedTable()})


def parse_table(saved: str) -> ObservedTable:
    """Read one ``iptables-nft-save -t mangle``."""
    chains: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    jumps: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith(f":{layout.CHAIN_PREFIX}"):
            chains[line[1:].split(" ", 1)[0]] = []
        elif line.startswith("-A "):
            _, name, _ = line.split(" ", 2)
            found = _COMMENT.search(line)
            comment = found.group(1) if found else ""
            if name in chains:
                chains[name].append(comment)
            elif name in layout.HOOKS:
                first.setdefault(name, comment)
                if comment:
                    jumps.setdefault(name, []).append(line)
    return ObservedTable(
        chains={name: tuple(rules) for name, rules in chains.items()},
        first=first,
        jumps={name: tuple(rules) for name, rules in jumps.items()},
    )


def parse_sets(saved: str) -> ObservedSets:
    """Read one ``ipset save``."""
    members: dict[tuple[str, Family], set[bytes]] = {}
    misshapen: set[tuple[str, Family]] = set()
    leftovers: list[str] = []
    for line in saved.splitlines():
        command, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if not name.startswith(layout.SET_PREFIX):
            continue
        key = layout.parse_set_name(name)
        if key is None:
            if command == "create":
                leftovers.append(name)
            continue
        found = members.setdefault(key, set())
        try:
            if command == "create" and not _is_ours(*key, text):
                misshapen.add(key)
            if command == "add" and key not in misshapen:
                found.add(parse_element(kind(key[0]), text))
        except ValueError:  # no kind of ours, or no member of ours
            misshapen.add(key)
    return ObservedSets.of(members, misshapen, leftovers)


def _is_ours(identity: str, family: Family, created: str) -> bool:
    """Whether the set is one as we create it, but for its size. What is said of any set says nothing."""
    return _SIZE.sub("", created) == _SIZE.sub("", shape(identity, family, 0))
