"""The client-side write budget: at most N writes in any 60 s for one endpoint and access key (rule P23).

Not for: reads, or waiting: it says how long, the caller waits. The measured limit of the cloud is 10 writes a minute,
refused calls counted (dossier section 9.3).
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 60.0
FIRST_CLOSE_SECONDS: Final = 60.0
LONGEST_CLOSE_SECONDS: Final = 600.0
_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A place in the budget; counts from the moment it was taken unless it is given back."""

    at: float


class WriteBudget:
    """Times are seconds on a monotonic clock, passed in."""

    def __init__(self, per_minute: int, *, random: Callable[[], float]) -> None:
        if per_minute < 1:
            raise ValueError(f"writes per minute must be at least 1, not {per_minute}")
        self._per_minute = per_minute
        self._random = random
        self._taken: deque[Taken] = deque()
        self._closed_until = float("-inf")
        self._closings = 0
        self._used = float("-inf")

    def try_take(self, now: float) -> Taken | float:
        """Take a place, or the seconds (> 0) until one may be free."""
        # The same sum as for the wait: then a place is free or the wait is above 0, whatever is rounded.
        while self._taken and self._taken[0].at + WINDOW_SECONDS <= now:
            self._taken.popleft()
        wait = self._closed_until - now
        if len(self._taken) >= self._per_minute:
            # Seeded ones can be more than the budget: then more than one has to leave.
            wait = max(wait, self._taken[-self._per_minute].at + WINDOW_SECONDS - now)
        if wait > 0:
            return wait
        place = Taken(now)
        self._taken.append(place)
        self._used = now
        return place

    def seed(self, now: float, ages: Iterable[float]) -> None:
        """Count writes made before a restart, by their age in seconds; one from the future counts as made now."""
        before = (Taken(now - max(age, 0.0)) for age in ages if age < WINDOW_SECONDS)
        self._taken = deque(sorted((*self._taken, *before), key=lambda place: place.at))
        self._used = now

    def is_closed(self, now: float) -> bool:
        """Whether a throttled answer keeps it closed."""
        return now < self._closed_until

    def give_back(self, place: Taken) -> None:
        """Return a place for which nothing was sent."""
        if place in self._taken:
            self._taken.remove(place)

    def throttled(self, now: float, retry_after: float | None) -> None:
        """Close after a throttled answer: 60 s, doubled each time in a row up to 10 min, never less than asked for.

        Up to a tenth is added to each. `retry_after` in seconds. Answers to calls that were under way when it closed
        count as one with the answer that closed it.
        """
        if now >= self._closed_until or not self._closings:
            self._closings += 1
        seconds = min(FIRST_CLOSE_SECONDS * 2.0 ** min(self._closings - 1, 8), LONGEST_CLOSE_SECONDS)
        seconds = max(seconds, retry_after or 0.0) * (1 + _JITTER * self._random())
        self._closed_until = max(self._closed_until, now + seconds)
        self._used = now

    def passed(self) -> None:
        """A write was not throttled: the next closing is the first again."""
        self._closings = 0

    def is_idle(self, now: float) -> bool:
        """Whether it may be forgotten: unused for longer than it can be closed, or a call be under way."""
        return now >= max(self._closed_until, self._used + LONGEST_CLOSE_SECONDS)


class Budgets:
    """One budget per endpoint and identity of the credentials."""

    def __init__(self, per_minute: int, *, random: Callable[[], float], clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._random = random
        self._clock = clock
        self._budgets: dict[tuple[str, str], WriteBudget] = {}

    def get(self, endpoint: str, identity: str) -> WriteBudget:
        """The budget of a key, made when it is first asked for; idle ones are dropped now and then."""
        key = (endpoint, identity)
        if key not in self._budgets:
            now = self._clock()
            self._budgets = {k: b for k, b in self._budgets.items() if not b.is_idle(now)}
            self._budgets[key] = WriteBudget(self._per_minute, random=self._random)
        return self._budgets[key]
