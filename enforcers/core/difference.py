"""What has to be written so that a namespace holds what it should, in the order that is safe.

    sets lose what is another's by now ─▶ sets gain ─▶ chains and jumps (one transaction per family)
        ─▶ jumps elsewhere go ─▶ sets lose ─▶ sets go

Nothing is named before it exists, and nothing goes while it is named. A Pod that moves from one set to another is never
shut out in between; an address that gets another owner is never in the sets of both. Which of the two it is, only who
follows the policy from change to change is told: what is compared as a whole gains first.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Final

import msgspec

from enforcers.core import layout
from enforcers.core.layout import FAMILIES, TABLE, Family, Interface
from enforcers.core.observation import Observed, ObservedTable
from enforcers.core.rendering import Chain, KernelRule, is_primed, jumps, prime, render
from enforcers.core.set_rendering import differences, kernel_members, kind, of_family
from enforcers.core.tracked_sets import TrackedSet
from schemas.programs import Program
from schemas.sets import SetKind

SHARED: Final = 256
"""Programs kept as rendered; some 30 kB for 50 rules."""

Sets = Mapping[str, TrackedSet]
"""The node's sets by id, its own addresses among them."""


class Table(msgspec.Struct, frozen=True):
    """One family of our table, as it should be."""

    chains: Mapping[str, tuple[str, ...]] = {}
    """The comment of each rule."""
    jumps: Mapping[str, KernelRule] = {}
    """By hook: the first rule."""


class Desired(msgspec.Struct, frozen=True):
    """What one namespace should hold."""

    interface: Interface
    chains: Mapping[Family, tuple[Chain, ...]]
    sets: frozenset[str]
    """Ids of the sets that the chains name; each exists in both families."""
    tables: Mapping[Family, Table]


class Realized(msgspec.Struct, frozen=True):
    """What was written to a namespace and confirmed."""

    tables: Mapping[Family, Table]
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


class Jump(msgspec.Struct, frozen=True):
    """A rule of ours in a built-in chain, by the number that the kernel gave it."""

    family: Family
    hook: str
    handle: int


class Patch(msgspec.Struct, frozen=True):
    """What to write, in this order. Nothing at all where nothing differs."""

    release: tuple[Membership, ...] = ()
    """Addresses that their owners gave up: whoever has them now must not be taken for these."""
    create: tuple[Contents, ...] = ()
    replace: tuple[Contents, ...] = ()
    gain: tuple[Membership, ...] = ()
    unhook: tuple[Jump, ...] = ()
    """Where nothing is to be enforced any more: chains go only when nothing leads to them."""
    tables: Mapping[Family, str] = {}
    """Input for ``iptables-nft-restore --noflush``."""
    displaced: tuple[Jump, ...] = ()
    """A new one stands first by now."""
    lose: tuple[Membership, ...] = ()
    destroy: tuple[str, ...] = ()
    """Names of ipsets."""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)

    @property
    def writes_rules(self) -> bool:
        return bool(self.unhook or self.tables or self.displaced)

    def followed_by(self, later: "Patch") -> "Patch":
        """Both as one, for whoever tells what was written."""
        return Patch(
            release=self.release + later.release,
            create=self.create + later.create,
            replace=self.replace + later.replace,
            gain=self.gain + later.gain,
            unhook=self.unhook + later.unhook,
            tables={**self.tables, **later.tables},
            displaced=self.displaced + later.displaced,
            lose=self.lose + later.lose,
            destroy=self.destroy + later.destroy,
        )


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
    return _desired(interface, chains, frozenset(named))


def begins(desired: Desired, known: Mapping[Family, Table | ObservedTable]) -> bool:
    """Whether *desired* drops what so far met no rule of ours: who began which connection is not known then."""
    return any(chains and not all(_dropping(known[family])) for family, chains in desired.chains.items())


def primed(desired: Desired, known: Mapping[Family, Table | ObservedTable]) -> Desired:
    """What comes before *desired* where connections exist: see `rendering.prime`. What drops already goes on so."""
    chains = {
        family: prime(each) if each and not any(_dropping(known[family])) else each
        for family, each in desired.chains.items()
    }
    return _desired(desired.interface, chains, desired.sets)


def _dropping(table: Table | ObservedTable) -> list[bool]:
    """For each hook, whether its packets meet rules of ours that drop."""
    if isinstance(table, Table):
        return [hook in table.jumps and not is_primed(table.chains[name]) for hook, name in layout.HOOKS.items()]
    return [
        bool(table.jumps(hook) and table.chains.get(name))
        and not is_primed(rule.comment for rule in table.chains[name])
        for hook, name in layout.HOOKS.items()
    ]


def _desired(interface: Interface, chains: Mapping[Family, tuple[Chain, ...]], named: frozenset[str]) -> Desired:
    tables = {
        family: Table({chain.name: chain.comments for chain in each}, jumps(interface)) if each else Table()
        for family, each in chains.items()
    }
    return Desired(interface, chains, named, tables)


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
    jumps_elsewhere = {family: _displaced(family, desired, observed.tables[family]) for family in FAMILIES}
    return Patch(
        create=tuple(create),
        replace=tuple(replace),
        gain=tuple(gain),
        unhook=tuple(each for family in FAMILIES if not desired.chains[family] for each in jumps_elsewhere[family]),
        tables=_texts({family: _mended(desired, family, observed.tables[family]) for family in FAMILIES}),
        displaced=tuple(each for family in FAMILIES if desired.chains[family] for each in jumps_elsewhere[family]),
        lose=tuple(lose),
        destroy=(*observed.leftovers, *(layout.set_name(*key) for key in sorted(observed.sets.keys() - keys))),
    )


def advance(desired: Desired, known: Realized, sets: Sets) -> Patch:
    """The patch that leads from what was *realized* to *desired*, without comparing what cannot have changed.

    Raises `KeyError` as `compare` does.
    """
    families = desired.interface.families
    release: list[Membership] = []
    create: list[Contents] = []
    replace: list[Contents] = []
    gain: list[Membership] = []
    lose: list[Membership] = []
    for identity in sorted(desired.sets):
        tracked, version = sets[identity], known.versions.get(identity)
        if version == tracked.version:
            continue
        step = tracked.since(version) if version is not None else None
        # Blocks hide one another (see `kernel_members`): what one of them does depends on the others.
        if step is None or kind(identity) is SetKind.BLOCKS:
            chosen = create if version is None else replace
            chosen += [contents(identity, family, sets) for family in families]
            continue
        added, removed = kernel_members(identity, step.added), kernel_members(identity, step.removed)
        released = removed & step.released
        removed -= released
        for family in families:
            if given_up := of_family(released, family):
                release.append(Membership(identity, family, removed=tuple(given_up)))
            if gains := of_family(added, family):
                gain.append(Membership(identity, family, added=tuple(gains)))
            if losses := of_family(removed, family):
                lose.append(Membership(identity, family, removed=tuple(losses)))
    surplus = sorted(known.versions.keys() - desired.sets)
    return Patch(
        release=tuple(release),
        create=tuple(create),
        replace=tuple(replace),
        gain=tuple(gain),
        tables={}
        if known.tables is desired.tables
        else _texts({family: _changed(desired, family, known.tables[family]) for family in FAMILIES}),
        lose=tuple(lose),
        destroy=tuple(layout.set_name(identity, family) for identity in surplus for family in families),
    )


def realized(desired: Desired, sets: Sets) -> Realized:
    """What a namespace holds once the patch to *desired* was written from *sets* as they are now."""
    return Realized(desired.tables, {identity: sets[identity].version for identity in desired.sets})


def contents(identity: str, family: Family, sets: Sets) -> Contents:
    """One family of a set, whole."""

    def write(members: Set[bytes]) -> tuple[bytes, ...]:
        return tuple(of_family(kernel_members(identity, members), family))

    return Contents(identity, family, sets[identity].as_written(family, write))


def is_first(desired: Table, observed: ObservedTable, hook: str) -> bool:
    """Whether our jump stands first in *hook*, and once."""
    wanted, own = desired.jumps.get(hook), observed.jumps(hook)
    if wanted is None:
        return not own
    alone = len(own) == 1 and own[0] is observed.hooks[hook][0] and own[0].comment == wanted.comment
    return alone and hook not in observed.altered


def holds(desired: Table, observed: ObservedTable, chain: str) -> bool:
    """Whether our *chain* has the rules it should have."""
    comments = tuple(rule.comment for rule in observed.chains.get(chain, ()))
    return comments == desired.chains.get(chain) and chain not in observed.altered


def _mended(desired: Desired, family: Family, observed: ObservedTable) -> str:
    """Where one of our chains is missing, all are made anew: the others may lead to it under another name."""
    table = desired.tables[family]
    whole = not table.chains.keys() <= observed.chains.keys()
    changed = [chain for chain in desired.chains[family] if whole or not holds(table, observed, chain.name)]
    inserted = [
        rule.line(hook, "-I") for hook, rule in table.jumps.items() if whole or not is_first(table, observed, hook)
    ]
    return _transaction(changed, observed.chains.keys() - table.chains.keys(), inserted)


def _displaced(family: Family, desired: Desired, observed: ObservedTable) -> list[Jump]:
    table = desired.tables[family]
    whole = not table.chains.keys() <= observed.chains.keys()
    return [
        Jump(family, hook, rule.handle)
        for hook in observed.hooks
        if whole or not is_first(table, observed, hook)
        for rule in observed.jumps(hook)
    ]


def _changed(desired: Desired, family: Family, known: Table) -> str:
    """What is known stands there in our own words, so its jumps go in the same transaction."""
    table = desired.tables[family]
    changed = [chain for chain in desired.chains[family] if known.chains.get(chain.name) != table.chains[chain.name]]
    moved = [hook for hook in layout.HOOKS if table.jumps.get(hook) != known.jumps.get(hook)]
    lines = [known.jumps[hook].line(hook, "-D") for hook in moved if hook in known.jumps]
    lines += [table.jumps[hook].line(hook, "-I") for hook in moved if hook in table.jumps]
    return _transaction(changed, known.chains.keys() - table.chains.keys(), lines)


def _transaction(changed: Sequence[Chain], gone: Iterable[str], jump_lines: Sequence[str]) -> str:
    """A chain that changes is carried whole: to declare it empties it within the transaction."""
    names = sorted(gone)
    if not (changed or names or jump_lines):
        return ""
    declared = [f":{name} - [0:0]" for name in (*(chain.name for chain in changed), *names)]
    lines = [rule.line(chain.name) for chain in changed for rule in chain.rules]
    return "\n".join([f"*{TABLE}", *declared, *jump_lines, *lines, *(f"-X {name}" for name in names), "COMMIT", ""])


def _texts(tables: Mapping[Family, str]) -> dict[Family, str]:
    return {family: text for family, text in tables.items() if text}
