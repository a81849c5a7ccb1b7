"""Chains by netlink are what the tool would have made of the same words; what netlink cannot do, the tool does."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from enforcers.core.difference import Realized, Sets, advance, compare, desire, realized
from enforcers.core.layout import FAMILIES, NODE_SET, Interface
from enforcers.core.netlink import transaction
from enforcers.core.netlink.rules import Unencodable
from enforcers.core.observation import NOTHING
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel.namespaces import CommandFailed, run
from enforcers.kernel.rules import native
from enforcers.kernel.rules.chain_backends import PREFIXES, ChainBackend, NetlinkChains, RestoreChains, commit
from enforcers.kernel.scratch import scratch_namespace
from enforcers.kernel.sets.set_backends import NetlinkSets
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket
from schemas.addresses import SCTP, TCP, UDP
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.sets import SetKind, set_id

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]

SETS = [set_id(kind, name) for kind in SetKind for name in ("one", "other")]
TUPLES = [set_id(SetKind.TUPLES, name) for name in ("one", "other")]
TRACKED: Sets = {identity: TrackedSet() for identity in (NODE_SET, *SETS)}
ETH0 = Interface("eth0")
STEPS = 25


RULES = [
    "-i eth0 -j EW-OK",
    "-o a-link-of-15-ch -j EW-OK",
    "-p tcp -m tcp --dport 0 -j DROP",
    "-p udp -m udp --dport 1:65535 -j ACCEPT",
    "-p sctp -m sctp --dport 5:6 -j RETURN",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -g EW-OK",
    "-p udp -m multiport --dports 1,2:3,4,5:65535 -g EW-OK",
    "-p sctp -j DROP",
    "-m connmark --mark 0x1/0xff -j RETURN",
    "-m conntrack --ctdir ORIGINAL -g EW-OK",
    "-m conntrack --ctdir REPLY -j DROP",
    "-m conntrack --ctstate RELATED -j DROP",
    "-m conntrack --ctstate NEW,ESTABLISHED -j DROP",
    "-m set --match-set ew-a-@ src -g EW-OK",
    "-m set --match-set ew-a-@ dst -m set --match-set ew-t-@ src,dst -g EW-OK",
    "-m set --match-set ew-t-@ dst,dst -g EW-OK",
    "-j CONNMARK --set-xmark 0x10000000/0x10000000",
    '-m comment --comment "ew:0123456789ab:x" -j DROP',
]
"""As the tool lists them; @ stands for the family."""


class Scene(msgspec.Struct):
    """A namespace, its sets and its chains by one backend."""

    path: Path
    netlink: NetlinkSocket
    chains: ChainBackend

    @property
    def sets(self) -> NetlinkSets:
        return NetlinkSets(lambda: self.netlink)

    async def saved(self) -> list[str]:
        texts = [await run(self.path, [f"{prefix}-save"]) for prefix in PREFIXES.values()]
        return [line for text in texts for line in text.splitlines() if not line.startswith("#")]


class Never:
    """A backend that must not be asked."""

    async def write(self, tables: object) -> None:
        raise AssertionError(f"the tool was asked to write {tables}")


@contextmanager
def scene(*, tool: ChainBackend | None = None, netlink: bool = True) -> Iterator[Scene]:
    with scratch_namespace() as path, NetlinkSocket(path, NETLINK_NETFILTER) as opened:

        async def use(work):
            work(opened)

        restore = RestoreChains(path)
        yield Scene(path, opened, NetlinkChains(use, tool or restore) if netlink else restore)


def some_program(dice: random.Random) -> Program:
    return Program(
        uid="uid",
        namespace="shop",
        name="web",
        node="node-1",
        ingress=some_direction(dice, egress=False),
        egress=some_direction(dice, egress=True),
    )


def some_direction(dice: random.Random, *, egress: bool) -> Direction | None:
    if dice.random() < 0.2:
        return None
    virtual = Virtual(addresses=SETS[0], ports=TUPLES[0], allowed=tuple(dice.sample(TUPLES, dice.randrange(3))))
    return Direction(
        isolating=(f"policy-{dice.randrange(3)}",),
        rules=tuple(some_rule(dice, number) for number in range(dice.randrange(5))),
        virtual=virtual if egress and dice.random() < 0.5 else None,
    )


def some_rule(dice: random.Random, number: int) -> Rule:
    ports = None if dice.random() < 0.2 else tuple(some_ports(dice) for _ in range(dice.randrange(1, 20)))
    peers = None if dice.random() < 0.2 else tuple(dice.sample(SETS, dice.randrange(1, 4)))
    return Rule(id=f"rule{number}", policy="policy", sets=peers, ports=ports)


def some_ports(dice: random.Random) -> PortRange:
    protocol, first = dice.choice((TCP, UDP, SCTP)), dice.randrange(65536)
    last = dice.choice((first, dice.randrange(first, 65536), 65535))
    return PortRange(protocol, dice.choice((first, 0)) if last == 65535 else first, last)


@pytest.mark.parametrize("seed", range(4))
async def test_random_programs_one_after_the_other_read_the_same_either_way(seed):
    dice = random.Random(seed)
    with scene(netlink=False) as by_tool, scene(tool=Never()) as by_netlink:
        known: Realized | None = None
        for step in range(STEPS):
            wanted = desire(some_program(dice), ETH0)
            patch = compare(wanted, NOTHING, TRACKED) if known is None else advance(wanted, known, TRACKED)
            for each, order in ((by_tool, 1), (by_netlink, -1)):  # so that the numbers of their sets differ
                await each.sets.create(patch.create[::order])
                if known is None or wanted.sets:
                    await each.chains.write(patch.tables)
                else:  # taking everything out is the tool's in either case
                    await RestoreChains(each.path).write(patch.tables)
                for name in patch.destroy:
                    await each.sets.destroy(name)
            known = realized(wanted, TRACKED)

            assert await by_netlink.saved() == await by_tool.saved(), f"step {step} of seed {seed}"


@pytest.mark.parametrize(
    ("family", "rule"),
    [
        *((family, rule) for family in FAMILIES for rule in RULES),
        (4, "-p icmp -m icmp --icmp-type 8 -j DROP"),
        (6, "-p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP"),
    ],
)
async def test_a_rule_reads_the_same_either_way(family, rule):
    text = f"*mangle\n:EW-IN - [0:0]\n:EW-OK - [0:0]\n-A EW-IN {rule}\nCOMMIT\n"
    with scene(netlink=False) as by_tool, scene(tool=Never()) as by_netlink:
        for each in (by_tool, by_netlink):
            lines = f"create ew-a-4 hash:ip\ncreate ew-a-6 hash:ip family inet6\ncreate ew-t-{family} hash:ip,port"
            await run(each.path, ["ipset", "restore"], f"{lines} family {'inet' if family == 4 else 'inet6'}\n")
            await each.chains.write({family: text.replace("@", str(family))})

        saved = await by_netlink.saved()
        assert saved == await by_tool.saved()
        assert f"-A EW-IN {rule.replace('@', str(family))}" in saved


async def test_both_families_take_effect_in_one_step():
    with scene(tool=Never()) as here:
        patch = compare(desire(some_isolated(), ETH0), NOTHING, TRACKED)
        await here.sets.create(patch.create)
        before = native.generation(here.netlink).number

        await here.chains.write(patch.tables)

        assert set(patch.tables) == set(FAMILIES)
        assert native.generation(here.netlink).number == before + 1


async def test_what_the_kernel_refuses_takes_no_effect_at_all_and_names_the_line():
    words = "-A EW-IN -p tcp -g EW-NOWHERE"
    text = f"*mangle\n:EW-IN - [0:0]\n-I PREROUTING -i eth0 -j EW-IN\n{words}\n-A EW-IN -j DROP\nCOMMIT\n"
    with scene() as here:
        with pytest.raises(NetlinkRefused, match=words):
            commit(here.netlink, transaction.steps({6: "*mangle\n:EW-IN - [0:0]\nCOMMIT\n", 4: text}))

        assert not [line for line in await here.saved() if "EW-" in line]
        commit(here.netlink, transaction.steps({4: text.replace(f"{words}\n", "")}))


async def test_what_was_refused_is_told_in_the_tools_words():
    with scene() as here:
        patch = compare(desire(some_isolated(), ETH0), NOTHING, TRACKED)
        await here.sets.create(patch.create[1:])

        with pytest.raises(CommandFailed) as failed:
            await here.chains.write(patch.tables)

        assert "doesn't exist" in failed.value.message
        assert "--match-set" in failed.value.line


async def test_a_word_that_netlink_does_not_know_is_written_by_the_tool():
    text = "*mangle\n:EW-IN - [0:0]\n-A EW-IN -m limit --limit 5/sec -j ACCEPT\nCOMMIT\n"
    with pytest.raises(Unencodable, match="limit"):
        transaction.steps({4: text})
    with scene() as here:
        await here.chains.write({4: text})

        assert "-A EW-IN -m limit --limit 5/sec -j ACCEPT" in await here.saved()


async def test_a_foreign_policy_and_foreign_rules_of_our_hooks_stay_as_they_are():
    with scene(tool=Never()) as here:
        theirs = "*mangle\n:PREROUTING DROP [0:0]\n-A PREROUTING -p udp -m udp --dport 9 -j ACCEPT\nCOMMIT\n"
        await run(here.path, ["iptables-nft-restore"], theirs)
        patch = compare(desire(some_isolated(), ETH0), NOTHING, TRACKED)
        await here.sets.create(patch.create)

        await here.chains.write(patch.tables)

        saved = await here.saved()
        prerouting = [line for line in saved if line.startswith("-A PREROUTING")]
        assert ":PREROUTING DROP [0:0]" in saved
        assert "-j EW-IN" in prerouting[0]
        assert prerouting[1] == "-A PREROUTING -p udp -m udp --dport 9 -j ACCEPT"


async def test_more_rules_than_a_socket_holds_by_itself_go_in_one_step():
    rules = "".join(f"-A EW-IN -p tcp -m tcp --dport {port} -j DROP\n" for port in range(1, 5001))
    with scene(tool=Never()) as here:
        await here.chains.write({4: f"*mangle\n:EW-IN - [0:0]\n{rules}COMMIT\n"})

        assert sum(line.startswith("-A EW-IN") for line in await here.saved()) == 5000


def some_isolated() -> Program:
    allowed = Rule(id="rule", policy="policy", sets=(SETS[0],), ports=(PortRange(TCP, 80, 80),))
    return Program(
        uid="uid",
        namespace="shop",
        name="web",
        node="node-1",
        ingress=Direction(isolating=("policy",), rules=(allowed,)),
    )
