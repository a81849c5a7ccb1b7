"""Connections that were there before a Pod's first rule: who began each, and what its entry has to be.

Once tracking starts, the kernel takes whichever packet of a connection it meets first for its first packet. Had the
server spoken, the entry stands the wrong way round, and a reply would be judged as a request. A namespace's sockets
know better, and for the rest its table and the node's:

    a connected socket ─┬─ its entry was translated, or seen to begin ─▶ as the entry says
                        ├─ a socket receives at its own port ──────────▶ it came in
                        ├─ its own port is one that clients get ───────▶ it went out
                        ├─ the node's table saw it begin ──────────────▶ as that says
                        └─ the other port is one that clients get ─────▶ it came in, else out

What has no socket here stays as the table has it: datagrams of unconnected sockets (but where the node saw who began),
what is forwarded for someone behind the Pod. A TCP entry that ends here and has no socket is of a connection that is
over, and goes.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from enforcers.core.connections.cutting import Cut, Judge
from enforcers.core.netlink.connections import Connection, Endpoints, Tracked
from enforcers.core.netlink.socket_diagnosis import Socket, SocketState
from schemas.addresses import TCP, UDP, is_loopback

CLIENT_PORTS: Final = range(32768, 65536)
"""Where a kernel takes the ports of those who connect, and seldom anybody receives."""

STATES: Final = {
    SocketState.ESTABLISHED: Tracked.ESTABLISHED,
    SocketState.SYN_SENT: Tracked.SYN_SENT,
    SocketState.SYN_RECEIVED: Tracked.SYN_RECEIVED,
    SocketState.NEW_SYN_RECEIVED: Tracked.SYN_RECEIVED,
    SocketState.FIN_WAIT_1: Tracked.FIN_WAIT,
    SocketState.FIN_WAIT_2: Tracked.CLOSE_WAIT,
    SocketState.CLOSE_WAIT: Tracked.CLOSE_WAIT,
    SocketState.CLOSING: Tracked.LAST_ACK,
    SocketState.LAST_ACK: Tracked.LAST_ACK,
}
BEGINNING: Final = (Tracked.SYN_SENT, Tracked.SYN_RECEIVED)


class Seen(msgspec.Struct, frozen=True):
    """What a namespace shows of its connections at one moment; the table is read first."""

    entries: list[Connection]
    sockets: list[Socket]
    addresses: Mapping[bytes, bool]
    """Every address of the namespace, and whether the Pod's interface carries it: what else is spoken to or from never
    meets our rules."""

    def apart(self, ends: Endpoints) -> bool:
        """Whether packets of it never pass the Pod's interface."""
        local = [self.addresses.get(each) for each in (ends.source, ends.destination)]
        return False in local or None not in local or any(map(is_loopback, (ends.source, ends.destination)))


def anything(seen: Seen) -> bool:
    """Whether rules that begin now could cut something short, or let it through unjudged."""
    return bool(seen.entries) or any(socket.connected and not seen.apart(socket.ends) for socket in seen.sockets)


class Entry(msgspec.Struct, frozen=True):
    """What the table has to hold of one connection."""

    original: Endpoints
    state: Tracked | None
    allowed: bool
    instead_of: Connection | None = None
    """The entry that stands the wrong way round."""


class Plan(msgspec.Struct, frozen=True):
    """What has to change; nothing once all is as it should be."""

    over: list[Connection]
    make: list[Entry]
    mark: list[Connection]
    unmark: list[Connection]
    cuts: list[Cut]
    """All that is not allowed, whether or not its entry has to change."""
    unknown: list[Connection]
    """Kept, since nobody knows the endpoint behind their virtual address."""

    def __bool__(self) -> bool:
        return bool(self.over or self.make or self.mark or self.unmark)


def plan(seen: Seen, judge: Judge, mark: int) -> Plan:
    """Compare what is *seen* with what *judge* allows; *mark* is the bit of what is allowed."""
    planning = _Planning(seen, judge, mark)
    matched = {id(entry) for socket in seen.sockets if (entry := planning.take(socket)) is not None}
    for entry in seen.entries:
        if id(entry) not in matched:
            planning.take_entry(entry)
    planning.plan.make.sort(key=lambda entry: not entry.allowed)  # where not all find room, these first
    return planning.plan


class _Planning:
    def __init__(self, seen: Seen, judge: Judge, mark: int) -> None:
        self.plan = Plan([], [], [], [], [], [])
        self._seen = seen
        self._judge = judge
        self._mark = mark
        self._entries = {ends: entry for entry in seen.entries for ends in (entry.original, entry.reply)}
        self._receiving = {
            (socket.ends.protocol, socket.ends.source_port) for socket in seen.sockets if socket.receiving
        }

    def take(self, socket: Socket) -> Connection | None:
        """Plan for a socket; return the entry that is its."""
        going = socket.ends
        entry = self._entries.get(going) or self._entries.get(going.reverse)
        if not socket.connected or self._seen.apart(going):
            return entry
        state = STATES[socket.state] if going.protocol == TCP else None
        if entry is not None and (entry.translated or (going.protocol == TCP and not entry.met_midway)):
            self._settle(entry, established=state not in BEGINNING)
        else:
            self._stand(going.reverse if self._came_in(going) else going, state, entry)
        return entry

    def take_entry(self, entry: Connection) -> None:
        """Plan for an entry that no connected socket owns."""
        ends = entry.original
        ends_here = not entry.translated and (ends.source in self._judge.own or ends.destination in self._judge.own)
        if ends_here and self._seen.apart(ends):
            return
        if ends_here and ends.protocol == TCP:
            self.plan.over.append(entry)
        elif ends_here and ends.protocol == UDP and self._began(ends) == ends.reverse:
            self._stand(ends.reverse, None, entry)
        else:
            self._settle(entry, established=False)

    def _came_in(self, going: Endpoints) -> bool:
        if (going.protocol, going.source_port) in self._receiving:
            return True
        if going.source_port in CLIENT_PORTS:
            return False
        began = self._began(going)
        return going.destination_port in CLIENT_PORTS if began is None else began == going.reverse

    def _began(self, ends: Endpoints) -> Endpoints | None:
        """The original direction, as the Pod sees it, if the node saw its beginning."""
        found = self._judge.on_node(ends)
        if found is None or found.met_midway:
            return None
        return ends if ends in (found.original, found.sent) else ends.reverse

    def _stand(self, original: Endpoints, state: Tracked | None, entry: Connection | None) -> None:
        """The entry of a connection that is not translated has to begin with *original*."""
        established = state not in BEGINNING
        if entry is not None and entry.original == original:
            self._settle(entry, established=established)
        else:
            allowed = self._allows(Connection(original, original.reverse, 0, b""), established=established)
            self.plan.make.append(Entry(original, state, allowed, entry))

    def _settle(self, entry: Connection, *, established: bool) -> None:
        """The entry stands the right way round, or as right as one can know; its mark has to fit."""
        if self._seen.apart(self._judge.wire(entry)):
            return
        marked = bool(entry.mark & self._mark)
        allowed = self._allows(entry, established=established or marked)
        if allowed and not marked:
            self.plan.mark.append(entry)
        elif marked and not allowed:
            self.plan.unmark.append(entry)

    def _allows(self, connection: Connection, *, established: bool) -> bool:
        """Notes also what cannot be judged, and what is to be reported as cut."""
        judgement = self._judge(connection)
        if judgement is None:
            self.plan.unknown.append(connection)
        elif not judgement.allowed and established:
            self.plan.cuts.append(Cut(connection, judgement))
        return judgement is None or judgement.allowed
