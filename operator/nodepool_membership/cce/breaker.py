"""An endpoint that does not answer is asked by one request at a time: all others that name it fail at once meanwhile.

Not for: what a failed look means for a membership (`runtime.cloud.error_mapping`), or keys that are refused
(`lockout`). Without it everybody who names such an endpoint holds a connection, a worker and a place among the
snapshots until a time-out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nodepool_membership.cce.errors import NotSentError

FIRST_WAIT: Final = 1.0
"""Seconds between the second failure in a row and the next try; it doubles."""
LONGEST_WAIT: Final = 30.0
_FORGET_SECONDS: Final = 3600.0


@dataclass(slots=True)
class Attempt:
    """What came of a call; where neither is set, it says nothing of the endpoint."""

    answered: bool = False
    silence: str | None = None
    """Why there was no answer: no connection, or not in time."""


class Breaker:
    """One endpoint. Times are seconds on `clock`."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._why = ""
        self._next_try = float("-inf")
        self._trying = False
        self._used = clock()

    @property
    def is_open(self) -> bool:
        """Whether its last call brought no answer."""
        return self._failures > 0

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten."""
        return not self._trying and self._clock() >= self._used + _FORGET_SECONDS

    @contextmanager
    def call(self) -> Iterator[Attempt]:
        """Make a call in the block, and note in the attempt what came of it.

        Raises:
            NotSentError: nothing was, since the endpoint does not answer.
        """
        self._used = self._clock()
        tries = self.is_open
        if tries and (self._trying or self._clock() < self._next_try):
            text = f"not asked: this endpoint gave no answer a moment ago ({self._why}); it is tried by one at a time"
            raise NotSentError(text)
        self._trying = self._trying or tries
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if tries:
                self._trying = False
            if attempt.answered:
                self._failures = 0
            elif attempt.silence is not None and (tries or not self._failures):
                self._failed(attempt.silence)

    def _failed(self, why: str) -> None:
        """The first failure may be its own: the next call tries at once. Then the waits grow."""
        self._why = why[:200]
        if self._failures:
            self._next_try = self._clock() + min(FIRST_WAIT * 2.0 ** min(self._failures - 1, 8), LONGEST_WAIT)
        self._failures += 1


class Breakers:
    """One per endpoint."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    def get(self, endpoint: str) -> Breaker:
        """The one of an endpoint, made when it is first asked for; idle ones are dropped then."""
        if endpoint not in self._breakers:
            self._breakers = {name: breaker for name, breaker in self._breakers.items() if not breaker.is_idle}
            self._breakers[endpoint] = Breaker(clock=self._clock)
        return self._breakers[endpoint]
