"""Whether our clock can be trusted: against the cloud's, and against moments that were stored (rule P21).

Not for: reading a clock.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch
from nodepool_membership.core.observed.observation import MAX_SKEW, Observation, Trouble
from nodepool_membership.core.state.retry import MAX_IN_USE_WAIT, MAX_JITTER, MAX_SLOW_WAIT
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State

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


def corrected(state: State, spec: Spec, seen: Observation, now: datetime, settings: Settings) -> State:
    """Stored moments as far as this look can tell better."""
    if seen.tells_time:
        return _without_future(state, spec, now, settings)
    if seen.is_skewed and seen.clock_offset_seconds is not None:
        return _by_the_clouds(state, now, seen.clock_offset_seconds)
    return state


def _without_future(state: State, spec: Spec, now: datetime, settings: Settings) -> State:
    """Let moments that a clock which was ahead has stored count from `now`, and not only when they come.

    `now` must be by a clock that was compared with the cloud's: what it says is stored in place of what was there, and
    one that is behind would make the same moments look long past when it is right again.
    """
    longest = max(settings.settle_window, MAX_SLOW_WAIT * MAX_JITTER)
    judged = max(longest, MAX_IN_USE_WAIT * MAX_JITTER, timedelta(seconds=spec.join_timeout_seconds))
    batches, holds, failures, waits, recovery = state.batches, state.holds, state.failures, state.waits, state.recovery
    if any(_is_ahead(batch, now) for batch in batches):
        batches = tuple(_not_later(batch, now) for batch in batches)
    if any(held.since is not None and held.since > now for held in holds.values()):
        holds = {i: replace(held, since=held.since and min(held.since, now)) for i, held in holds.items()}
    if any(cause.retry_at is not None and cause.retry_at > now + judged for cause in failures.values()):
        failures = {i: replace(c, retry_at=c.retry_at and min(c.retry_at, now + judged)) for i, c in failures.items()}
    if any(wait.until > now + longest for wait in waits.values()):
        waits = {kind: replace(wait, until=min(wait.until, now + longest)) for kind, wait in waits.items()}
    if recovery is not None and recovery.until > now + settings.settle_window:
        recovery = replace(recovery, since=now, until=now + settings.settle_window)
    return replace(
        state,
        batches=batches,
        holds=holds,
        failures=failures,
        waits=waits,
        recovery=recovery,
        surplus_since=state.surplus_since and min(state.surplus_since, now),
    )


def _by_the_clouds(state: State, now: datetime, offset_seconds: float) -> State:
    """Count the removal delay from a look by a clock that is off; `offset_seconds`: the cloud's clock minus ours.

    Whether `surplusSince` was stored by this clock or by one that was right, nobody knows: rather the delay once more.
    """
    moment = (now + timedelta(seconds=offset_seconds)).replace(microsecond=0)
    return replace(state, surplus_since=moment) if state.surplus else state


def _is_ahead(batch: Batch, now: datetime) -> bool:
    moments = (batch.submit_time, batch.settling_since, batch.finish_time)
    return any(moment is not None and moment > now for moment in moments)


def _not_later(batch: Batch, now: datetime) -> Batch:
    return replace(
        batch,
        submit_time=batch.submit_time and min(batch.submit_time, now),
        settling_since=batch.settling_since and min(batch.settling_since, now),
        finish_time=batch.finish_time and min(batch.finish_time, now),
    )
