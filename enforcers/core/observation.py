"""What a namespace holds of ours, read from the kernel's own lists and from what ``ipset save`` prints.

Our rules are recognised by their comment and compared by it. Of a rule without our comment only its place is known.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Self

import msgspec

from enforcers.core import layout
from enforcers.core.layout import Family
from enforcers.core.netlink.nftables import DORMANT, NativeChain, NativeRule
from enforcers.core.rendering import COMMENT
from enforcers.core.set_rendering import kind, parse_element, shape

HOOK_NUMBERS: Final = {"PREROUTING": 0, "POSTROUTING": 4}
PRIORITY: Final = -150
"""NF_IP_PRI_MANGLE: where iptables hooks its table."""

_SIZE: Final = re.compile(r" (hashsize|bucketsize|initval) \S+")


class ObservedTable(msgspec.Struct, frozen=True):
    """One family of our table."""

    handle: int = 0
    """The kernel's number of the table: one that was made anew has another. 0: there is none."""
    chains: Mapping[str, tuple[NativeRule, ...]] = {}
    """Our chains."""
    hooks: Mapping[str, tuple[NativeRule, ...]] = {}
    """All rules of each built-in chain that leads to one of ours."""
    obstacle: str = ""
    """Why no rule of ours can take effect in it."""
    altered: frozenset[str] = frozenset()
    """Chains and hooks in which a rule of ours is not the one that was read back when it was written."""

    def jumps(self, hook: str) -> tuple[NativeRule, ...]:
        """Our own rules in a built-in chain."""
        return tuple(rule for rule in self.hooks.get(hook, ()) if is_ours(rule))


class ObservedSets(msgspec.Struct, frozen=True):
    """The ipsets of ours in one namespace."""

    members: Mapping[tuple[str, Family], frozenset[bytes] | None] = {}
    """By id and family; ``None``: it exists in a way that is not ours: of another type or family, with other options,
    or with something in it that we never wrote, or with more than is read."""
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
    generation: int = -1
    """Number of the newest rule change by then."""

    @property
    def obstacle(self) -> str:
        """Why no rule of ours can take effect, in one family at least."""
        return next((table.obstacle for table in self.tables.values() if table.obstacle), "")

    def __bool__(self) -> bool:
        tables = any(table.chains or any(map(table.jumps, table.hooks)) for table in self.tables.values())
        return bool(tables or self.sets or self.leftovers)


NOTHING: Final = Observed(tables={4: ObservedTable(), 6: ObservedTable()})


def is_ours(rule: NativeRule) -> bool:
    return rule.comment.startswith(COMMENT)


def is_of_interest(chain: str) -> bool:
    """Whether the rules of *chain* have to be read."""
    return layout.is_chain_name(chain) or chain in layout.HOOKS


def observe_table(handle: int, flags: int, chains: Iterable[NativeChain], rules: Iterable[NativeRule]) -> ObservedTable:
    """What is ours in a table that the kernel lists like this."""
    found: dict[str, list[NativeRule]] = {}
    obstacle = "table mangle is dormant: the kernel passes over it" if flags & DORMANT else ""
    for chain in chains:
        if is_of_interest(chain.name):
            found[chain.name] = []
            obstacle = obstacle or _obstacle(chain)
    for rule in rules:
        if rule.chain in found:
            found[rule.chain].append(rule)
    return ObservedTable(
        handle,
        {name: tuple(each) for name, each in found.items() if name not in layout.HOOKS},
        {name: tuple(each) for name, each in found.items() if name in layout.HOOKS},
        obstacle,
    )


def _obstacle(chain: NativeChain) -> str:
    if chain.name not in layout.HOOKS:
        return ""
    if chain.hook is None:
        return f"someone made {chain.name} a chain that no packet enters"
    if (chain.hook, chain.priority) != (HOOK_NUMBERS[chain.name], PRIORITY):
        return f"someone hooked {chain.name} elsewhere (hook {chain.hook}, priority {chain.priority})"
    return ""


def parse_sets(saved: str) -> ObservedSets:
    """Read one ``ipset save``."""
    members: dict[tuple[str, Family], set[bytes]] = {}
    misshapen: set[tuple[str, Family]] = set()
    leftovers: list[str] = []
    for line in saved.splitlines():
        command, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if not layout.is_set_name(name):
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
