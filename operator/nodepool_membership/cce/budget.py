"""The client-side write budget: at most N writes in any 60 s for one endpoint and access key (rule P23).

Not for: reads, or waiting: it says how long, the caller waits. The measured limit of the cloud is 10 writes a minute,
refused calls counted (docs/cloud-facts.md, Limits).
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 60.0
FIRST_CLOSE_SECONDS: Final = 60.0
LONGEST_CLOSE_SECONDS: Final = 600.0
KEPT_SECONDS: Final = 30.0
"""So long after the moment it was told a waiter may come, before its turn is over: a look takes a while."""
_JITTER: Final = 0.1
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A place in the budget. It counts until it is given back, or for 60 s after its call has ended."""

    at: float


@dataclass(frozen=True, slots=True)
class _Turn:
    """Of one who waits: it is kept until then."""

    namespace: str
    until: float


class WriteBudget:
    """Times are seconds on a monotonic clock, passed in.

    Whoever asks (`who`: any text of its own) and finds no place has a turn: places that become free are kept for those
    whose turn is next. Namespaces that wait have as many places one as another, and in each of them first come is first
    served. One with many calls to make asks anew for each, so it queues behind all who wait.
    """

    def __init__(self, per_minute: int, *, random: Callable[[], float]) -> None:
        if per_minute < 1:
            raise ValueError(f"writes per minute must be at least 1, not {per_minute}")
        self._per_minute = per_minute
        self._random = random
        self._held: set[Taken] = set()
        self._ended: deque[float] = deque()
        self._turns: dict[str, _Turn] = {}
        """Who waits, in the order in which they came."""
        self._had: dict[str, int] = {}
        """By namespace: how many places it had, or the least of those who waited when it came, if that is more."""
        self._last = 0
        """What the last one that had a place had before."""
        self._closed_until = _NEVER
        self._closings = 0
        self._used = _NEVER

    def try_take(self, now: float, who: str, namespace: str) -> Taken | float:
        """Take a place, or the seconds (> 0) until one may be free for the one who asks.

        `give_back` or `ended` must follow: a place counts while its call may still arrive.
        """
        wait = self.until_turn(now, who, namespace)
        if wait > 0:
            return wait
        self._turns.pop(who, None)
        self._last = self._had[namespace]
        self._had[namespace] += 1
        place = Taken(now)
        self._held.add(place)
        return place

    def until_turn(self, now: float, who: str, namespace: str) -> float:
        """Seconds until a place may be free for the one who asks, 0 if one is. None is taken; the turn is kept."""
        self._prune(now)
        wait = max(self._wait(now, self._ahead(who, namespace)), 0.0)
        self._turns[who] = _Turn(namespace, now + wait + KEPT_SECONDS)
        self._used = now
        return wait

    def _ahead(self, who: str, namespace: str) -> int:
        """How many of those who wait have their turn before this one."""
        waiting = self._waiting()
        if namespace not in waiting:
            # What it did not use before it came gives it no more than the others have.
            least = self._least(waiting)
            self._had[namespace] = max(self._had.get(namespace, least), least)
        mine = waiting.setdefault(namespace, [])
        rounds = mine.index(who) if who in mine else len(mine)
        ahead, before, had = rounds, True, self._had[namespace] + rounds
        for name, others in waiting.items():
            if name == namespace:
                before = False
            else:
                ahead += min(max(had - self._had[name] + before, 0), len(others))
        return ahead

    def _waiting(self) -> dict[str, list[str]]:
        """Who waits, by namespace, all in the order in which they came."""
        waiting: dict[str, list[str]] = {}
        for who, turn in self._turns.items():
            waiting.setdefault(turn.namespace, []).append(who)
        return waiting

    def _least(self, waiting: Iterable[str]) -> int:
        return min((self._had[namespace] for namespace in waiting), default=self._last)

    def _prune(self, now: float) -> None:
        # The same sum as for the wait: then a place is free or the wait is above 0, whatever is rounded.
        while self._ended and self._ended[0] + WINDOW_SECONDS <= now:
            self._ended.popleft()
        self._turns = {who: turn for who, turn in self._turns.items() if turn.until >= now}
        waiting = self._waiting()
        least = self._least(waiting)
        self._had = {name: had for name, had in self._had.items() if name in waiting or had > least}

    def _wait(self, now: float, ahead: int) -> float:
        wait = self._closed_until - now
        # Seeded ones can be more than the budget: then more than one has to leave.
        leaving = len(self._held) + len(self._ended) + ahead + 1 - self._per_minute
        if leaving > len(self._ended):
            # They have not ended, or not even begun; then they count for another window.
            return max(wait, WINDOW_SECONDS * math.ceil((leaving - len(self._ended)) / self._per_minute))
        return max(wait, self._ended[leaving - 1] + WINDOW_SECONDS - now) if leaving > 0 else wait

    def seed(self, now: float, ages: Iterable[float]) -> None:
        """Count writes made before a restart, by their age in seconds; one from the future counts as made now."""
        before = (now - max(age, 0.0) for age in ages if age < WINDOW_SECONDS)
        self._ended = deque(sorted((*self._ended, *before)))
        self._used = now

    def ended(self, place: Taken, now: float) -> None:
        """The call of a place has been answered, or given up: it arrived, if ever, before now."""
        if place in self._held:
            self._held.remove(place)
            self._ended.append(now)
            self._used = now

    def give_back(self, place: Taken) -> None:
        """Return a place for which nothing was sent."""
        self._held.discard(place)

    def is_closed(self, now: float) -> bool:
        """Whether a throttled answer keeps it closed."""
        return now < self._closed_until

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
        return not self._held and now >= max(self._closed_until, self._used + LONGEST_CLOSE_SECONDS)


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
