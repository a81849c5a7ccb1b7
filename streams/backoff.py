"""How long to wait before trying again."""

import asyncio
import random
from collections.abc import Awaitable, Callable


class Backoff:
    """Delays that grow by *factor* up to a limit, each shortened at random by up to half.

    The randomness keeps clients that lost the same server from coming back in step; at least half of the delay remains,
    so that a server that is starting is not hammered. Randomness and sleep are injected: tests take none of either.
    """

    def __init__(
        self,
        *,
        first_seconds: float = 0.1,
        limit_seconds: float = 5.0,
        factor: float = 2.0,
        uniform: Callable[[float, float], float] = random.uniform,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._first = first_seconds
        self._limit = limit_seconds
        self._factor = factor
        self._uniform = uniform
        self._sleep = sleep
        self.attempts = 0
        """Waits since the last success."""

    def reset(self) -> None:
        """A try succeeded: begin with the shortest delay again."""
        self.attempts = 0

    def delay(self) -> float:
        """Count one more failure and return the seconds to wait before the next try."""
        # The exponent is bounded: after weeks of failure the power would overflow before the limit is taken.
        ceiling = min(self._limit, self._first * self._factor ** min(self.attempts, 64))
        self.attempts += 1
        return self._uniform(ceiling / 2, ceiling)

    async def wait(self) -> None:
        """Count one more failure and sleep."""
        await self._sleep(self.delay())
