"""Whether our clock can be trusted: against the cloud's, and against moments that were stored (rule P21).

Not for: reading a clock.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch
from nodepool_membership.core.observation import MAX_SKEW, Trouble
from nodepool_membership.core.plan import MAX_SLOW_WAIT
from nodepool_membership.core.settings import Settings

_JITTER: Final = 1.2
"""Waits are up to a fifth longer than their base."""


def skew(offset_seconds: float | None) -> Trouble | None:
    """The trouble of a clock that is off. `offset_seconds`: the cloud's clock minus ours, None if nobody looked."""
    if offset_seconds is None or abs(offset_seconds) <= MAX_SKEW.total_seconds():
        return None
    relation = "behind" if offset_seconds > 0 else "ahead of"
    text = (
        f"the clock of the operator's node is about {abs(offset_seconds) / 60:.0f} minutes {relation} the cloud's:"
        f" nothing is added while it is off by more than {MAX_SKEW.seconds // 60}; correct the node's time (NTP), the"
        " operator then goes on by itself"
    )
    return Trouble(Reason.CLOCK_SKEW, text)


def sane_wait(moment: datetime | None, now: datetime, settings: Settings) -> datetime | None:
    """A stored moment that calls wait for; one later than any wait lasts was stored by a clock that was ahead."""
    if moment is None:
        return None
    return min(moment, now + max(settings.settle_window, MAX_SLOW_WAIT * _JITTER))


def sane_batches(batches: tuple[Batch, ...], now: datetime) -> tuple[Batch, ...]:
    """Batches whose times are not in the future; one that was counts from now, and not only when that moment comes."""
    return tuple(_not_later(batch, now) for batch in batches) if any(_is_ahead(b, now) for b in batches) else batches


def _is_ahead(batch: Batch, now: datetime) -> bool:
    return any(moment is not None and moment > now for moment in (batch.submit_time, batch.finish_time))


def _not_later(batch: Batch, now: datetime) -> Batch:
    submitted, finished = batch.submit_time, batch.finish_time
    return replace(batch, submit_time=submitted and min(submitted, now), finish_time=finished and min(finished, now))
