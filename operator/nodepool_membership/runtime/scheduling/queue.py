"""A work queue of keys with the semantics of client-go's: a key is never worked twice at once, no call is lost.

Not for: doing the work (`workers`), or who is next (`fair_order`). One event loop, no locks.

`add` while the key is worked queues it again afterwards. A key has at most one timer, that of its last look: the
latest `add_after` replaces it, also by a later moment, and taking the key drops it, since every look decides anew
when the next one is due.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from time import monotonic
from typing import Final

from nodepool_membership.runtime.scheduling import fair_order

Key = fair_order.Key

_BASE_SECONDS: Final = 1.0
_MAX_SECONDS: Final = 300.0
_SLACK: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class _Timer:
    due: float
    serial: int
    key: Key = field(compare=False)


class WorkQueue:
    """Keys that are ready, being worked, or due later. Times are seconds on `clock`.

    Of `workers` that take keys one namespace has as many at once as are left for others; None: as many as it likes.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
    ) -> None:
        self._clock = clock
        self._random = random
        self._ready = fair_order.FairOrder(workers)
        self._known: set[Key] = set()
        """Keys that were worked before."""
        self._new: dict[Key, float] = {}
        """All others that were added, and since when."""
        self._began: float | None = None
        """When a key was first asked for: who does not lead keeps everybody waiting."""
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._heap: list[_Timer] = []
        self._timers: dict[Key, _Timer] = {}
        self._serial = 0
        self._failures: dict[Key, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, key: Key) -> None:
        """Make the key ready now; once is enough however often it is added."""
        if self._closed or key in self._ready:
            return
        if key in self._busy:
            self._again.add(key)
            return
        now = self._clock()
        is_new = key not in self._known
        if is_new:
            self._new.setdefault(key, now)
        self._ready.put(key, now, new=is_new)
        self._wake_one()

    def add_after(self, key: Key, seconds: float) -> None:
        """Make the key ready in so many seconds, instead of when an earlier call said."""
        if self._closed:
            return
        # A timer that has run out is a promise already: it is not replaced.
        self._promote()
        if seconds <= 0:
            self._timers.pop(key, None)
            self.add(key)
            return
        self._serial += 1
        timer = _Timer(self._clock() + seconds, self._serial, key)
        self._timers[key] = timer
        heapq.heappush(self._heap, timer)
        self._compact()
        self._set_alarm()

    def retry(self, key: Key) -> float:
        """Make the key ready after a backoff that doubles with every failure since `forget`; returns its seconds.

        From half of to 1 s, 2 s, 4 s ... 300 s.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(_MAX_SECONDS, _BASE_SECONDS * 2.0 ** min(failures, 16)) * (1 - self._random() / 2)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """The key did well: its next failure is its first."""
        self._failures.pop(key, None)

    def gone(self, key: Key) -> None:
        """The object is gone: one that is made under its name is new."""
        self._known.discard(key)

    def get_nowait(self) -> Key | None:
        """Take the next ready key, None if there is none that may be worked now; `done` must follow."""
        self._promote()
        if self._began is None:
            self._began = self._clock()
        key = None if self._closed else self._ready.take()
        if key is None:
            return None
        self._known.add(key)
        self._timers.pop(key, None)
        self._busy.add(key)
        return key

    async def get(self) -> Key | None:
        """Wait for a ready key and take it; None once the queue is closed."""
        while not self._closed:
            key = self.get_nowait()
            if key is not None:
                return key
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(turn)
            self._set_alarm()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_one()
                else:
                    self._getters.remove(turn)
                raise
        return None

    def done(self, key: Key) -> None:
        """The key taken by `get` has been worked."""
        self._busy.remove(key)
        self._ready.done(key)
        self._new.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif self._ready:
            # Its namespace may have one more now.
            self._wake_one()

    def close(self) -> None:
        """Give out no further key, and take none in. What is being worked goes on."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        while self._getters:
            self._wake_one()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        """How many keys are ready, without those due later."""
        return len(self._ready)

    @property
    def busy(self) -> int:
        return len(self._busy)

    def oldest_seconds(self) -> float:
        """How long the first of the ready keys has waited; 0 if none does."""
        oldest = self._ready.oldest()
        return 0.0 if oldest is None else self._clock() - oldest

    def oldest_new_seconds(self) -> float:
        """How long the first of the keys that were never worked has waited for the end of its first look, or 0."""
        # A copy, made in one step: the metrics are rendered in another thread.
        since = tuple(self._new.values())
        return self._clock() - max(min(since), self._began) if since and self._began is not None else 0.0

    def _promote(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0].due <= now:
            timer = heapq.heappop(self._heap)
            if self._timers.get(timer.key) is timer:
                del self._timers[timer.key]
                self.add(timer.key)

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._timers) + _SLACK:
            self._heap = list(self._timers.values())
            heapq.heapify(self._heap)

    def _wake_one(self) -> None:
        while self._getters:
            turn = self._getters.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _set_alarm(self) -> None:
        """Have one loop timer for the earliest due key, and only while somebody waits for it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._heap and self._getters:
            seconds = max(0.0, self._heap[0].due - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._promote()
        self._set_alarm()
