"""How far the other nodes of a cluster are, by what their enforcers said last."""

from collections.abc import Iterable, Iterator
from typing import Final

from schemas.status import DEGRADED_AFTER, HEARTBEAT_SECONDS, Connectivity, CvenStatus, connectivity

LOOK_SECONDS: Final = 0.05
"""How often the nodes are gone through anew, however many Pods ask."""
NAMED: Final = 5
"""Nodes that an answer names at most."""
SILENT_SECONDS: Final = DEGRADED_AFTER * HEARTBEAT_SECONDS
"""Not even the own node's heartbeat came back for so long: nothing is heard any more."""


class Neighbours:
    """All nodes but *own*; *now* is any steady clock of the caller's, in seconds.

    Waited for is whoever is online and enforces. One that was not heard for three heartbeats is not, since it may be
    gone for good; nor is one that observes or is paused, which will not realize anything. All others are asked,
    whether a revision concerns them or not: whom it does not confirms its mark as soon as it comes.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._said: dict[str, tuple[CvenStatus, float]] = {}
        self._complete = False
        self._heard_at = 0.0
        self._server_ahead = 0.0  # of *now*: ages are by the clock of the server, which stored what was said
        self._waited_for: list[CvenStatus] = []
        self._looked_at = float("-inf")

    def take(self, said: Iterable[tuple[CvenStatus, float]], now: float, *, complete: bool) -> None:
        """Nodes said something, each stored so many seconds since the Unix epoch; *complete*: that is all there is.

        Whoever is not among all there is stays: a stream may be lost, and nobody has realized more for that.
        """
        self._complete = self._complete or complete
        news = {status.node: (status, stored_at) for status, stored_at in said}
        if news:
            self._said |= news
            self._heard_at = now
            self._server_ahead = max(stored_at for _, stored_at in news.values()) - now

    def forget(self) -> None:
        """Nobody listens any more."""
        self._said.clear()
        self._complete = False

    def lacking(self, revision: int, now: float) -> tuple[str, ...]:
        """Who of those waited for has not realized *revision*, and how far they are; or why nobody knows."""
        if not self._complete:
            return ("what other nodes have realized is being read",)
        if now - self._heard_at >= SILENT_SECONDS:
            return ("NATS is silent: what other nodes have realized is not known",)
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._waited_for = sorted(self._choose(now), key=lambda status: (status.realized, status.node))
        behind = [status for status in self._waited_for[: NAMED + 1] if status.realized < revision]
        named = [f"{each.node} has realized {each.realized}, not yet {revision}" for each in behind[:NAMED]]
        return (*named, "and further nodes") if len(behind) > NAMED else tuple(named)

    def _choose(self, now: float) -> Iterator[CvenStatus]:
        for status, stored_at in self._said.values():
            if status.node == self._own or status.observing or status.paused:
                continue
            age = max(0.0, now + self._server_ahead - stored_at)
            if connectivity(age) is Connectivity.ONLINE:
                yield status
