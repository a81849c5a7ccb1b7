"""From programs to text: what stands in the kernel, word for word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcers.core import layout
from enforcers.core.difference import compare, desire
from enforcers.core.layout import Interface
from enforcers.core.netlink.nftables import DORMANT, NativeChain, NativeRule
from enforcers.core.observation import HOOK_NUMBERS, NOTHING, PRIORITY, Observed, ObservedTable, observe_table
from enforcers.core.rendering import MULTIPORT_SLOTS, jumps, render
from enforcers.core.tracked_sets import TrackedSet
from schemas.addresses import SCTP, TCP, UDP
from schemas.programs import Denial, Direction, PortRange, Program, Rule, Virtual, denial_id
from schemas.sets import SetKind, set_id
from schemas.verdict import Flow, judge_egress, judge_ingress

ETH0 = Interface("eth0")
PEERS = set_id(SetKind.ADDRESSES, "peers")
NAMED = set_id(SetKind.TUPLES, "named ports")
VIRTUAL = Virtual(
    addresses=set_id(SetKind.ADDRESSES, "vip"),
    ports=set_id(SetKind.TUPLES, "vip"),
    allowed=(set_id(SetKind.TUPLES, "v"),),
)


def program(ingress: Direction | None = None, egress: Direction | None = None) -> Program:
    return Program(uid="u", namespace="shop", name="web", node="n", ingress=ingress, egress=egress)


def direction(*rules: Rule, virtual: Virtual | None = None) -> Direction:
    return Direction(isolating=("NetworkPolicy/shop/web",), rules=rules, virtual=virtual)


def rule(*ports: PortRange, sets: tuple[str, ...] | None = (PEERS,)) -> Rule:
    return Rule(id="id", policy="NetworkPolicy/shop/web", sets=sets, ports=ports or None)


def text(wanted: Program, family: layout.Family = 4) -> list[str]:
    """Chains and rules, without their comments."""
    return [
        f"{chain.name}: {' '.join(filter(None, (each.match, each.target)))}"
        for chain in render(wanted, ETH0, family)
        for each in chain.rules
    ]


def test_a_pod_that_nothing_isolates_has_no_rules():
    assert text(program()) == []


def test_isolated_ingress_word_for_word():
    assert text(program(ingress=direction(rule(PortRange(TCP, 80, 80), PortRange(TCP, 90, 99))))) == [
        "EW-OK: -j CONNMARK --set-xmark 0x10000000/0x10000000",
        "EW-IN: -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -g EW-IN-NEW",
        "EW-IN: -m connmark --mark 0x10000000/0x10000000 -j RETURN",
        "EW-IN: -g EW-IN-NEW",
        "EW-IN-NEW: -m conntrack --ctdir REPLY -j DROP",
        "EW-IN-NEW: -p icmp -m conntrack --ctstate RELATED -j DROP",
        "EW-IN-NEW: -m set --match-set ew-node-4 src -g EW-OK",
        "EW-IN-NEW: -p icmp -m icmp --icmp-type 8 -g EW-IN-ECHO",
        f"EW-IN-NEW: -p tcp -m multiport --dports 80,90:99 -m set --match-set ew-{PEERS}-4 src -g EW-OK",
        "EW-IN-NEW: -j DROP",
        "EW-OUT: -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -g EW-OUT-NEW",
        "EW-OUT: -m connmark --mark 0x10000000/0x10000000 -j RETURN",
        "EW-OUT: -g EW-OUT-NEW",
        "EW-OUT-NEW: -m conntrack --ctdir ORIGINAL -g EW-OK",
        f"EW-IN-ECHO: -m set --match-set ew-{PEERS}-4 src -g EW-OK",
        "EW-IN-ECHO: -j DROP",
    ]


def test_isolated_egress_asks_for_virtual_addresses_before_anything_else_may_allow():
    lines = text(program(egress=direction(rule(), virtual=VIRTUAL)))
    assert [line for line in lines if line.startswith(("EW-OUT-NEW:", "EW-VIP:"))] == [
        "EW-OUT-NEW: -m conntrack --ctdir REPLY -j DROP",
        "EW-OUT-NEW: -p icmp -m conntrack --ctstate RELATED -j DROP",
        f"EW-OUT-NEW: -m set --match-set ew-{VIRTUAL.addresses}-4 dst -g EW-VIP",
        f"EW-OUT-NEW: -m set --match-set ew-{VIRTUAL.ports}-4 dst,dst -g EW-VIP",
        "EW-OUT-NEW: -m set --match-set ew-node-4 dst -g EW-OK",
        f"EW-OUT-NEW: -m set --match-set ew-{PEERS}-4 dst -g EW-OK",
        "EW-OUT-NEW: -j DROP",
        f"EW-VIP: -m set --match-set ew-{VIRTUAL.allowed[0]}-4 dst,dst -g EW-OK",
        "EW-VIP: -j DROP",
    ]


def test_only_links_with_the_pods_addresses_are_looked_at_by_the_jump_or_of_several_by_the_chain_behind_it():
    assert [each.match for each in jumps(ETH0).values()] == ["-i eth0", "-o eth0"]

    several = Interface("eth0", others=("eth1",))
    assert [each.match for each in jumps(several).values()] == ["", ""]
    chains = {chain.name: chain.rules for chain in render(program(ingress=direction()), several, 4)}
    for flag, entry, link in (("-i", layout.IN, layout.IN_LINK), ("-o", layout.OUT, layout.OUT_LINK)):
        assert [(each.match, each.target) for each in chains[entry]] == [
            (f"{flag} eth0", f"-g {link}"),
            (f"{flag} eth1", f"-g {link}"),
        ]
        assert chains[link][-1].target in (f"-g {layout.IN_NEW}", f"-g {layout.OUT_NEW}")


def test_neighbour_discovery_passes_in_ipv6_only():
    def neighbours(family: layout.Family) -> list[str]:
        return [line for line in text(program(ingress=direction()), family) if "icmp6" in line]

    assert neighbours(4) == []
    assert len(neighbours(6)) == 9


def test_echo_requests_follow_the_peers_of_all_rules_each_set_once_and_tuples_by_their_own():
    rules = (rule(PortRange(TCP, 80, 80)), rule(PortRange(UDP, 53, 53)), rule(sets=(NAMED,)))
    lines = text(program(egress=direction(*rules)), 6)
    assert [line for line in lines if "ECHO" in line] == [
        "EW-OUT-NEW: -p ipv6-icmp -m icmp6 --icmpv6-type 128 -g EW-OUT-ECHO",
        f"EW-OUT-ECHO: -m set --match-set ew-{PEERS}-6 dst -g EW-OK",
        f"EW-OUT-ECHO: -m set --match-set ew-{NAMED}-6 dst,dst -g EW-OK",
        "EW-OUT-ECHO: -j DROP",
    ]


def test_every_rule_carries_a_comment_that_tells_its_content_and_its_rule():
    one, other = (
        render(program(ingress=direction(rule(PortRange(TCP, port, port)))), ETH0, 4)[2].rules[-2] for port in (80, 81)
    )
    assert one.comment.startswith("ew:")
    assert one.comment.endswith(":id")
    assert one.comment != other.comment


@given(
    st.lists(
        st.tuples(st.sampled_from([TCP, UDP, SCTP]), st.integers(1, 65535), st.integers(0, 50)).map(
            lambda drawn: PortRange(drawn[0], drawn[1], min(65535, drawn[1] + drawn[2]))
        ),
        min_size=1,
        max_size=60,
    )
)
def test_ports_are_split_without_loss_into_what_one_rule_holds(ports):
    found: set[PortRange] = set()
    for each in render(program(ingress=direction(rule(*ports))), ETH0, 4)[2].rules:
        if each.id != "id":
            continue
        protocol = {"tcp": TCP, "udp": UDP, "sctp": SCTP}[each.match.split()[1]]
        texts = each.match.split("--dport")[1].removeprefix("s").split()[0].split(",")
        assert sum(2 if ":" in part else 1 for part in texts) <= MULTIPORT_SLOTS
        for part in texts:
            first, _, last = part.partition(":")
            found.add(PortRange(protocol, int(first), int(last or first)))
    assert found == set(ports)


def written(wanted: Program, family: layout.Family) -> ObservedTable:
    """The table as the kernel would list it after our transaction."""
    tracked = {identity: TrackedSet() for identity in {*wanted.sets, layout.NODE_SET}}
    sent = compare(desire(wanted, ETH0), NOTHING, tracked).tables[family]
    chains = [NativeChain(line[1:].split()[0]) for line in sent.splitlines() if line.startswith(":")]
    hooks = [NativeChain(hook, number, PRIORITY, "filter") for hook, number in HOOK_NUMBERS.items()]
    lines = [line.split(" ", 2) for line in sent.splitlines() if line.startswith(("-A ", "-I "))]
    comments = [(chain, rest.split('--comment "')[1].split('"')[0]) for _, chain, rest in lines]
    return observe_table(1, 0, [*chains, *hooks], [NativeRule(chain, 1, comment, b"") for chain, comment in comments])


@pytest.mark.parametrize("family", [4, 6])
def test_what_was_written_is_recognised_and_nothing_is_written_again(family):
    wanted = program(direction(rule(PortRange(TCP, 80, 80))), direction(rule(sets=(NAMED,)), virtual=VIRTUAL))
    tracked = {identity: TrackedSet() for identity in {*wanted.sets, layout.NODE_SET}}

    observed = Observed({**NOTHING.tables, family: written(wanted, family)}, {})
    again = compare(desire(wanted, ETH0), observed, tracked)

    assert (family in again.tables, again.displaced, again.unhook) == (False, (), ())


PREFIX_ROOM = 63
"""Characters of an NFLOG prefix."""


def test_every_rule_has_an_id_and_every_block_leads_back_to_all_that_isolate_however_many():
    many = tuple(f"NetworkPolicy/shop/policy-{number}" for number in range(300))
    inbound = Direction(isolating=many, rules=(rule(PortRange(TCP, 80, 80)),))
    outbound = Direction(isolating=("NetworkPolicy/shop/out",), virtual=VIRTUAL)
    wanted = program(inbound, outbound)

    rules = [each for chain in render(wanted, ETH0, 4) for each in chain.rules]
    assert all(each.id and len(f"ew:{each.id}") <= PREFIX_ROOM for each in rules)
    blocks = [each.id for each in rules if each.target == "-j DROP"]
    assert {each: wanted.policies_of(each) for each in blocks} == {
        denial_id(Denial.UNMARKED, many): many,
        denial_id(Denial.DEFAULT, many): many,
        denial_id(Denial.UNMARKED, outbound.isolating): outbound.isolating,
        denial_id(Denial.DEFAULT, outbound.isolating): outbound.isolating,
        denial_id(Denial.VIRTUAL, outbound.isolating): outbound.isolating,
    }
    assert wanted.policies_of("id") == ("NetworkPolicy/shop/web",)
    assert wanted.policies_of("nobody's") == ()


def test_a_verdict_names_the_rule_that_the_kernel_would_count():
    wanted = program(direction(rule(PortRange(TCP, 80, 80), sets=None)), direction(virtual=VIRTUAL))
    ids = {each.id for chain in render(wanted, ETH0, 4) for each in chain.rules}
    here, there = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
    members = {VIRTUAL.addresses: {there}}
    found = [
        judge_ingress(wanted, Flow(there, here, TCP, 80), lambda name: members.get(name, ())),
        judge_ingress(wanted, Flow(there, here, TCP, 81), lambda name: members.get(name, ())),
        judge_egress(wanted, Flow(here, there, TCP, 80), lambda name: members.get(name, ())),
        judge_egress(wanted, Flow(here, bytes((10, 0, 0, 3)), TCP, 80), lambda name: members.get(name, ())),
    ]
    assert [judgement.allowed for judgement in found] == [True, False, False, False]
    assert {judgement.rule for judgement in found} <= ids
    assert len({judgement.rule for judgement in found[:3]}) == 3


def test_a_chain_that_is_gone_makes_all_that_may_lead_to_it_suspect():
    wanted = program(direction(rule(PortRange(TCP, 80, 80))))
    tracked = {identity: TrackedSet() for identity in {*wanted.sets, layout.NODE_SET}}
    whole = written(wanted, 4)
    renamed = ObservedTable(1, {name: each for name, each in whole.chains.items() if name != layout.IN}, whole.hooks)

    patch = compare(desire(wanted, ETH0), Observed({**NOTHING.tables, 4: renamed}, {}), tracked)

    assert {line for line in patch.tables[4].splitlines() if line.startswith(":")} == {
        f":{chain.name} - [0:0]" for chain in render(wanted, ETH0, 4)
    }
    assert {jump.hook for jump in patch.displaced} == set(layout.HOOKS)


def test_a_foreign_rule_is_never_taken_for_ours():
    chains = [NativeChain("PREROUTING", 0, PRIORITY, "filter"), NativeChain("MINE")]
    rules = [NativeRule("PREROUTING", 2, "not ew: at all", b""), NativeRule("MINE", 3, "", b"")]

    assert not Observed({4: observe_table(1, 0, chains, rules)}, {})


@pytest.mark.parametrize(
    ("flags", "chain"),
    [
        (DORMANT, NativeChain("PREROUTING", 0, PRIORITY, "filter")),
        (0, NativeChain("PREROUTING")),
        (0, NativeChain("PREROUTING", 0, 5, "filter")),
        (0, NativeChain("POSTROUTING", 0, PRIORITY, "filter")),
    ],
)
def test_a_table_in_which_no_rule_of_ours_takes_effect_says_so(flags, chain):
    assert observe_table(1, flags, [chain], []).obstacle
