"""When to tell again what rarely changes."""

from typing import Final

from schemas.status import Status

AGAIN_SECONDS: Final = 600.0
"""The status stream forgets what is old, and may be lost with its server."""


class Told:
    """Remembers which status was told last, and when."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._again_at = 0.0

    def is_news(self, status: Status, now: float) -> bool:
        """Whether *status* has to be told *now* (seconds of a clock that never goes back); then it counts as told."""
        if status == self._status and now < self._again_at:
            return False
        self._status, self._again_at = status, now + AGAIN_SECONDS
        return True
