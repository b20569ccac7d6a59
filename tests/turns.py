"""Counting the turns of the event loop while something is awaited: who keeps it, keeps all others.

Not for: how long anything takes.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """How many there were."""

    count = 0

    async def turn(self) -> None:
        """Takes as many as it gets."""
        while True:
            self.count += 1
            await asyncio.sleep(0)


@contextmanager
def counted() -> Iterator[Turns]:
    """Those that others get while what is inside runs."""
    turns = Turns()
    turning = asyncio.create_task(turns.turn())
    try:
        yield turns
    finally:
        turning.cancel()
