"""How often to put something back that someone else keeps changing."""

from collections import deque
from typing import Final

HEALS_PER_MINUTE: Final = 5
MINUTE_SECONDS: Final = 60.0
FIRST_SECONDS: Final = 2.0
LIMIT_SECONDS: Final = 300.0


class Contest:
    """One Pod's heals. Times are seconds of any one clock that only goes forward."""

    def __init__(self) -> None:
        self.contested = False
        """Someone changed ours more often than we put it back without waiting."""
        self._heals: deque[float] = deque(maxlen=HEALS_PER_MINUTE + 1)
        self._wait = 0.0

    def wait(self, now: float) -> float:
        """Seconds until it may be put back again."""
        return max(0.0, self._heals[-1] + self._wait - now) if self._heals else 0.0

    def heal(self, now: float) -> None:
        """It is put back now. More than five times a minute is a contest; each round of it waits twice as long."""
        self._heals.append(now)
        if len(self._heals) > HEALS_PER_MINUTE and now - self._heals[0] < MINUTE_SECONDS:
            self.contested = True
        if self.contested:
            self._wait = min(LIMIT_SECONDS, self._wait * 2 or FIRST_SECONDS)

    def rest(self, now: float) -> None:
        """It is as it should be. For a minute after the last heal that says nothing yet."""
        if self.contested and now - self._heals[-1] >= MINUTE_SECONDS:
            self.contested, self._wait = False, 0.0
            self._heals.clear()
