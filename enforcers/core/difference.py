"""What has to be written so that a namespace holds what it should, in the order that is safe.

    sets gain ─▶ chains and jumps (one transaction per family) ─▶ sets lose ─▶ sets go

Nothing is named before it exists, and nothing goes while it is named.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from enforcers.core import layout
from enforcers.core.layout import FAMILIES, TABLE, Family, Interface
from enforcers.core.node_state import TrackedSet
from enforcers.core.observation import Observed, ObservedTable
from enforcers.core.rendering import Chain, jumps, render
from enforcers.core.set_rendering import differences, kernel_members, kind, of_family
from schemas.programs import Program
from schemas.sets import SetKind

SHARED: Final = 256
"""Programs kept as rendered; some 30 kB for 50 rules."""

Sets = Mapping[str, TrackedSet]
"""The node's sets by id, its own addresses among them."""


class Desired(msgspec.Struct, frozen=True):
    """What one namespace should hold."""

    interface: Interface
    chains: Mapping[Family, tuple[Chain, ...]]
    sets: frozenset[str]
    """Ids of the sets that the chains name; each exists in both families."""
    tables: Mapping[Family, ObservedTable]
    """How the chains and jumps read once they are written."""


class Realized(msgspec.Struct, frozen=True):
    """What was written to a namespace and confirmed."""

    tables: Mapping[Family, ObservedTable]
    versions: Mapping[str, int]
    """Set id → number of its newest change that is in the kernel."""


class Membership(msgspec.Struct, frozen=True):
    """A change of one ipset."""

    id: str
    family: Family
    added: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()


class Contents(msgspec.Struct, frozen=True):
    """An ipset whole."""

    id: str
    family: Family
    members: tuple[bytes, ...]


class Patch(msgspec.Struct, frozen=True):
    """What to write, in this order. Nothing at all where nothing differs."""

    create: tuple[Contents, ...] = ()
    replace: tuple[Contents, ...] = ()
    gain: tuple[Membership, ...] = ()
    tables: Mapping[Family, str] = {}
    """Input for ``iptables-nft-restore --noflush``."""
    lose: tuple[Membership, ...] = ()
    destroy: tuple[str, ...] = ()
    """Names of ipsets."""

    def __bool__(self) -> bool:
        return bool(self.create or self.replace or self.gain or self.tables or self.lose or self.destroy)


def desire(program: Program | None, interface: Interface) -> Desired:
    """What *program* asks of a namespace; no program asks for nothing of ours to be there.

    Rendered once for all Pods whose programs ask the same: the Pods of a Deployment, mostly.
    """
    if program is None:
        return _desire(None, interface)
    asked = Program(uid="", namespace="", name="", node="", ingress=program.ingress, egress=program.egress)
    return _desire(asked, interface)


@lru_cache(maxsize=SHARED)
def _desire(program: Program | None, interface: Interface) -> Desired:
    chains: dict[Family, tuple[Chain, ...]] = dict.fromkeys(FAMILIES, ())
    if program is not None:
        chains |= {family: render(program, interface, family) for family in interface.families}
    named = program.sets | {layout.NODE_SET} if program is not None and any(chains.values()) else frozenset()
    first = {hook: rule.comment for hook, rule in jumps(interface).items()}
    own = {hook: (rule.line(hook),) for hook, rule in jumps(interface).items()}
    tables = {
        family: ObservedTable({chain.name: chain.comments for chain in each}, first, own) if each else ObservedTable()
        for family, each in chains.items()
    }
    return Desired(interface, chains, frozenset(named), tables)


def compare(desired: Desired, observed: Observed, sets: Sets) -> Patch:
    """The patch that leads from what was *observed* to *desired*: after a start, an error, or a foreign hand.

    Raises `KeyError` for a set that *sets* lacks: a rule about an unknown set must not become one about an empty set.
    """
    create: list[Contents] = []
    replace: list[Contents] = []
    gain: list[Membership] = []
    lose: list[Membership] = []
    keys = {(identity, family) for identity in desired.sets for family in desired.interface.families}
    for identity, family in sorted(keys):
        there = observed.sets.get((identity, family))
        if there is None:
            chosen = create if (identity, family) not in observed.sets else replace
            chosen.append(contents(identity, family, sets))
            continue
        added, removed = differences(identity, there, frozenset(contents(identity, family, sets).members))
        if added:
            gain.append(Membership(identity, family, added=tuple(added)))
        if removed:
            lose.append(Membership(identity, family, removed=tuple(removed)))
    return Patch(
        create=tuple(create),
        replace=tuple(replace),
        gain=tuple(gain),
        tables=_tables(desired, observed.tables),
        lose=tuple(lose),
        destroy=(*observed.leftovers, *(layout.set_name(*key) for key in sorted(observed.sets.keys() - keys))),
    )


def advance(desired: Desired, known: Realized, sets: Sets) -> Patch:
    """The patch that leads from what was *realized* to *desired*, without comparing what cannot have changed.

    Raises `KeyError` as `compare` does.
    """
    families = desired.interface.families
    create: list[Contents] = []
    replace: list[Contents] = []
    gain: list[Membership] = []
    lose: list[Membership] = []
    for identity in sorted(desired.sets):
        tracked, version = sets[identity], known.versions.get(identity)
        step = tracked.since(version) if version is not None else None
        # Blocks hide one another (see `kernel_members`): what one of them does depends on the others.
        if step is None or (kind(identity) is SetKind.BLOCKS and version != tracked.version):
            chosen = create if version is None else replace
            chosen += [contents(identity, family, sets) for family in families]
            continue
        added, removed = kernel_members(identity, step.added), kernel_members(identity, step.removed)
        for family in families:
            if gains := of_family(added, family):
                gain.append(Membership(identity, family, added=tuple(gains)))
            if losses := of_family(removed, family):
                lose.append(Membership(identity, family, removed=tuple(losses)))
    surplus = sorted(known.versions.keys() - desired.sets)
    return Patch(
        create=tuple(create),
        replace=tuple(replace),
        gain=tuple(gain),
        tables={} if known.tables is desired.tables else _tables(desired, known.tables),
        lose=tuple(lose),
        destroy=tuple(layout.set_name(identity, family) for identity in surplus for family in families),
    )


def realized(desired: Desired, sets: Sets) -> Realized:
    """What a namespace holds once the patch to *desired* was written from *sets* as they are now."""
    return Realized(desired.tables, {identity: sets[identity].version for identity in desired.sets})


def contents(identity: str, family: Family, sets: Sets) -> Contents:
    """One family of a set, whole."""
    return Contents(identity, family, tuple(of_family(kernel_members(identity, sets[identity].members), family)))


def _tables(desired: Desired, known: Mapping[Family, ObservedTable]) -> dict[Family, str]:
    texts = {family: _table(desired.chains[family], desired.interface, known[family]) for family in FAMILIES}
    return {family: text for family, text in texts.items() if text}


def _table(chains: Sequence[Chain], interface: Interface, observed: ObservedTable) -> str:
    """One transaction. A chain that changes is carried whole: to declare it empties it within the transaction."""
    wanted = {chain.name: chain for chain in chains}
    changed = [chain for chain in chains if observed.chains.get(chain.name) != chain.comments]
    gone = sorted(observed.chains.keys() - wanted.keys())
    lines = [*_jumps(bool(chains), interface, observed)]
    for chain in changed:
        lines += [rule.line(chain.name) for rule in chain.rules]
    if not (lines or changed or gone):
        return ""
    declared = [f":{name} - [0:0]" for name in (*(chain.name for chain in changed), *gone)]
    return "\n".join([f"*{TABLE}", *declared, *lines, *(f"-X {name}" for name in gone), "COMMIT", ""])


def _jumps(wanted: bool, interface: Interface, observed: ObservedTable) -> list[str]:
    """Ours stands first, once, or not at all. Ours elsewhere are taken out by their own words."""
    lines = []
    for hook, rule in jumps(interface).items():
        own = observed.jumps.get(hook, ())
        if wanted and len(own) == 1 and observed.first.get(hook) == rule.comment:
            continue
        lines += [line.replace("-A ", "-D ", 1) for line in own]
        if wanted:
            lines.append(rule.line(hook, "-I"))
    return lines
