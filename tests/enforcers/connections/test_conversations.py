"""§4 of the semantics in one run: conversations of every kind go through everything that may become of their Pod.

Two of three peers are allowed all the while and lose nothing; what the third sends once it is forbidden is delivered to
nobody. The counts are printed.
"""

import pytest

from schemas.addresses import TCP, UDP
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import PortRange
from schemas.sets import SetKind, set_id
from tests.enforcers.connections.conversing import Conversations, conversations
from tests.enforcers.cven_world import Told, realized, running, told
from tests.enforcers.pod_world import CLIENTS, POLICY, both, isolated, program, rule

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("either_way")]

OTHERS = set_id(SetKind.ADDRESSES, "others")
PEERS = (CLIENTS, OTHERS)
EVERYTHING = rule(peers=PEERS)
BY_PROTOCOL = rule(PortRange(TCP), PortRange(UDP), peers=PEERS)
"""Still all that the conversations need, and less than everything."""


def rewritten(number: int) -> NodeUpdate:
    """A program that means the same to the conversations, in other words."""
    more = rule(PortRange(TCP), PortRange(UDP), PortRange(132, number, number), peers=PEERS)
    return NodeUpdate(programs=(program(ingress=isolated(more), egress=isolated(more)),), mark=Mark(revision=number))


def moved(revision: int, *, away: str, to: str) -> NodeUpdate:
    members = frozenset(both("a"))
    return NodeUpdate(
        sets=(SetChange(id=to, added=members), SetChange(id=away, removed=members)), mark=Mark(revision=revision)
    )


async def test_whatever_becomes_of_a_pod_nothing_forbidden_is_delivered_and_nothing_allowed_is_lost(world, capsys):
    """Before any rule, a tightening that still allows, one that forbids, relabels, rewrites, a restart."""
    wide = program(ingress=isolated(EVERYTHING), egress=isolated(EVERYTHING))
    narrow = program(ingress=isolated(BY_PROTOCOL), egress=isolated(BY_PROTOCOL))
    forbidden: dict[str, int] = {}

    with conversations(world) as talks:
        start = told(1, wide, clients=both("a", "b"))
        reader = Told(
            NodeUpdate(
                programs=start.programs, sets=(*start.sets, SetChange(id=OTHERS)), mark=start.mark, complete=True
            )
        )
        async with running(world, reader) as cven:
            await realized(cven, 1)
            talks.await_news()  # (a): all was allowed
            assert not cven.node.cuts.recent

            reader.tell(NodeUpdate(programs=(narrow,), mark=Mark(revision=2)))
            await realized(cven, 2)
            talks.await_news()  # (b)
            assert not cven.node.cuts.recent

            gone = SetChange(id=CLIENTS, removed=frozenset(both("b")))
            reader.tell(NodeUpdate(sets=(gone,), mark=Mark(revision=3)))
            await realized(cven, 3)
            with talks.counting(ingress=True, egress=True) as forbidden["tightening"]:
                talks.await_news(ingress=True, egress=True)  # (c)
            assert cven.node.metrics.cuts._value.get() == sum(each.kind.peer == "b" for each in talks.all)
            assert {each.policies for each in cven.node.cuts.recent} == {(POLICY,)}

            with talks.counting(ingress=True, egress=True) as forbidden["relabels"]:
                for revision in range(4, 14):  # (e)
                    here, there = PEERS if revision % 2 else PEERS[::-1]
                    reader.tell(moved(revision, away=there, to=here))
                    await realized(cven, revision)
                talks.await_news(ingress=True, egress=True)

            with talks.counting(ingress=True, egress=True) as forbidden["rewrites"]:
                for revision in range(14, 34):  # (g)
                    reader.tell(rewritten(revision))
                    await realized(cven, revision)
                talks.await_news(ingress=True, egress=True)

        with talks.counting(ingress=True, egress=True) as forbidden["restart"]:
            talks.await_news(ingress=True, egress=True)  # (f): nobody is there
            last = rewritten(33)
            sets = (SetChange(id=CLIENTS), SetChange(id=OTHERS, added=frozenset(both("a"))))
            again = NodeUpdate(programs=last.programs, sets=sets, mark=Mark(revision=34), complete=True)
            async with running(world, Told(again)) as cven:
                await realized(cven, 34)
                talks.await_news(ingress=True, egress=True)
                assert not cven.node.cuts.recent
        lost = talks.lost(ingress=True, egress=True)

    with capsys.disabled():
        print()
        report(talks, forbidden, lost)
    assert all(forbidden.values())
    assert sum(sum(each.values()) for each in forbidden.values()) == 0
    assert lost == {}


def report(talks: Conversations, forbidden: dict[str, dict[object, int]], lost: dict[object, int]) -> None:
    sent = sum(each.client.sent + each.server.sent for each in talks.all if each.kind.peer == "a")
    print(f"{len(talks.all)} conversations; allowed messages sent: {sent}, lost: {sum(lost.values())}")
    for phase, counts in forbidden.items():
        print(f"{phase}: forbidden packets delivered: {sum(counts.values())}")
