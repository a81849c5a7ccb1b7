"""Why a Pod's rules have to be looked at."""

from enforcers.core.netlink.nftables import Generation


class Suspicion:
    """What was heard of one Pod since it was last looked at."""

    def __init__(self, since: float) -> None:
        self.since = since
        """When the first sign came."""
        self.changes: list[Generation] = []
        self.with_sets = False
        """Whether it is time to read its sets as well: nobody tells of these."""
        self.unheard = False
        """Whether rules may have changed that nobody told of."""

    def is_covered(self, right: int) -> bool:
        """Whether nothing is left to look for where rules were right after the change numbered *right*, as mostly: it
        was our own write that was heard."""
        return not self.with_sets and not self.unheard and all(is_covered(change, right) for change in self.changes)

    def processes(self, right: int) -> tuple[str, ...]:
        """Who changed rules after the change numbered *right*, as ``name[pid]``; each once."""
        changes = (change for change in self.changes if not is_covered(change, right))
        return tuple(dict.fromkeys(f"{change.process}[{change.pid}]" for change in changes))


def is_covered(change: Generation, right: int) -> bool:
    """Whether rules that were found right after the change numbered *right* were so after *change*; -1: never found.

    The numbers have 32 bits and go round.
    """
    return right >= 0 and (right - change.number) & 0xFFFFFFFF < 1 << 31
