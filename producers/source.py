"""Where observations come from: one interface for API servers, manifests and captures."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from producers.core.observations import Observation

Deliver = Callable[[Sequence[Observation]], Awaitable[None]]
"""Takes a batch; waits while the log is behind."""


class Source(Protocol):
    """Tells what exists. May be observed again and again: each time it begins with complete lists."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of which it tells complete lists."""
        ...

    async def observing(self, deliver: Deliver) -> None:
        """Deliver lists, then changes; return when nothing more will ever come, if that can be said.

        Raises `AccessInvalid` or `SourceInvalid` for what somebody has to mend; whatever may pass is waited for, and
        told as a `Trouble`.
        """
        ...
