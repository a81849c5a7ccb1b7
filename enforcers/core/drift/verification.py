"""What of ours is not as it was written, in words for whoever is told of it."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from enforcers.core import layout
from enforcers.core.difference import Table, holds, is_first
from enforcers.core.layout import Family
from enforcers.core.netlink.nftables import NativeRule
from enforcers.core.observation import ObservedSets, ObservedTable, is_ours
from enforcers.core.set_rendering import kind
from schemas import sets
from schemas.sets import SetKind
from schemas.status import Difference, DriftKind

NAMED: Final = 3
"""How many rules or members a text names."""
MISSING: Final = "missing"
FOREIGN: Final = "another set of that name, or one with far more members"


def suspicious(observed: ObservedTable, read_back: ObservedTable) -> ObservedTable:
    """*observed*, knowing what was *read_back* after the last write: a rule that replaced another keeps its comment."""
    altered = {
        name for name, rules in observed.chains.items() if name in read_back.chains and rules != read_back.chains[name]
    }
    altered |= {hook for hook in observed.hooks if observed.jumps(hook) != read_back.jumps(hook)}
    return replace(observed, altered=frozenset(altered))


def of_table(desired: Table, observed: ObservedTable, family: Family) -> Iterator[Difference]:
    """How one family of our table differs from what it should be."""
    where = f"{layout.TABLE} {{}} (IPv{family})"
    if desired.chains and not observed.handle:
        yield Difference(kind=DriftKind.TABLE, object=where.format("table"), before="there", after=MISSING)
        return
    if desired.chains and observed.obstacle:
        yield Difference(
            kind=DriftKind.TABLE, object=where.format("table"), before="in effect", after=observed.obstacle
        )
    for hook in layout.HOOKS:
        if not is_first(desired, observed, hook):
            wanted = hook in desired.jumps
            yield Difference(
                kind=DriftKind.JUMP,
                object=where.format(hook),
                before=f"jump to {layout.HOOKS[hook]} first" if wanted else "no jump of ours",
                after=_jump(observed.hooks.get(hook, ()), altered=hook in observed.altered),
            )
    for name, comments in desired.chains.items():
        if not holds(desired, observed, name):
            yield Difference(
                kind=DriftKind.CHAIN,
                object=where.format(name),
                before=f"{len(comments)} rules",
                after=_rules(comments, observed.chains.get(name)),
            )
    for name in observed.chains.keys() - desired.chains.keys():
        yield Difference(kind=DriftKind.CHAIN, object=where.format(name), before="no such chain", after="there")


def of_set(identity: str, family: Family, wanted: Collection[bytes], found: ObservedSets) -> Difference | None:
    """How one ipset differs from the members that it should have."""
    after = _set(identity, family, frozenset(wanted), found.members)
    if not after:
        return None
    name = f"set {layout.set_name(identity, family)}"
    return Difference(kind=DriftKind.SET, object=name, before=f"{len(wanted)} members", after=after)


def _jump(rules: tuple[NativeRule, ...], *, altered: bool) -> str:
    places = [place for place, rule in enumerate(rules, 1) if is_ours(rule)]
    if not places:
        return MISSING
    if places == [1]:
        return "another rule in its place" if altered else "one of another program"
    return f"at {', '.join(map(str, places[:NAMED]))} of {len(rules)}"


def _rules(wanted: tuple[str, ...], found: tuple[NativeRule, ...] | None) -> str:
    if found is None:
        return MISSING
    comments = [rule.comment for rule in found]
    lost = [_name(comment) for comment in wanted if comment not in comments]
    foreign = sum(comment not in wanted for comment in comments)
    parts = [f"lacks {_some(lost, len(lost))}"] if lost else []
    parts += [f"has {foreign} of others"] if foreign else []
    return f"{len(found)} rules: {'; '.join(parts)}" if parts else "another rule in the place of one, or another order"


def _name(comment: str) -> str:
    return comment.split(":", 2)[-1]


def _set(
    identity: str, family: Family, wanted: frozenset[bytes], found: Mapping[tuple[str, Family], frozenset[bytes] | None]
) -> str:
    if (identity, family) not in found:
        return MISSING
    there = found[identity, family]
    if there is None:
        return FOREIGN
    which = kind(identity)
    lost, foreign = wanted - there, there - wanted
    parts = [f"lacks {_members(which, lost)}"] if lost else []
    parts += [f"has {_members(which, foreign)} of others"] if foreign else []
    return "; ".join(parts)


def _members(which: SetKind, members: Collection[bytes]) -> str:
    return _some((sets.describe(which, member) for member in sorted(members)[:NAMED]), len(members))


def _some(texts: Iterable[str], total: int) -> str:
    shown = [text for text, _ in zip(texts, range(NAMED), strict=False)]
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")
