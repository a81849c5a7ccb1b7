"""What may spoil enforcement in a namespace though every rule stands: a full connection table, and who uses our bit."""

from typing import Final

import msgspec
from msgspec.structs import replace

from enforcers.core.netlink import rule_listing
from enforcers.core.netlink.rule_listing import MarkRule
from enforcers.kernel.connections import conntrack
from enforcers.kernel.rules import native
from enforcers.kernel.sockets import NetlinkSocket

NEARLY_FULL: Final = 0.9
RULES: Final = 1 << 14
NAMED: Final = 4
"""Rules that are looked at, and those that are named: a Pod may have any number, and others want to be heard too."""


class Inspection(msgspec.Struct, frozen=True):
    """One look into a namespace."""

    connections: int = 0
    """Tracked now."""
    limit: int = 0
    """How many may be; 0: unknown. From there on new connections are dropped by the kernel."""
    mark_rules: tuple[MarkRule, ...] = ()
    """Foreign rules that may change our bit of a connection's mark."""
    rules: int = 0
    """Everybody's, in all tables."""
    generation: int = -1
    """Number of the newest rule change by then."""

    @property
    def share(self) -> float:
        """How full its table is, from 0 to 1."""
        return self.connections / self.limit if self.limit else 0.0

    @property
    def problems(self) -> list[str]:
        """In words that stay the same as long as the problem does."""
        found = [
            f"a rule in table {each.table}, chain {each.chain} writes to the bit of the connection mark that is ours"
            for each in self.mark_rules
        ]
        if self.rules > RULES:
            found.append(f"of its {self.rules} rules the first {RULES} were looked at for who else writes to our bit")
        if self.share >= NEARLY_FULL:
            found.append(f"its connection table is full to {NEARLY_FULL:.0%} or more of {self.limit} connections")
        return found


def inspect(netlink: NetlinkSocket, bits: int, before: Inspection) -> Inspection:
    """Look into the socket's namespace; *bits* of the mark are ours. Rules that did not change since the look *before*
    are not read again.

    Raises `NetlinkRefused`. Blocks for some microseconds per rule; rules of iptables-legacy are not seen.
    """
    usage, generation = conntrack.usage(netlink), native.generation(netlink).number
    if generation == before.generation:
        return replace(before, connections=usage[0], limit=usage[1])
    meddling: dict[MarkRule, None] = {}
    number = 0
    for number, (_, body) in enumerate(netlink.stream(rule_listing.dump_request()), 1):
        rule = rule_listing.parse(body) if number <= RULES and len(meddling) < NAMED else None
        if rule is not None and rule.bits & bits:
            meddling[rule] = None
    return Inspection(*usage, tuple(meddling), number, generation)
