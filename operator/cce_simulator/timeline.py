"""Things that are due at a time, on a clock that is passed in.

Not for: sleeping or threads. Nothing happens by itself; `advance` catches up with what is due.
"""

import heapq
from collections.abc import Callable


class Timeline:
    """`now` is the clock at the last `advance`, and, while an action runs, the time that action was due."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.now = clock()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Run the action once `time` (seconds since 1970) has come; at equal times in the order they were given."""
        self._serial += 1
        heapq.heappush(self._due, (time, self._serial, action))

    def advance(self) -> float:
        """Run what is due, oldest first; the time."""
        now = self.clock()
        while self._due and self._due[0][0] <= now:
            self.now, _, action = heapq.heappop(self._due)
            action()
        self.now = now
        return now
