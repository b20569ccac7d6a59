"""What the answer of a call means: the record that is stored after it (rules P6, P7, P9, P12).

Not for: making the call, or recognising answers on the wire (`cce.errors`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeGuard, assert_never

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core import conditions, removals
from nodepool_membership.core.adding import quarantined
from nodepool_membership.core.batches import INTERRUPTED
from nodepool_membership.core.carry import is_lost
from nodepool_membership.core.catalogue import About, Entry
from nodepool_membership.core.decide import acknowledge
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.narrowing import ask, named, narrow, searched, was_refused_last
from nodepool_membership.core.observation import Trouble
from nodepool_membership.core.plan import backoff
from nodepool_membership.core.servers import sort_out
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import KEPT_FINISHED, State, ended, finished, to_status


@dataclass(frozen=True, slots=True)
class Accepted:
    """200 with a job id."""

    job_id: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly not sent: the connection was never made, or the process decided against it."""

    message: str
    reason: Reason = Reason.CLOUD_UNREACHABLE
    """`Progressing` for a decision of the process, which tells of no trouble."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """Certainly refused because of the moment: locked, throttled, a state that passes. Costs no attempt."""

    reason: Reason
    message: str
    retry_after: float | None = None
    by_gateway: bool = False
    """Said by the gateway, before CCE saw the call."""


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


def is_doubtful(answer: Answer) -> TypeGuard[Refused | NotNow]:
    """Whether an answer leaves open what was done, from a pool that carried out a refused call in part (rule P15)."""
    return isinstance(answer, Refused) or (isinstance(answer, NotNow) and not answer.by_gateway)


SEND_WITHIN: Final = timedelta(seconds=60)
"""Nothing is sent later than this after its submitTime (rule P5)."""


def too_late(signed_at: datetime, now: datetime) -> str | None:
    """Why a call signed then, with its intent's submitTime, must not be sent at this moment; None: it may (rule P5)."""
    # A clock that was set back meanwhile would make the signature good for longer than the settle window allows.
    if abs(now - signed_at) > SEND_WITHIN:
        return f"more than {SEND_WITHIN.seconds} s lie between the stored intent and the call"
    return None


def record(membership: Membership, intent: Batch, answer: Answer, now: datetime, settings: Settings) -> Status:
    """The status with the answer to `intent` in it, whatever the status held before.

    Not decided from the batch as stored: a status that lost it meanwhile gets it back (rule P9). What a successor has
    found out about the batch meanwhile outranks an answer that says less, or was stored already.
    """
    stored = next((b for b in membership.status.jobs if b.batch == intent.batch), None)
    if not _takes(stored, intent, answer, membership.status):
        return _with_job(membership.status, stored, answer)
    if is_lost(membership):
        # Other batches may have been lost with it: the wait of rule P2 begins.
        membership = replace(membership, status=acknowledge(membership, now, settings))
    state = State.of(membership.status)
    status = _answered(membership, state, intent, answer, now, settings)
    # The counter at 0 is the mark of that wait: with any other, an edit or a request would end it.
    return replace(status, last_batch=0) if quarantined(membership, state, now) else status


def _answered(
    membership: Membership, state: State, intent: Batch, answer: Answer, now: datetime, settings: Settings
) -> Status:
    # A removal is called while adding is halted, too.
    halt = conditions.halt_of(membership.status)
    state = replace(state, last_batch=max(state.last_batch, intent.batch), halt=halt)
    match answer:
        case Accepted(job_id):
            known = next((b for b in state.batches if b.batch == intent.batch), intent)
            message = None if known.message == INTERRUPTED else known.message
            # The job is followed to its end, also where the nodes seen so far were thought to be the end of it.
            running = replace(known, phase=Phase.RUNNING, job_id=job_id, finish_time=None, message=message)
            return _stored(membership, replace(state.with_batch(running), last_job_id=job_id), None, now)
        case Unknown(message):
            state = state.with_batch(replace(intent, phase=Phase.VERIFYING, message=plain_text(message)))
            return _stored(membership, state, None, now)
        case NotSent(message, reason):
            state = _given_back(state, intent, _closed(intent, Phase.WITHDRAWN, message, now))
            return _later(membership, state, Trouble(reason, message), now, settings)
        case NotNow(reason, message, retry_after):
            state = _given_back(state, intent, _closed(intent, Phase.REFUSED, message, now))
            return _later(membership, state, Trouble(reason, message, retry_after), now, settings)
        case Refused() if intent.operation is Operation.REMOVE:
            state, why = _removal_refused(state, intent, answer, now)
            return _later(membership, state, why, now, settings)
        case Refused(entry, message, said):
            text = plain_text(f"{plain_text(message, 600)}; {entry.remedy}")
            if entry.about is About.SERVER:
                return _refused_for_servers(membership, state, intent, Refused(entry, text, said), now, settings)
            cause = Cause(entry.failure, text, intent.attempt)
            if entry.may_be_one and (asked := ask(state, intent, said, cause, now)) is not None:
                return _stored(membership, asked, None, now)
            state = state.with_batch(_closed(intent, Phase.REFUSED, text, now))
            if entry.blames:
                state, causes = (
                    searched(state, intent, cause)
                    if entry.may_be_one
                    else (state, dict.fromkeys(intent.server_ids, cause))
                )
                state = state.with_causes(causes.items())
            # The same answer awaits every other batch: they wait too.
            slow = entry.about is not About.MOMENT
            return _later(membership, state, Trouble(entry.condition, text), now, settings, slow=slow)
        case _:
            assert_never(answer)


def _takes(stored: Batch | None, intent: Batch, answer: Answer, status: Status) -> bool:
    """Whether the answer says more than the status does.

    A batch that is over stays so: its servers may be in the next one already. Unless nothing was seen of its servers
    yet, a batch is not given up for a no: whoever made the nodes, they are followed to their end (rules P8, P11).
    """
    if stored is None:
        over = finished(status.jobs)
        if len(over) < KEPT_FINISHED:
            return True
        # If all that are kept ended after it was sent, it may have ended before them.
        since_before = intent.submit_time is None or ended(over[0]) <= intent.submit_time
        return since_before and min(b.batch for b in over) < intent.batch
    match answer:
        case Accepted():
            return stored.is_open and stored.job_id is None
        case Unknown():
            return stored.phase is Phase.SUBMITTING
        case NotSent() | NotNow() | Refused():
            waits = stored.phase in {Phase.SUBMITTING, Phase.VERIFYING} and stored.job_id is None
            return waits and stored.finish_time is None and stored.server_ids == intent.server_ids
        case _:
            assert_never(answer)


def _with_job(status: Status, stored: Batch | None, answer: Answer) -> Status:
    """The status with the job of a batch that is over, if it was not known."""
    if stored is None or stored.is_open or stored.job_id is not None or not isinstance(answer, Accepted):
        return status
    told = replace(stored, job_id=answer.job_id)
    return replace(status, jobs=tuple(told if b.batch == told.batch else b for b in status.jobs))


def _refused_for_servers(
    membership: Membership, state: State, intent: Batch, answer: Refused, now: datetime, settings: Settings
) -> Status:
    """Narrow it down (rule P15)."""
    entry, text = answer.entry, answer.message
    if entry.reason is not FailureReason.SERVER_IN_USE:
        state = narrow(state, intent, answer.said, Cause(entry.failure, text, intent.attempt), now)
        return _stored(membership, state, None, now)
    # Whoever uses a server may be seen by the next look: nobody is blamed, and it is narrowed down only if it is not.
    cause = Cause(entry.failure, text, intent.attempt - 1)
    if len(intent.server_ids) == 1 or named(answer.said, intent.server_ids) or was_refused_last(state, text):
        return _stored(membership, narrow(state, intent, answer.said, cause, now), None, now)
    state = state.with_batch(_closed(intent, Phase.REFUSED, text, now))
    return _later(membership, state, Trouble(entry.condition, text), now, settings)


def _given_back(state: State, intent: Batch, closed: Batch) -> State:
    """A call that was not carried out for a passing reason costs no attempt (rule P12)."""
    state = state.with_batch(closed)
    if intent.operation is Operation.ADD:
        return state
    before = intent.attempt - 1
    cause = Cause(FailureReason.REMOVAL_FAILED, "an earlier removal failed, see status.jobs", before)
    return removals.give_back(state, intent.server_ids, cause if before else None)


def _removal_refused(state: State, intent: Batch, answer: Refused, now: datetime) -> tuple[State, Trouble]:
    """Nobody was removed. A state of cluster or nodes that passes, such as nodes that install, costs no attempt."""
    entry = answer.entry
    remedy = _MAY_REMOVE if entry.reason is FailureReason.FORBIDDEN else entry.remedy
    if entry.about is About.SERVER:
        remedy = removals.REMEDY
    text = plain_text(f"{plain_text(answer.message, 600)}; {remedy}")
    why, closed = Trouble(entry.condition, text), _closed(intent, Phase.REFUSED, text, now)
    if entry.about is About.MOMENT:
        return _given_back(state, intent, closed), why
    cause = Cause(FailureReason.REMOVAL_FAILED, text, intent.attempt)
    return removals.give_back(state.with_batch(closed), intent.server_ids, cause), why


_MAY_REMOVE: Final = "grant cce:node:remove to the owner of the key, and check spec.nodePool.projectID"


def _closed(intent: Batch, phase: Phase, message: str, now: datetime) -> Batch:
    return replace(intent, phase=phase, server_ids=(), node_ids=(), finish_time=now, message=plain_text(message))


def _later(
    membership: Membership, state: State, why: Trouble, now: datetime, settings: Settings, *, slow: bool = False
) -> Status:
    """Go back to unplanned ids plus a wait that grows with every refusal in a row (rule P7).

    `slow`: somebody has to do something first, so the attempts must last longer.
    """
    wait = backoff(_refusals_in_a_row(state), state.last_batch, settings, slow=slow)
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
    state = sort_out(replace(state, surplus_since=state.surplus_since or now), membership)
    status = to_status(membership.status, membership.spec, state)
    if membership.metadata.deleting:
        verdict = conditions.deleting(status)
    elif state.halt is not None:
        verdict = conditions.halted(state.halt, status)
    else:
        verdict = conditions.progressing(status) if why is None else conditions.waiting(why)
    generation = max(membership.status.observed_generation, 0)
    return replace(status, conditions=conditions.conditions(membership.status, verdict, generation, now))
