"""What may spoil enforcement in a namespace though every rule stands: a full connection table, and who uses our bit."""

from typing import Final

import msgspec

from enforcers.core.netlink import rule_listing
from enforcers.core.netlink.rule_listing import MarkRule
from enforcers.kernel import conntrack
from enforcers.kernel.sockets import NetlinkSocket

NEARLY_FULL: Final = 0.9


class Inspection(msgspec.Struct, frozen=True):
    """One look into a namespace."""

    connections: int = 0
    """Tracked now."""
    limit: int = 0
    """How many may be; 0: unknown. From there on new connections are dropped by the kernel."""
    mark_rules: tuple[MarkRule, ...] = ()
    """Foreign rules that may change our bit of a connection's mark."""

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
        if self.share >= NEARLY_FULL:
            found.append(f"its connection table is full to {NEARLY_FULL:.0%} or more of {self.limit} connections")
        return found


def inspect(netlink: NetlinkSocket, bits: int) -> Inspection:
    """Look into the socket's namespace; *bits* of the mark are ours.

    Raises `NetlinkRefused`. Blocks for some microseconds per rule; rules of iptables-legacy are not seen.
    """
    rules = (rule_listing.parse(body) for _, body in netlink.dump(rule_listing.dump_request()))
    meddling = dict.fromkeys(rule for rule in rules if rule is not None and rule.bits & bits)
    return Inspection(*conntrack.usage(netlink), tuple(meddling))
