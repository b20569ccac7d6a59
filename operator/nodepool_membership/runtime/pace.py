"""When a membership is looked at again, in seconds.

Not for: what is due (`core`), or waiting (`queue`).
"""

import math
import random
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from nodepool_membership.api.spec import NodePoolRef
from nodepool_membership.core.decide import Pace

_SPREAD: Final = 0.05
_JITTER: Final = 0.1
_MAX_BACKOFF: Final = 300.0


def _share(text: str) -> float:
    """A number in [0, 1) that stays the same for the same text in every process."""
    return zlib.crc32(text.encode()) / 2**32


@dataclass(frozen=True, slots=True)
class Clock:
    """Waits derived from the intervals of the command line."""

    poll: timedelta
    resync: timedelta

    def seconds(self, pace: Pace, *, backoffs: int = 0) -> float:
        """The wait for a pace other than a resync, with jitter; the n-th backoff in a row doubles, up to 5 minutes."""
        poll = self.poll.total_seconds()
        match pace:
            case Pace.NOW:
                return 0.0
            case Pace.POLL:
                wait = poll
            case Pace.WATCH:
                wait = 2 * poll
            case _:
                wait = min(poll * 2.0 ** min(backoffs, 16), _MAX_BACKOFF)
        return wait * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, protects nothing

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
