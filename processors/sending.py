"""Handing what a fold changes to the policy stream, while it is ours."""

import msgspec
import structlog

from processors.core.cluster_fold import ClusterFold
from processors.core.reading import Poison
from processors.metrics import Metrics
from schemas import names
from schemas.policy import PolicyChange
from streams.channels.policy_writer import PolicyWriter
from streams.errors import Fenced, OutcomeUnknown, ProgramTooLarge

_log = structlog.get_logger("processors.sending")


class Sending:
    """The owner's end of the policy stream of *fold*'s cluster. Without a writer, sending does nothing."""

    def __init__(self, fold: ClusterFold, metrics: Metrics) -> None:
        self._fold = fold
        self._refused = metrics.refused.labels(fold.inventory.cluster)
        self.writer: PolicyWriter | None = None

    async def send(self, change: PolicyChange) -> None:
        """Publish *change*, and with it that the fold's revision is complete.

        Losing the stream is no trouble here: whoever runs the writer learns of it by the writer's end, and then what
        is missing is published as a difference. Raises `MarkWouldGoBack`.
        """
        while (writer := self.writer) is not None:
            try:
                await writer.send(change, self._fold.revision, self._fold.time)
            except ProgramTooLarge as error:
                change = self._without(change, error)
            except (Fenced, OutcomeUnknown):
                self.writer = None
            else:
                return

    def _without(self, change: PolicyChange, error: ProgramTooLarge) -> PolicyChange:
        """*change* without the program that fits into no message: its Pod keeps the rules it has, and it is said."""
        _log.error("a program is too large", pod=error.uid, node=error.node, size=error.size, limit=error.limit)
        self._refused.inc()
        (large,) = (program for program in change.programs if (program.node, program.uid) == (error.node, error.uid))
        key = names.key("Pod", large.namespace, large.name)
        self._fold.inventory.fold_poison([Poison(self._fold.revision, key, str(error))])
        return msgspec.structs.replace(
            change, programs=tuple(program for program in change.programs if program is not large)
        )
