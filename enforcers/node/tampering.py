"""The record of what others changed in a node's Pods, and of when it was put back."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from enforcers.core.drift.contest import Contest
from enforcers.metrics import Metrics
from enforcers.runtimes.runtime import Sandbox
from schemas.status import Difference, Tampering
from streams.channels.reporting import now

RECENT: Final = 8
NAMED_DIFFERENCES: Final = 4
NAMED_PROCESSES: Final = 4

_log = structlog.get_logger("enforcers.node.tampering")


def tampering(api_uid: str, sandbox: Sandbox, differences: Sequence[Difference], processes: Sequence[str]) -> Tampering:
    """What was found now, cut to a size that can be told."""
    return Tampering(
        time=now(),
        uid=api_uid,
        namespace=sandbox.namespace,
        name=sandbox.name,
        differences=tuple(differences[:NAMED_DIFFERENCES]),
        more=max(0, len(differences) - NAMED_DIFFERENCES),
        processes=tuple(processes[:NAMED_PROCESSES]),
    )


class Tamperings:
    """By Pod: what is open, how often it was put back; and the newest few of all."""

    def __init__(self, metrics: Metrics) -> None:
        self.healed = 0
        self._metrics = metrics
        self._open: dict[str, tuple[Tampering, float]] = {}
        self._healed: deque[Tampering] = deque(maxlen=RECENT)
        self._contests: dict[str, Contest] = {}
        self._last: dict[str, Difference] = {}

    @property
    def recent(self) -> tuple[Tampering, ...]:
        """Oldest first."""
        known = [*self._healed, *(found for found, _ in self._open.values())]
        return tuple(sorted(known, key=lambda each: each.time)[-RECENT:])

    def find(self, uid: str, found: Tampering, since: float) -> None:
        """Someone changed what is ours; its first sign came at loop time *since*. More of what is open is not new."""
        self._last[uid] = found.differences[0]
        if uid in self._open:
            return
        self._open[uid] = found, since
        _log.warning(
            "rules or sets of ours changed by someone else",
            pod=f"{found.namespace}/{found.name}",
            by=", ".join(found.processes) or "unknown",
            changes="; ".join(map(str, found.differences)),
            more=found.more,
        )

    def heal(self, uid: str) -> None:
        """The Pod holds what it should, also where that was open."""
        if uid not in self._open:
            return
        found, since = self._open.pop(uid)
        seconds = asyncio.get_running_loop().time() - since
        self.healed += 1
        self._healed.append(replace(found, seconds=round(seconds, 6)))
        self._metrics.healing_seconds.observe(seconds)
        for kind in {each.kind for each in found.differences}:
            self._metrics.drift_healed.labels(kind).inc()
        _log.info(
            "put back what someone else changed",
            pod=f"{found.namespace}/{found.name}",
            milliseconds=round(seconds * 1000, 1),
        )

    def contest(self, uid: str) -> Contest:
        """How the Pod's heals went so far."""
        return self._contests.setdefault(uid, Contest())

    def trouble(self, uid: str) -> str:
        """Why the Pod cannot be said to hold its program; empty: no reason."""
        contest = self._contests.get(uid)
        if contest is None or not contest.contested:
            return ""
        return f"contested: someone keeps changing what is ours: {self._last[uid]}"

    def newest(self, uid: str) -> str:
        """What was found last of the Pod; empty: nothing."""
        return str(self._last.get(uid, ""))

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        for each in (self._open, self._contests, self._last):
            each.pop(uid, None)
