"""The record of the connections that were cut, since nothing allows them any more."""

from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from enforcers.core.connections import cutting
from enforcers.metrics import Metrics
from enforcers.runtimes.runtime import Sandbox
from schemas.status import Cut
from streams.channels.reporting import now

KEPT: Final = 20
"""They travel with every heartbeat."""
LOGGED: Final = 200
"""Of one tightening; the metric counts all. Words for thousands at once would hold up everybody else."""

_log = structlog.get_logger("enforcers.node.cuts")


class Cuts:
    """The newest few of a node."""

    def __init__(self, metrics: Metrics) -> None:
        self.recent: deque[Cut] = deque(maxlen=KEPT)
        """Oldest first."""
        self._metrics = metrics

    def record(self, sandbox: Sandbox, cuts: Sequence[cutting.Cut]) -> None:
        """These connections of the Pod in *sandbox* have ended."""
        pod, time = f"{sandbox.namespace}/{sandbox.name}", now()
        told = [
            Cut(
                time=time,
                pod=pod,
                connection=cutting.describe(each.connection),
                reason=each.judgement.reason.value,
                rule=each.judgement.rule,
                policies=each.judgement.isolating,
            )
            for each in cuts[-LOGGED:]
        ]
        for cut in told:
            _log.info(
                "connection cut",
                pod=pod,
                connection=cut.connection,
                reason=cut.reason,
                rule=cut.rule,
                policies=cut.policies,
            )
        if len(cuts) > len(told):
            _log.warning("more connections cut than told one by one", pod=pod, connections=len(cuts))
        self.recent.extend(told)
        self._metrics.cuts.inc(len(cuts))
