"""Whether our clock can be trusted: against the cloud's, and against moments that were stored (rule P21).

Not for: reading a clock.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch
from nodepool_membership.core.observation import MAX_SKEW, Observation, Trouble
from nodepool_membership.core.plan import MAX_SLOW_WAIT
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State

_JITTER: Final = 1.2
"""Waits are up to a fifth longer than their base."""

SET_BACK: Final = Trouble(
    Reason.CLOCK_SKEW, "the clock of the operator's node was set back during a look at the cloud; looking again"
)


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


def corrected(state: State, seen: Observation, now: datetime, settings: Settings) -> State:
    """Stored moments as far as this look can tell better."""
    if seen.tells_time:
        return _without_future(state, now, settings)
    if seen.is_skewed and seen.clock_offset_seconds is not None:
        return _by_the_clouds(state, now, seen.clock_offset_seconds)
    return state


def _without_future(state: State, now: datetime, settings: Settings) -> State:
    """Let moments that a clock which was ahead has stored count from `now`, and not only when they come.

    `now` must be by a clock that was compared with the cloud's: what it says is stored in place of what was there, and
    one that is behind would make the same moments look long past when it is right again.
    """
    batches = state.batches
    if any(_is_ahead(batch, now) for batch in batches):
        batches = tuple(_not_later(batch, now) for batch in batches)
    since = state.surplus_since
    return replace(
        state,
        batches=batches,
        next_attempt=_sane_wait(state.next_attempt, now, settings),
        surplus_since=since and min(since, now),
    )


def _by_the_clouds(state: State, now: datetime, offset_seconds: float) -> State:
    """Count the removal delay from a look by a clock that is off; `offset_seconds`: the cloud's clock minus ours.

    Whether `surplusSince` was stored by this clock or by one that was right, nobody knows: rather the delay once more.
    """
    moment = (now + timedelta(seconds=offset_seconds)).replace(microsecond=0)
    return replace(state, surplus_since=moment) if state.owed else state


def _sane_wait(moment: datetime | None, now: datetime, settings: Settings) -> datetime | None:
    """A moment that calls wait for; one later than any wait lasts was stored by a clock that was ahead."""
    if moment is None:
        return None
    return min(moment, now + max(settings.settle_window, MAX_SLOW_WAIT * _JITTER))


def _is_ahead(batch: Batch, now: datetime) -> bool:
    return any(moment is not None and moment > now for moment in (batch.submit_time, batch.finish_time))


def _not_later(batch: Batch, now: datetime) -> Batch:
    submitted, finished = batch.submit_time, batch.finish_time
    return replace(batch, submit_time=submitted and min(submitted, now), finish_time=finished and min(finished, now))
