"""What the answer of an add call means: the record that is stored after it (rules P6, P7, P9, P12).

Not for: making the call, or recognising answers on the wire (`cce.errors`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Phase, Status
from nodepool_membership.core import conditions
from nodepool_membership.core.carry import is_lost
from nodepool_membership.core.catalogue import About, Entry
from nodepool_membership.core.decide import acknowledge
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.narrowing import narrow
from nodepool_membership.core.observation import Trouble
from nodepool_membership.core.plan import backoff
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State, to_status


@dataclass(frozen=True, slots=True)
class Accepted:
    """200 with a job id."""

    job_id: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly not sent: the connection was never made, or the process decided against it."""

    message: str


@dataclass(frozen=True, slots=True)
class NotNow:
    """Certainly refused because of the moment: locked or throttled. Costs no attempt."""

    reason: Reason
    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Certainly refused for a cause that is not the moment. Costs an attempt."""

    entry: Entry
    message: str
    said: str = ""
    """The cloud's text as it came, with the ids that it names."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """May or may not have been accepted: the servers are looked for, never sent again meanwhile."""

    message: str


Answer = Accepted | NotSent | NotNow | Refused | Unknown


def record(membership: Membership, intent: Batch, answer: Answer, now: datetime, settings: Settings) -> Status:
    """The status with the answer to `intent` in it, whatever the status held before.

    Not decided from the batch as stored: a status that lost it meanwhile gets it back (rule P9).
    """
    if is_lost(membership):
        # Other batches may have been lost with it: the wait of rule P2 begins, with the counter at 0 as its mark.
        membership = replace(membership, status=acknowledge(membership, now, settings))
        state = State.of(membership.status)
    else:
        state = State.of(membership.status)
        state = replace(state, last_batch=max(state.last_batch, intent.batch))
    match answer:
        case Accepted(job_id):
            running = replace(intent, phase=Phase.RUNNING, job_id=job_id)
            state = replace(state.with_batch(running), last_job_id=job_id)
            return _stored(membership, state, None, now)
        case Unknown(message):
            state = state.with_batch(replace(intent, phase=Phase.VERIFYING, message=plain_text(message)))
            return _stored(membership, state, None, now)
        case NotSent(message):
            state = state.with_batch(_closed(intent, Phase.WITHDRAWN, message, now))
            return _later(membership, state, Trouble(Reason.CLOUD_UNREACHABLE, message), now, settings)
        case NotNow(reason, message, retry_after):
            state = state.with_batch(_closed(intent, Phase.REFUSED, message, now))
            return _later(membership, state, Trouble(reason, message, retry_after), now, settings)
        case Refused(entry, message, said):
            text = plain_text(f"{plain_text(message, 600)}; {entry.remedy}")
            cause = Cause(entry.reason, text, intent.attempt)
            if entry.about is About.SERVER:
                return _stored(membership, narrow(state, intent, said, cause, now), None, now)
            state = state.with_batch(_closed(intent, Phase.REFUSED, text, now))
            state = state.with_causes((i, cause) for i in intent.server_ids)
            # The same answer awaits every other batch: they wait too.
            return _later(membership, state, Trouble(_reason(entry), text), now, settings)
        case _:
            assert_never(answer)


def _reason(entry: Entry) -> Reason:
    try:
        return Reason(entry.reason.value)
    except ValueError:
        return Reason.CALL_REFUSED


def _closed(intent: Batch, phase: Phase, message: str, now: datetime) -> Batch:
    return replace(intent, phase=phase, server_ids=(), finish_time=now, message=plain_text(message))


def _later(membership: Membership, state: State, why: Trouble, now: datetime, settings: Settings) -> Status:
    """Go back to unplanned ids plus a wait that grows with every refusal in a row (rule P7)."""
    wait = backoff(_refusals_in_a_row(state), state.last_batch, settings)
    if why.retry_after is not None:
        wait = max(wait, timedelta(seconds=why.retry_after))
    moment = now + wait if state.next_attempt is None else max(now + wait, state.next_attempt)
    return _stored(membership, replace(state, next_attempt=moment), why, now)


def _refusals_in_a_row(state: State) -> int:
    run = 0
    for batch in reversed(state.batches):
        if batch.phase in {Phase.REFUSED, Phase.WITHDRAWN}:
            run += 1
        elif not batch.is_open:
            break
    return run


def _stored(membership: Membership, state: State, why: Trouble | None, now: datetime) -> Status:
    status = to_status(membership.status, membership.spec, state)
    if state.halt is not None:
        verdict = conditions.halted(state.halt, status)
    else:
        verdict = conditions.progressing(status) if why is None else conditions.waiting(why)
    generation = max(membership.status.observed_generation, 0)
    return replace(status, conditions=conditions.conditions(membership.status, verdict, generation, now))
