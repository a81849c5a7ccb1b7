"""What is written where something differs: no more than that, in an order that leaves nothing open."""

import pytest
from msgspec.structs import replace

from enforcers.core import layout
from enforcers.core.difference import Patch, Realized, Table, advance, compare, desire, realized
from enforcers.core.layout import FAMILIES, Family, Interface
from enforcers.core.netlink.nftables import NativeRule
from enforcers.core.observation import NOTHING, Observed, ObservedTable
from enforcers.core.tracked_sets import TrackedSet
from schemas.addresses import TCP
from schemas.programs import Direction, PortRange, Program, Rule
from schemas.sets import SetKind, set_id

ETH0 = Interface("eth0")
PEERS = set_id(SetKind.ADDRESSES, "peers")
TRACKED = {identity: TrackedSet() for identity in (PEERS, layout.NODE_SET)}
NEVER = Realized(dict.fromkeys(FAMILIES, Table()), {})
"""A namespace in which nothing of ours was written."""


def admitting(*ports: int) -> Direction:
    ranges = tuple(PortRange(TCP, port, port) for port in ports)
    rules = (Rule(id="r", policy="p", sets=(PEERS,), ports=ranges),)
    return Direction(isolating=("p",), rules=rules)


def program(ingress: Direction | None, egress: Direction | None = None) -> Program:
    return Program(uid="u", namespace="n", name="u", node="n", ingress=ingress, egress=egress)


def following(before: Program, after: Program) -> list[str]:
    """The lines that lead from one to the other, in IPv4."""
    known = realized(desire(before, ETH0), TRACKED)
    return advance(desire(after, ETH0), known, TRACKED).tables[4].splitlines()


def declared(lines: list[str]) -> list[str]:
    return [line[1:].split()[0] for line in lines if line.startswith(":")]


def found(*ours: int, others: int = 0) -> Observed:
    """Everything of ours, but that in each hook the jump stands at the places *ours*, between rules of *others*."""
    wanted = desire(program(admitting(80)), ETH0)
    tables = {}
    for family in FAMILIES:
        table = wanted.tables[family]
        chains = {name: _rules(name, comments) for name, comments in table.chains.items()}
        hooks = {
            hook: tuple(
                NativeRule(hook, place, table.jumps[hook].comment if place in ours else "", b"")
                for place in range(1, len(ours) + others + 1)
            )
            for hook in layout.HOOKS
        }
        tables[family] = ObservedTable(1, chains, hooks)
    members = {(identity, family): frozenset[bytes]() for identity in TRACKED for family in FAMILIES}
    return Observed(tables, members)


def _rules(chain: str, comments: tuple[str, ...]) -> tuple[NativeRule, ...]:
    return tuple(NativeRule(chain, at, comment, b"") for at, comment in enumerate(comments))


def test_of_rules_only_the_chains_that_change_are_written_and_no_set() -> None:
    known = realized(desire(program(admitting(80)), ETH0), TRACKED)
    patch = advance(desire(program(admitting(80, 81)), ETH0), known, TRACKED)
    assert patch == Patch(tables=patch.tables)
    for text in patch.tables.values():
        assert declared(text.splitlines()) == [layout.IN_NEW]


def test_sets_are_made_when_rules_name_them_first_and_go_when_none_does() -> None:
    others = set_id(SetKind.ADDRESSES, "others")
    tracked = TRACKED | {others: TrackedSet()}
    rule = Rule(id="r", policy="p", sets=(others,))
    known = realized(desire(program(admitting(80)), ETH0), tracked)
    patch = advance(desire(program(Direction(isolating=("p",), rules=(rule,))), ETH0), known, tracked)
    assert [(each.id, each.family) for each in patch.create] == [(others, family) for family in FAMILIES]
    assert patch.destroy == tuple(layout.set_name(PEERS, family) for family in FAMILIES)
    assert (patch.replace, patch.gain, patch.lose) == ((), (), ())


def test_sets_of_ours_that_no_rule_names_go_and_what_was_left_half_made() -> None:
    there = found(1)
    surplus = {("a" * 21, family): frozenset[bytes]() for family in FAMILIES}
    observed = Observed(there.tables, {**there.sets, **surplus}, ("ew-half-4x",))
    patch = compare(desire(program(admitting(80)), ETH0), observed, TRACKED)
    assert patch == Patch(destroy=("ew-half-4x", *(layout.set_name(*key) for key in surplus)))


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_family_that_the_kernel_lacks_nothing_is_asked(family: Family) -> None:
    wanted = desire(program(admitting(80)), Interface("eth0", families=(family,)))
    patch = compare(wanted, NOTHING, TRACKED)
    assert patch.tables.keys() == {family}
    assert {(each.id, each.family) for each in patch.create} == {(identity, family) for identity in TRACKED}
    assert advance(wanted, NEVER, TRACKED) == patch


def test_a_chain_that_goes_is_emptied_before_and_removed_after_what_led_to_it() -> None:
    lines = following(program(admitting(80), admitting(80)), program(admitting(80)))
    gone = f"-X {layout.OUT_ECHO}"
    assert set(declared(lines)) == {layout.OUT_NEW, layout.OUT_ECHO}
    assert lines.index(gone) > max(at for at, line in enumerate(lines) if line.startswith("-A"))
    assert lines[-1] == "COMMIT"


def test_the_first_rules_are_inserted_before_those_of_others_and_no_hook_is_declared() -> None:
    lines = advance(desire(program(admitting(80)), ETH0), NEVER, TRACKED).tables[4].splitlines()
    jumps = [line.split()[:2] for line in lines if any(f"-j {chain}" in line for chain in layout.HOOKS.values())]
    assert jumps == [["-I", hook] for hook in layout.HOOKS]
    assert not set(declared(lines)) & set(layout.HOOKS)


@pytest.mark.parametrize(("ours", "others"), [((2,), 1), ((1, 2), 0), ((1, 3), 1), ((), 1)])
def test_our_jump_comes_first_again_and_stands_once(ours: tuple[int, ...], others: int) -> None:
    patch = compare(desire(program(admitting(80)), ETH0), found(*ours, others=others), TRACKED)
    for family in FAMILIES:
        lines = [line for line in patch.tables[family].splitlines() if line[0] == "-"]
        assert [line.split()[:2] for line in lines] == [["-I", hook] for hook in layout.HOOKS]
    assert [(jump.hook, jump.handle) for jump in patch.displaced if jump.family == 4] == [
        (hook, place) for hook in layout.HOOKS for place in ours
    ]


def test_where_our_jump_stands_first_and_once_nothing_is_written() -> None:
    assert not compare(desire(program(admitting(80)), ETH0), found(1, others=2), TRACKED)


def another(rule: NativeRule) -> NativeRule:
    """One of ours in the place of *rule*, as an earlier program would have it."""
    return NativeRule(rule.chain, rule.handle, "ew:000000000000:earlier", b"")


def test_a_chain_in_which_a_rule_is_another_is_written_anew_and_no_other() -> None:
    there = found(1).tables[4]
    first, *rest = there.chains[layout.IN_NEW]
    changed = replace(there, chains={**there.chains, layout.IN_NEW: (another(first), *rest)})
    silently = replace(there, altered=frozenset((layout.IN_NEW,)))  # the comment stayed, the rule did not
    for each in (changed, silently):
        patch = mended(each)
        assert declared(patch.tables[4].splitlines()) == [layout.IN_NEW]
        assert (patch.tables.keys(), patch.displaced) == ({4}, ())


def test_a_jump_that_is_another_gives_its_place_to_ours() -> None:
    there = found(1).tables[4]
    changed = replace(there, hooks={**there.hooks, "PREROUTING": (another(there.hooks["PREROUTING"][0]),)})
    silently = replace(there, altered=frozenset(("PREROUTING",)))
    for each in (changed, silently):
        patch = mended(each)
        assert [line.split()[:2] for line in patch.tables[4].splitlines()[1:-1]] == [["-I", "PREROUTING"]]
        assert [(jump.hook, jump.handle) for jump in patch.displaced] == [("PREROUTING", 1)]


def mended(table: ObservedTable) -> Patch:
    """What is written where IPv4 is found as *table*."""
    there = found(1)
    observed = Observed({**there.tables, 4: table}, there.sets)
    return compare(desire(program(admitting(80)), ETH0), observed, TRACKED)


def test_where_nothing_is_to_be_enforced_jumps_go_before_the_chains() -> None:
    patch = compare(desire(None, ETH0), found(1), TRACKED)
    assert {jump.hook for jump in patch.unhook} == set(layout.HOOKS)
    assert not compare(desire(None, ETH0), NOTHING, TRACKED)
    assert declared(patch.tables[4].splitlines()) == [line[3:] for line in patch.tables[4].splitlines() if "-X" in line]
