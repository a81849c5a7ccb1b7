"""Where observations come from: one interface for API servers, manifests and captures."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from producers.core.observations import Observation, Trouble

Deliver = Callable[[Sequence[Observation]], Awaitable[None]]
"""Takes a batch; waits while the log is behind."""


class Source(Protocol):
    """Tells what exists. May be observed again and again: each time it begins with complete lists."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of which it tells complete lists."""
        ...

    async def check(self) -> Sequence[Trouble]:
        """What keeps it from telling complete lists now; nothing, if it can.

        Asked before an epoch begins, which ends that of whoever writes now: somebody who has nothing to tell must not.
        Raises `AccessInvalid` or `SourceInvalid` for what somebody has to mend.
        """
        ...

    async def observing(self, deliver: Deliver) -> None:
        """Deliver lists, then changes; return when nothing more will ever come, if that can be said.

        Raises `AccessInvalid` or `SourceInvalid` for what somebody has to mend; whatever may pass is waited for, and
        told as a `Trouble`.
        """
        ...
