"""Random programs and flows: the interpreter says what becomes of the packet, and names the rule that decides."""

from ipaddress import ip_network
from typing import Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from enforcers.core import layout
from enforcers.core.layout import Family, Interface
from enforcers.core.rendering import render
from enforcers.core.tracked_sets import TrackedSet, TupleSet
from schemas import addresses, sets
from schemas.addresses import ECHO, ICMP, ICMPV6, SCTP, TCP, UDP
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.sets import SetKind, set_id
from schemas.verdict import Flow, Reason, judge_egress, judge_ingress
from tests.enforcers.core.packet_walk import Packet, Walk

GRE: Final = 47
POOL: Final[dict[Family, list[bytes]]] = {
    4: [addresses.pack(f"10.0.{high}.{low}") for high in (0, 1) for low in (1, 2, 5)],
    6: [addresses.pack(f"fd00::{high}:{low}") for high in (0, 1) for low in (1, 2, 5)],
}
PORTS: Final = (0, 53, 80, 81, 30080, 65535)
IDS: Final = {which: [set_id(which, str(number)) for number in range(2)] for which in SetKind}
VIRTUAL: Final = Virtual(
    addresses=set_id(SetKind.ADDRESSES, "virtual"),
    ports=set_id(SetKind.TUPLES, "virtual"),
    allowed=(set_id(SetKind.TUPLES, "open"), set_id(SetKind.TUPLES, "open too")),
)
PEERS: Final = [identity for each in IDS.values() for identity in each]
EVERY_ID: Final = [*PEERS, VIRTUAL.addresses, VIRTUAL.ports, *VIRTUAL.allowed]

hosts = st.sampled_from([*POOL[4], *POOL[6]])
protocols = st.sampled_from((TCP, UDP, SCTP))


def members_of(which: SetKind) -> st.SearchStrategy[frozenset[bytes]]:
    if which is SetKind.ADDRESSES:
        return st.frozensets(hosts)
    if which is SetKind.TUPLES:
        own_node = st.sampled_from((bytes(4), bytes(16)))  # any address of the node
        told = st.builds(sets.endpoint, st.one_of(hosts, own_node), protocols, st.sampled_from(PORTS))
        return st.frozensets(st.one_of(told, hosts.map(sets.echo)), max_size=12)
    lengths = st.sampled_from((0, 1, 24, 28, 30, 32, 112, 127, 128))
    networks = st.tuples(hosts, lengths).map(
        lambda drawn: ip_network((drawn[0], min(drawn[1], 8 * len(drawn[0]))), strict=False)
    )
    return st.frozensets(st.builds(lambda net, no: sets.block(net, exception=no), networks, st.booleans()), max_size=8)


ranges = st.builds(
    lambda protocol, ends: PortRange(protocol, min(ends), max(ends)),
    protocols,
    st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)),
)
peers = st.one_of(st.none(), st.lists(st.sampled_from(PEERS), max_size=3).map(tuple))
rules = st.lists(st.tuples(peers, st.one_of(st.none(), st.lists(ranges, min_size=1, max_size=20))), max_size=4).map(
    lambda drawn: tuple(
        Rule(id=f"rule{number}", policy=f"policy{number}", sets=each, ports=tuple(ports) if ports is not None else None)
        for number, (each, ports) in enumerate(drawn)
    )
)


def directions(*, virtual: bool) -> st.SearchStrategy[Direction | None]:
    some = st.builds(
        lambda given, decided, own_node: Direction(
            isolating=("p",), rules=given, virtual=VIRTUAL if decided else None, own_node=own_node
        ),
        rules,
        st.booleans() if virtual else st.just(False),
        st.booleans() if virtual else st.just(True),
    )
    return st.one_of(st.none(), some, some)


programs = st.builds(
    lambda ingress, egress: Program(uid="u", namespace="n", name="u", node="n", ingress=ingress, egress=egress),
    directions(virtual=False),
    directions(virtual=True),
)
held = st.fixed_dictionaries({identity: members_of(sets.kind_of(identity)) for identity in EVERY_ID})


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    family = draw(st.sampled_from((4, 6)))
    protocol = draw(st.sampled_from((TCP, UDP, SCTP, ICMP if family == 4 else ICMPV6, GRE)))
    port = draw(st.sampled_from(PORTS)) if protocol in (TCP, UDP, SCTP) else 0
    if protocol in ECHO:
        port = draw(st.sampled_from((0, 8, 13, 128, 129, 133, 135, 143, 144)))
    source, destination = draw(st.lists(st.sampled_from(POOL[family]), min_size=2, max_size=2, unique=True))
    return Flow(source, destination, protocol, port)


@example(
    program=Program(
        uid="u",
        namespace="n",
        name="u",
        node="n",
        egress=Direction(
            isolating=("p",), rules=(Rule(id="r", policy="p", sets=(IDS[SetKind.TUPLES][0],)),), own_node=False
        ),
    ),
    told=dict.fromkeys(EVERY_ID, frozenset()) | {IDS[SetKind.TUPLES][0]: frozenset({sets.endpoint(bytes(4), UDP, 53)})},
    node=frozenset(POOL[4][:1]),
    given_flows=[Flow(POOL[4][1], POOL[4][0], UDP, 53)],
)
@settings(max_examples=600, deadline=None)
@given(programs, held, st.frozensets(hosts, max_size=4), st.lists(flows(), min_size=1, max_size=12))
def test_a_verdict_is_what_becomes_of_the_packet_by_the_rule_that_it_names(program, told, node, given_flows):
    kept: dict[str, TrackedSet] = {layout.NODE_SET: TrackedSet(node)}
    for identity, members in told.items():
        kept[identity] = TupleSet(node) if sets.kind_of(identity) is SetKind.TUPLES else TrackedSet()
        kept[identity].change(members, ())
    in_kernel = {identity: frozenset(each.members) for identity, each in kept.items()}
    for flow in given_flows:
        family: Family = 4 if len(flow.source) == 4 else 6
        chains = render(program, Interface("eth0"), family)
        walk = Walk(chains, in_kernel, family)
        for chain, judge in ((layout.IN, judge_ingress), (layout.OUT, judge_egress)):
            judgement = judge(program, flow, told.__getitem__, node)
            if not chains:
                assert judgement.reason is Reason.NOT_ISOLATED
                continue
            passes, rule = walk(chain, Packet(flow.source, flow.destination, flow.protocol, flow.port))
            assert (passes, judgement.rule or rule) == (judgement.allowed, rule), (chain, flow, judgement)
