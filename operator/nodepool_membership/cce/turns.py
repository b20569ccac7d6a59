"""Whose work is done next where little may be under way at once: namespaces take turns.

Not for: rates (`reads`, `budget`), or bytes (`kube.budget`). Who asks may ask for several namespaces, and for more of
them while it waits: it is served in the turn of the first that has one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final


@dataclass(eq=False, slots=True)
class _Asked:
    """Somebody who waits, for whom, and for whom it is served in the end."""

    namespaces: Callable[[], Set[str]]
    served: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """At most `limit` are under way. A namespace that has some gets no more of them than it leaves for others."""

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self._under_way: Counter[str] = Counter()
        self._asked: list[_Asked] = []
        """In the order in which they came."""
        self._served: dict[str, int] = {}
        """When each namespace was served last, as a count, as long as anything is under way."""
        self._count = 0

    @asynccontextmanager
    async def take(self, namespaces: Callable[[], Set[str]]) -> AsyncIterator[None]:
        """Wait for a turn of one of the namespaces, which may become more, and have it until the block ends."""
        asked = _Asked(namespaces)
        self._asked.append(asked)
        self.serve()
        try:
            await asked.served
            yield
        finally:
            if asked in self._asked:
                self._asked.remove(asked)
            elif asked.served.done() and not asked.served.cancelled():
                self._under_way[asked.served.result()] -= 1
            self.serve()

    def serve(self) -> None:
        """Let those go on who may; to be called when one who waits does so for another namespace, too."""
        while (found := self._next()) is not None:
            namespace, asked = found
            self._asked.remove(asked)
            self._under_way[namespace] += 1
            self._count += 1
            self._served[namespace] = self._count
            asked.served.set_result(namespace)
        if not self._asked and not self._under_way.total():
            self._served.clear()
            self._under_way.clear()

    def _next(self) -> tuple[str, _Asked] | None:
        """Who was served longest ago, of those that leave as much as they have."""
        free = self._limit - self._under_way.total()
        if free <= 0:
            return None
        found = [
            (self._served.get(namespace, 0), place, namespace)
            for place, asked in enumerate(self._asked)
            if not asked.served.cancelled()
            for namespace in asked.namespaces()
            if not self._under_way[namespace] or self._under_way[namespace] + 1 <= free
        ]
        if not found:
            return None
        _, place, namespace = min(found)
        return namespace, self._asked[place]
