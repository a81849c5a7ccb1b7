"""One Pod's connections, judged: those that a change forbids are cut, those from before its first rule are adopted.

Everything here blocks, mostly for milliseconds, and belongs into a thread. Sets are read as they are by then.
"""

import errno
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from enforcers.core import layout
from enforcers.core.connections import adopting
from enforcers.core.connections.adopting import Seen
from enforcers.core.connections.cutting import Cut, Judge, no_longer_allowed
from enforcers.core.difference import Sets
from enforcers.kernel import addressing
from enforcers.kernel.connections import conntrack
from enforcers.kernel.connections.conntrack import NodeTable
from enforcers.kernel.connections.socket_listing import any_sockets, sockets
from enforcers.kernel.sockets import NetlinkRefused, NetlinkSocket
from enforcers.runtimes.runtime import Sandbox
from schemas.programs import Program

MOST: Final = conntrack.PIECE
"""Connections that are adopted: some 0.1 ms each."""
ROUNDS: Final = 8
"""Each looks anew; a packet may undo what one did, but not without end: a connection whose entry stands right keeps
it."""


class Judged(msgspec.Struct, frozen=True):
    """What came of it."""

    cuts: list[Cut] = []
    unknown: int = 0
    """Kept: they go to virtual addresses, and the node does not know to which endpoint."""
    adopted: int = 0
    """Entries made or marked for connections that are allowed."""
    left: int = 0
    """Entries that were not made: their table is full, or they were too many."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What one Pod's connections are judged by."""

    sandbox: Sandbox
    mark: int
    node_netns: Path | None
    program: Program
    sets: Sets


def anything(netlink: NetlinkSocket, sandbox: Sandbox) -> bool:
    """Whether something may be connected in the Pod's namespace. Of a fresh one the kernel's counts say so: no walk."""
    if conntrack.usage(netlink)[0]:
        return True
    if not any_sockets(sandbox.netns):
        return False
    own = _addresses(sandbox)
    with closing(sockets(sandbox.netns)) as found:
        return any(adopting.anything(Seen([], [each], own)) for each in found)


def audit(netlink: NetlinkSocket, ground: Ground) -> Judged:
    """Clear the mark of every connection that is not allowed, or of a `PIECE` of them: then ask again."""
    with _judge(ground, _addresses(ground.sandbox)) as judge:
        marked = conntrack.each_marked(netlink, ground.mark)
        cuts, unknown = no_longer_allowed(marked, judge, most=conntrack.PIECE)
    conntrack.unmark(netlink, ground.mark, [cut.connection for cut in cuts])
    return Judged(cuts, unknown)


def adopt(netlink: NetlinkSocket, ground: Ground, before: Judged | None = None) -> Judged:
    """Give every connection that is there the entry and the mark that it should have.

    What a look *before* found is counted in. A Pod may have as many as it likes, and nobody waits for the last of
    a million: those beyond the `MOST` first are judged by their next packet.
    """
    cuts = {cut.connection.original: cut for cut in before.cuts} if before else {}
    adopted = before.adopted if before else 0
    unknown = left = 0
    for _ in range(ROUNDS):
        entries = conntrack.marked(netlink, 0, most=MOST)
        with closing(sockets(ground.sandbox.netns)) as every:
            seen = Seen(entries, list(islice(every, MOST)), _addresses(ground.sandbox))
            left = sum(1 for _ in every)
        with _judge(ground, seen.addresses) as judge:
            plan = adopting.plan(seen, judge, ground.mark)
        if left:  # an entry without a socket may be of one that was not looked at
            plan.over.clear()
        cuts = {cut.connection.original: cut for cut in plan.cuts} | cuts
        unknown = len(plan.unknown)
        if not plan:
            break
        adopted += conntrack.mark(netlink, ground.mark, plan.mark)
        conntrack.unmark(netlink, ground.mark, plan.unmark)
        conntrack.forget(netlink, plan.over)
        for number, entry in enumerate(plan.make):
            try:
                adopted += conntrack.add(netlink, ground.mark, entry) and entry.allowed
            except NetlinkRefused as error:
                if error.number != errno.ENOMEM:
                    raise
                return Judged(list(cuts.values()), unknown, adopted, left=left + len(plan.make) - number)
    return Judged(list(cuts.values()), unknown, adopted, left)


def _addresses(sandbox: Sandbox) -> dict[bytes, bool]:
    return addressing.passing(sandbox.netns, sandbox.addresses)


@contextmanager
def _judge(ground: Ground, own: Collection[bytes]) -> Iterator[Judge]:
    taken: dict[str, frozenset[bytes]] = {}

    def members(identity: str) -> frozenset[bytes]:
        """A copy, made in one step: the loop goes on changing the set while a thread looks for something in it."""
        if identity not in taken:
            taken[identity] = frozenset(ground.sets[identity].members)
        return taken[identity]

    with NodeTable(ground.node_netns) as node_table:
        yield Judge(
            program=ground.program,
            own=own,
            members=members,
            node=members(layout.NODE_SET),
            on_node=node_table.find,
        )
