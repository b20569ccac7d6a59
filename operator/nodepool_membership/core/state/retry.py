"""How long is waited before something is tried again.

Not for: what is tried (`eligibility`), or when an object is looked at (`core.program.requeue`).
"""

import math
import zlib
from datetime import timedelta
from typing import Final

from nodepool_membership.core.state.settings import Settings

MAX_RETRY_WAIT: Final = timedelta(minutes=10)
MAX_SLOW_WAIT: Final = timedelta(hours=1)
MAX_IN_USE_WAIT: Final = timedelta(hours=6)
"""Between two calls that ask for a server which is in use elsewhere."""
MAX_JITTER: Final = 1.2
"""Waits are up to a fifth longer than their base."""
_SLOWER: Final = 20


def backoff(failures: int, seed: int, settings: Settings, *, slow: bool = False) -> timedelta:
    """Two poll intervals, doubled with every failure, at most 10 minutes, plus up to a fifth of jitter; whole seconds.

    `slow` waits are 20 times as long, at most an hour: somebody has to do something first. The jitter is drawn from
    `seed` and not from a clock, so that the same decision is the same twice.
    """
    poll = settings.poll_interval.total_seconds() * (_SLOWER if slow else 1)
    return _growing(poll, failures, seed, MAX_SLOW_WAIT if slow else MAX_RETRY_WAIT)


def in_use(asked: int, seed: int, settings: Settings) -> timedelta:
    """The wait before a server that is in use elsewhere is asked for again: doubled each time, at most 6 hours."""
    return _growing(settings.poll_interval.total_seconds(), asked, seed, MAX_IN_USE_WAIT)


def _growing(first: float, times: int, seed: int, longest: timedelta) -> timedelta:
    base = min(first * 2.0 ** min(max(times, 1), 24), longest.total_seconds())
    return timedelta(seconds=math.ceil(base * (1 + zlib.crc32(str(seed).encode()) / 2**32 / 5)))
