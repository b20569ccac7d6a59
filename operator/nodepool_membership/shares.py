"""A bound on what all namespaces use together, of which one that asks for much leaves as much to others as it has.

It is of bytes in memory, or of work under way. Not for: rates (`cce.reads`, `cce.budget`), or keys to be worked
(`runtime.scheduling`).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from typing import Final

Owners = Callable[[], Set[str]]
"""For which namespaces somebody waits; they may become more meanwhile. It is served in the turn of one of them."""


def only(owner: str) -> Owners:
    """Who waits for one namespace."""
    owners = frozenset({owner})
    return lambda: owners


class Share:
    """A part that is waited for, and then held until its block ends."""

    def __init__(self, shares: "Shares", owners: Owners, size: int) -> None:
        self._shares = shares
        self.owners = owners
        self.size = size
        self.turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Whose turn it was served in."""

    def shrink(self, size: int) -> None:
        """Give back what turned out not to be needed; a larger size than held is no error and changes nothing."""
        if size < self.size:
            self._shares.give_back(self.turn.result(), self.size - size)
            self.size = size


class Shares:
    """At most `limit` is held at once. A single part above the limit waits for all.

    Who was served longest ago is next, each first come first served; and one that holds something gets no more than it
    leaves for others. So nobody waits for more than what the others hold already.
    """

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._held: Counter[str] = Counter()
        self._waiting: list[Share] = []
        """In the order in which they came."""
        self._served: dict[str, int] = {}
        """When each was served last, as a count, as long as anything is held."""
        self._count = 0

    @asynccontextmanager
    async def hold(self, owners: Owners, size: int = 1) -> AsyncIterator[Share]:
        """Wait until so much is free for one of the owners, and hold it until the block ends."""
        held = Share(self, owners, min(size, self._limit))
        self._waiting.append(held)
        self.serve()
        try:
            await held.turn
            yield held
        finally:
            if held in self._waiting:
                self._waiting.remove(held)
                self.serve()
            else:
                held.shrink(0)

    def give_back(self, owner: str, size: int) -> None:
        self._held[owner] -= size
        self.serve()

    def serve(self) -> None:
        """Let those go on who may; to be called when one who waits does so for another owner, too."""
        while (found := self._next()) is not None:
            owner, held = found
            self._waiting.remove(held)
            self._held[owner] += held.size
            self._count += 1
            self._served[owner] = self._count
            held.turn.set_result(owner)
        if not self._waiting and not self._held.total():
            self._served.clear()
            self._held.clear()

    def _next(self) -> tuple[str, Share] | None:
        """Whose turn it is, None if there is no room for the one whose turn it is."""
        free = self._limit - self._held.total()
        if free <= 0:
            return None
        found = [
            (self._served.get(owner, 0), place, owner)
            for place, held in enumerate(self._waiting)
            # One that was cancelled gives up, and has not come to that yet.
            if not held.turn.cancelled()
            for owner in held.owners()
            if not self._held[owner] or self._held[owner] + held.size <= free
        ]
        if not found:
            return None
        _, place, owner = min(found)
        held = self._waiting[place]
        return (owner, held) if held.size <= free else None
