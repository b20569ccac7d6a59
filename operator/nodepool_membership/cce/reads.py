"""How often one user reads from one service: at most N times in any second, less after the cloud has throttled one.

Not for: writes (`budget`), or what a failed look means for a membership (`runtime.cloud.error_mapping`). All who read
with a user share this, so what one of them is told slows all of them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from nodepool_membership.cce.errors import PausedError, ThrottledError

WINDOW_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 5.0
"""No read is made for so long after one was throttled, or longer if the cloud says so."""
RECOVERY_SECONDS: Final = 60.0
"""After so long without a throttled read there may be twice as many in a second again, up to the number asked for."""
_FORGET_SECONDS: Final = 3600.0

Waited = Callable[[float], None]
"""Told of the seconds for which a read waited for its place."""


def nobody(_seconds: float) -> None:
    """The default watcher."""


class ReadBudget:
    """One service and user. Times are seconds on `clock`."""

    def __init__(
        self,
        per_second: int,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        waited: Waited = nobody,
    ) -> None:
        if per_second < 1:
            raise ValueError(f"reads per second must be at least 1, not {per_second}")
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._waited = waited
        self.rate = per_second
        """So many reads may begin in a second now."""
        self._begun: deque[float] = deque(maxlen=per_second)
        """When the last ones began, or will."""
        self._paused_until = float("-inf")
        self._eased = clock()
        """When a read was throttled last, or the rate rose."""
        self._why = ThrottledError("")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Wait for a place, and make a read in the block. Places are given in the order in which they are asked for.

        Raises:
            PausedError: none is made, since the cloud asked for a pause.
        """
        self._check()
        now = self._clock()
        self._recover(now)
        begins = max(self._begun[-self.rate] + WINDOW_SECONDS, now) if len(self._begun) >= self.rate else now
        self._begun.append(begins)
        if begins > now:
            self._waited(begins - now)
            await self._sleep(begins - now)
            self._check()
        try:
            yield
        except ThrottledError as error:
            self._throttled(error)
            raise

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten: nothing is to be remembered of it."""
        last = self._begun[-1] if self._begun else self._eased
        return self._clock() >= max(last, self._paused_until, self._eased) + _FORGET_SECONDS

    def _check(self) -> None:
        left = self._paused_until - self._clock()
        if left > 0:
            why = self._why
            text = f"not asked: the cloud limits the reads of this key, and is left alone for a while; {why.message}"
            raise PausedError(text, status=why.status, code=why.code, retry_after=left)

    def _recover(self, now: float) -> None:
        if self.rate < self._per_second and now >= self._eased + RECOVERY_SECONDS:
            self.rate, self._eased = min(self.rate * 2, self._per_second), now

    def _throttled(self, error: ThrottledError) -> None:
        """Half as many from now on. Answers to reads that were under way meanwhile count as one with the first."""
        now = self._clock()
        if now >= self._paused_until:
            self.rate = max(self.rate // 2, 1)
        self._why, self._eased = error, now
        self._paused_until = max(self._paused_until, now + max(error.retry_after or 0.0, PAUSE_SECONDS))
        # Whoever is told waits as long, so that it is told the same thing again, and not that it was not asked.
        error.retry_after = self._paused_until - now


class ReadBudgets:
    """One per service's address and identity of the credentials."""

    def __init__(self, per_second: int, *, clock: Callable[[], float], waited: Waited = nobody) -> None:
        self._per_second = per_second
        self._clock = clock
        self._told = waited
        self._budgets: dict[tuple[str, str], ReadBudget] = {}

    def get(self, place: str, identity: str) -> ReadBudget:
        """The one of a user, made when it is first asked for; idle ones are dropped then."""
        key = (place, identity)
        if key not in self._budgets:
            self._budgets = {k: budget for k, budget in self._budgets.items() if not budget.is_idle}
            self._budgets[key] = ReadBudget(self._per_second, clock=self._clock, waited=self._told)
        return self._budgets[key]
