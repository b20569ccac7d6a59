"""A bound on the bytes of objects that are in memory at once: what many workers share is memory, not connections.

Not for: rates (`cce`).
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Waiting = tuple[int, asyncio.Future[None]]


class HeldBytes:
    """A part of the budget, held by one reader."""

    def __init__(self, budget: "ByteBudget", owner: str, size: int) -> None:
        self._budget = budget
        self._owner = owner
        self._size = size

    def shrink(self, size: int) -> None:
        """Give back what turned out not to be needed; a larger size than held is no error and changes nothing."""
        if size < self._size:
            self._budget.give_back(self._owner, self._size - size)
            self._size = size

    @property
    def size(self) -> int:
        return self._size


class ByteBudget:
    """At most `limit` bytes are held at once. A single hold above the limit waits for all.

    Owners, which are namespaces, take turns, each first come first served; and one that holds something gets no more
    than it leaves for others. So nobody waits for more than what the others hold already.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()

    @asynccontextmanager
    async def hold(self, owner: str, size: int) -> AsyncIterator[HeldBytes]:
        """Wait until `size` bytes are free for the owner and hold them until the block ends."""
        size = min(size, self._limit)
        await self._take(owner, size)
        held = HeldBytes(self, owner, size)
        try:
            yield held
        finally:
            self.give_back(owner, held.size)

    async def _take(self, owner: str, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.setdefault(owner, deque()).append(entry)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back(owner, size)
            else:
                self._take_out(owner, entry)
                self._serve()
            raise

    def give_back(self, owner: str, size: int) -> None:
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
        self._serve()

    def _serve(self) -> None:
        while (owner := self._next()) is not None:
            size, turn = entry = self._waiting[owner][0]
            if turn.cancelled():
                # It gives up, and has not come to that yet.
                self._take_out(owner, entry)
                continue
            self._waiting.move_to_end(owner)
            self._take_out(owner, entry)
            self._held[owner] += size
            turn.set_result(None)

    def _next(self) -> str | None:
        """Whose turn it is, None if there is no room for the one whose turn it is."""
        free = self._limit - self._held.total()
        for owner, waiting in self._waiting.items():
            size, held = waiting[0][0], self._held[owner]
            if not held or held + size <= free:
                return owner if size <= free else None
        return None

    def _take_out(self, owner: str, entry: _Waiting) -> None:
        """Of those that wait, unless it was taken out before."""
        waiting = self._waiting.get(owner, deque())
        if entry in waiting:
            waiting.remove(entry)
        if not waiting:
            self._waiting.pop(owner, None)
