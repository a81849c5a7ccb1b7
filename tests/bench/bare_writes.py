"""What is done to a crowd's Pods with nothing decided: by the tools, by netlink, and by pyroute2.

Every Pod has a program of its own about 5 sets. Its text, and its messages, are prepared before time is taken.
"""

import asyncio
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Final

from pyroute2 import IPSet

from enforcers.core.difference import advance, compare, contents, desire, realized
from enforcers.core.layout import FAMILIES, NODE_SET, TABLE, Family, Interface, set_name
from enforcers.core.netlink import ipset, nftables, transaction
from enforcers.core.observation import NOTHING
from enforcers.core.set_rendering import FAMILY_NAMES
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel import namespaces
from enforcers.kernel.rules.chain_backends import PREFIXES
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas import addresses
from schemas.programs import Program
from tests.bench.measuring import timed
from tests.enforcers.node.crowd import SETS, Crowd, members

AT_A_TIME: Final = 16
"""Pods; more does not make the tools faster on two cores."""
ETH0: Final = Interface("eth0")
FIRST_PORT: Final = 1000
COLD_RULES: Final = 50
PATCHED_RULES: Final = 10
TRACKED: Final = {NODE_SET: TrackedSet(), **{identity: TrackedSet(found) for identity, found in members().items()}}
NAMED: Final = [(identity, family) for identity in (NODE_SET, *SETS) for family in FAMILIES]
"""The sets of a Pod, in the order in which they come to be."""
SOCKET_FAMILIES: Final[Mapping[Family, int]] = {4: AF_INET, 6: AF_INET6}

Step = Sequence[tuple[Sequence[str], str]]
"""Commands with their input; those of one step may run at a time."""
Tables = Mapping[Family, str]
"""Input for iptables-nft-restore."""


def program(crowd: Crowd, pod: int, number: int, rules: int) -> Program:
    """Of the Pod, in round *number*: other ports each time."""
    return crowd.program(pod, first_port=FIRST_PORT * (number + 1), rules=rules)


def first_tables(crowd: Crowd, pod: int) -> Tables:
    """All chains of a Pod that has none."""
    return compare(desire(program(crowd, pod, 0, COLD_RULES), ETH0), NOTHING, TRACKED).tables


def next_tables(crowd: Crowd, pod: int, number: int) -> Tables:
    """The chains of a Pod that change from round *number* to the next."""
    before, after = (desire(program(crowd, pod, each, PATCHED_RULES), ETH0) for each in (number, number + 1))
    return advance(after, realized(before, TRACKED), TRACKED).tables


# --- the tools -------------------------------------------------------------------------------------------------------

READ: Final[Sequence[Step]] = [
    [(["ipset", "save"], ""), *(([f"{PREFIXES[family]}-save", "-t", TABLE], "") for family in FAMILIES)]
]


def first_write(crowd: Crowd, pod: int) -> Sequence[Step]:
    """Sets, then chains."""
    lines = []
    for identity, family in NAMED:
        lines.append(f"create {set_name(identity, family)} hash:ip family {FAMILY_NAMES[family]}")
        lines += [f"add {set_name(identity, family)} {text}" for text in _texts(identity, family)]
    return [[(["ipset", "restore"], "\n".join([*lines, ""]))], *rewrite(first_tables(crowd, pod))]


def rewrite(tables: Tables) -> Sequence[Step]:
    return [[([f"{PREFIXES[family]}-restore", "--noflush"], text) for family, text in tables.items()]]


async def at_a_time(crowd: Crowd, work: Iterable[Sequence[Step]], life: int) -> None:
    """The tools for `AT_A_TIME` Pods at once."""
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(path: Path, steps: Sequence[Step]) -> None:
        async with turns:
            for step in steps:
                await asyncio.gather(*(namespaces.run(path, command, text) for command, text in step))

    await asyncio.gather(*(one(crowd.path(number, life), steps) for number, steps in enumerate(work)))


def in_turn(crowd: Crowd, work: Iterable[Sequence[Step]], life: int) -> None:
    """The tools by ``ip netns exec``, one after the other."""
    for number, steps in enumerate(work):
        entering = ["ip", "netns", "exec", crowd.path(number, life).name]
        for step in steps:
            for command, text in step:
                subprocess.run([*entering, *command], input=text.encode(), stdout=subprocess.DEVNULL, check=True)


# --- netlink ---------------------------------------------------------------------------------------------------------


@contextmanager
def kept_sockets(crowd: Crowd, life: int) -> Iterator[list[NetlinkSocket]]:
    """One in each Pod's namespace."""
    with ExitStack() as stack:
        sockets = []
        for pod in range(crowd.count):
            sockets.append(NetlinkSocket(crowd.path(pod, life), NETLINK_NETFILTER))
            stack.callback(sockets[-1].close_behind)
        yield sockets


def packed_sets(netlink: NetlinkSocket) -> Callable[[], None]:
    """What sends all sets, packed now, to a namespace without any."""
    requests = [request for each in NAMED for request in _filled(*each, netlink)]

    def send() -> None:
        for request in requests:
            netlink.request(request)

    return send


def packed_first_write(crowd: Crowd, pod: int, netlink: NetlinkSocket) -> Callable[[], None]:
    """What sends the sets and the chains, packed now, to a namespace without any: there sets are numbered from 0."""
    send_sets = packed_sets(netlink)
    send_chains = _packed(netlink, first_tables(crowd, pod), {set_name(*each): at for at, each in enumerate(NAMED)})

    def send() -> None:
        send_sets()
        send_chains()

    return send


def packed_rewrite(netlink: NetlinkSocket, tables: Tables) -> Callable[[], None]:
    """What sends the chains, packed now, to a namespace whose sets are there."""
    return _packed(netlink, tables, ipset.read_numbers(body for _, body in netlink.dump(ipset.numbers_query())))


def packed_reading(netlink: NetlinkSocket) -> Callable[[], None]:
    """What lists our sets and the table's rules, and looks at nothing of it."""
    requests = [
        ipset.headers_query(),
        *(ipset.listing_query(set_name(*each)) for each in NAMED),
        *(nftables.rules_request(family, TABLE) for family in FAMILIES),
    ]

    def send() -> None:
        for request in requests:
            netlink.dump(request)

    return send


def send_all(senders: Iterable[Callable[[], None]]) -> float:
    """Seconds of all, `AT_A_TIME` at once: one that takes rules out waits for the kernel."""
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        return timed(lambda: list(threads.map(lambda send: send(), senders)))[1]


def _packed(netlink: NetlinkSocket, tables: Tables, numbers: Mapping[str, int]) -> Callable[[], None]:
    steps = transaction.steps(tables)
    batch = transaction.batch(steps, numbers)

    def send() -> None:
        refused = netlink.transact(batch, len(steps))
        assert refused is None, f"the kernel refused {steps[refused[1] - 1].line}: {refused[0]}"

    return send


def _filled(identity: str, family: Family, netlink: NetlinkSocket) -> list[bytes]:
    (told,) = netlink.request(ipset.revision_query(identity, family))
    whole = contents(identity, family, TRACKED).members
    created = ipset.create(identity, family, len(whole), ipset.revision(told))
    return [created, *ipset.changes(identity, family, whole, adding=True)]


# --- pyroute2 --------------------------------------------------------------------------------------------------------


def by_pyroute2(crowd: Crowd, pods: int, life: int) -> float:
    """Seconds of the sets of as many *pods*, one entry after the other; no chains."""
    texts = [(set_name(*each), SOCKET_FAMILIES[each[1]], _texts(*each)) for each in NAMED]

    def fill(tool: IPSet) -> None:
        for name, family, entries in texts:
            tool.create(name, "hash:ip", family=family)
            for entry in entries:
                tool.add(name, entry, family=family)

    def one() -> float:
        with IPSet() as tool:
            return timed(lambda: fill(tool))[1]

    return sum(namespaces.inside(crowd.path(pod, life), one) for pod in range(pods))


def _texts(identity: str, family: Family) -> list[str]:
    return [addresses.unpack(member) for member in contents(identity, family, TRACKED).members]
