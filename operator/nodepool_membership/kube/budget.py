"""A bound on the bytes of objects that are in memory at once: what many workers share is memory, not connections.

Not for: rates (`cce`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class HeldBytes:
    """A part of the budget, held by one reader."""

    def __init__(self, budget: "ByteBudget", size: int) -> None:
        self._budget = budget
        self._size = size

    def shrink(self, size: int) -> None:
        """Give back what turned out not to be needed; a larger size than held is no error and changes nothing."""
        if size < self._size:
            self._budget.give_back(self._size - size)
            self._size = size

    @property
    def size(self) -> int:
        return self._size


class ByteBudget:
    """At most `limit` bytes are held at once, first come first served. A single hold above the limit waits for all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[HeldBytes]:
        """Wait until `size` bytes are free and hold them until the block ends."""
        size = min(size, self._limit)
        await self._take(size)
        held = HeldBytes(self, size)
        try:
            yield held
        finally:
            self.give_back(held.size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)
            else:
                self._waiting.remove(entry)
                self._serve()
            raise

    def give_back(self, size: int) -> None:
        self._free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)
