"""Who may try to write, decided from what a Lease shows over time (coordination.k8s.io/v1)."""

import msgspec


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What of a Lease object decides."""

    holder: str = ""
    renew_time: str = ""
    resource_version: str = ""
    transitions: int = 0
    duration_seconds: float = 0.0


class Election:
    """Watches a Lease with one's own clock: clocks of different machines are never compared.

    A holder is taken for gone when nothing in its Lease has changed for as long as it promised to renew it in.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._seen: tuple[str, str] | None = None
        self._since = 0.0

    def free(self, lease: Lease, now: float) -> bool:
        """Whether *lease*, as read at *now* (monotonic seconds), may be taken."""
        if lease.holder in ("", self.identity):
            return True
        seen = (lease.holder, lease.renew_time)
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since >= lease.duration_seconds
