"""When a key is worked again: what follows from a decision, and how many seconds that is.

Not for: waiting (`runtime.scheduling.queue`), or what is due then (`core`).
"""

import math
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.spec import NodePoolRef
from nodepool_membership.core.decision.decide import Decision, Schedule
from nodepool_membership.core.program.memory import Memory

_SPREAD: Final = 0.05
_JITTER: Final = 0.1
_MAX_BACKOFF: Final = 300.0


@dataclass(frozen=True, slots=True)
class Requeue:
    """After the interval of `schedule`, not before `at_least` and not after `at_most` seconds."""

    schedule: Schedule
    backoffs: int = 0
    """Of a backoff: which one in a row it is."""
    at_least: float = 0.0
    at_most: float | None = None
    by_resync: bool = False
    """Not after the next resync either."""


NOW: Final = Requeue(Schedule.NOW)
AWAITED: Final = Requeue(Schedule.RESYNC)
"""Whoever awaits a snapshot is told when it is there; this is for the case that nobody does."""


def after(membership: Membership, decision: Decision, memory: Memory) -> Requeue:
    """What follows a decision whose status is stored in `membership`."""
    plain = Requeue(decision.schedule, memory.backoffs if decision.schedule is Schedule.BACKOFF else 0)
    delay = decision.delay
    if delay is None:
        return plain
    if memory.failed_reads:
        # The cloud may have asked for the delay: it is for looks, too.
        return Requeue(Schedule.BACKOFF, memory.backoffs, at_least=delay)
    # A call that waits for its time must keep neither an open job from being asked nor the rest from its resync.
    if membership.status.open_batches:
        return Requeue(plain.schedule, plain.backoffs, at_most=delay)
    if decision.schedule is Schedule.BACKOFF:
        return Requeue(Schedule.BACKOFF, memory.backoffs, at_least=delay, by_resync=True)
    return Requeue(Schedule.NOW, at_least=delay, by_resync=True)


def _share(text: str) -> float:
    """A number in [0, 1) that stays the same for the same text in every process."""
    return zlib.crc32(text.encode()) / 2**32


@dataclass(frozen=True, slots=True)
class Intervals:
    """Seconds, derived from the intervals of the command line."""

    poll: timedelta
    resync: timedelta

    def seconds(self, requeue: Requeue, pool: NodePoolRef, uid: str, now: datetime, jitter: float = 0.0) -> float:
        """Seconds from `now` on for the object `uid` of `pool`; `jitter` from -1 to 1 stretches polls and backoffs."""
        resync = self.until_resync(pool, uid, now.timestamp())
        wait = resync if requeue.schedule is Schedule.RESYNC else self._interval(requeue) * (1 + _JITTER * jitter)
        wait = max(wait, requeue.at_least)
        if requeue.at_most is not None:
            wait = min(wait, requeue.at_most)
        return min(wait, resync) if requeue.by_resync else wait

    def _interval(self, requeue: Requeue) -> float:
        poll = self.poll.total_seconds()
        match requeue.schedule:
            case Schedule.NOW:
                return 0.0
            case Schedule.POLL:
                return poll
            case Schedule.WATCH:
                return 2 * poll
            case _:
                return min(poll * 2.0 ** min(requeue.backoffs, 16), _MAX_BACKOFF)

    def until_resync(self, pool: NodePoolRef, uid: str, now: float) -> float:
        """Seconds from `now` (Unix time) to the next resync of this object.

        Memberships of one cluster resync within a twentieth of the interval, so that they share one node listing;
        clusters are spread over the whole interval.
        """
        interval = self.resync.total_seconds()
        offset = (_share(pool.cluster_id) + _SPREAD * _share(uid)) * interval
        due = math.ceil((now - offset) / interval) * interval + offset
        wait = due - now
        return wait if wait > interval / 10 else wait + interval
