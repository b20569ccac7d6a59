"""A clock that a test sets, and waiting in real time for what nobody signals.

Not for: virtual time of a whole operator (`chaos.boundaries_time`).
"""

import asyncio
from collections.abc import Callable


class Clock:
    """Seconds, moved by hand: `clock.now += 5`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for callbacks, log lines, probes, other threads."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - that is the purpose
            await asyncio.sleep(0.005)
