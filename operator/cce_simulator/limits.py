"""The gateway's throttling: so many calls of a caller in any window, refused ones counted.

Not for: injected 429s (faults), nor for locks and task limits of CCE itself (world).
"""

from collections import defaultdict, deque
from collections.abc import Callable

from cce_simulator.errors import ApiError

MINUTE = 60.0
SECOND = 1.0


class CallLimit:
    """A sliding window per caller. `unit`: `minute` or `second`, as the gateway words it."""

    def __init__(self, unit: str, clock: Callable[[], float]) -> None:
        self._unit = unit
        self._seconds = {"minute": MINUTE, "second": SECOND}[unit]
        self._clock = clock
        self._calls: dict[str, deque[float]] = defaultdict(deque)

    def count(self, caller: str, limit: int) -> None:
        """Count a call. Raises ApiError 429 if more than `limit` (0: any number) fall into the window."""
        now = self._clock()
        calls = self._calls[caller]
        calls.append(now)
        while calls[0] <= now - self._seconds:
            calls.popleft()
        if limit and len(calls) > limit:
            raise ApiError(
                429,
                "APIGW.0308",
                "The throttling threshold has been reached: "
                f"policy user over ratelimit,limit:{limit},time:1 {self._unit}",
            )
