"""What the answer of a call means: the record that is stored after it (rules P6, P7, P9, P12).

Not for: making the call, or recognising answers on the wire (`cce.errors`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeGuard, assert_never

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Operation, Phase, Status, Wait
from nodepool_membership.core.decision.decide import acknowledge, recorded
from nodepool_membership.core.observed.catalogue import About, Entry
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.planning import narrowing
from nodepool_membership.core.servers import removals
from nodepool_membership.core.state.edits import apply_spec, is_lost
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.ledger import without_servers
from nodepool_membership.core.state.retry import backoff, in_use
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import KEPT_FINISHED, State, ended, finished


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
    state = replace(state, last_batch=max(state.last_batch, intent.batch))
    if stored is not None:
        intent = replace(intent, released=stored.released)
    if stored is None and isinstance(answer, Accepted | Unknown):
        state = _named_by(state, intent)
    # What the answer says holds for the servers as they are listed now, too.
    state = apply_spec(_answered(state, intent, answer, now, settings), membership)
    return recorded(membership, replace(state, surplus_since=state.surplus_since or now), now, settings)


def _named_by(state: State, intent: Batch) -> State:
    """The state in which no other batch names the intent's servers: its call is the newest that was made for them."""
    ids = frozenset(intent.server_ids)
    left = (b if ids.isdisjoint(b.server_ids) else without_servers(b, ids) for b in state.batches)
    return replace(state, batches=tuple(b for b in left if b.server_ids or not b.is_open))


def _answered(state: State, intent: Batch, answer: Answer, now: datetime, settings: Settings) -> State:  # noqa: PLR0911 - one match over all answers
    match answer:
        case Accepted(job_id):
            known = next((b for b in state.batches if b.batch == intent.batch), intent)
            message = None if known.interrupted else known.message
            # The job is followed to its end, also where the nodes seen so far were thought to be the end of it.
            running = replace(
                known, phase=Phase.RUNNING, job_id=job_id, settling_since=None, interrupted=None, message=message
            )
            state = replace(state.with_batch(running), last_job_id=job_id).without_waits(intent.operation)
            return narrowing.accepted(state, intent) if intent.operation is Operation.ADD else state
        case Unknown(message):
            return state.with_batch(replace(intent, phase=Phase.VERIFYING, message=plain_text(message)))
        case NotSent(message, reason):
            state = _given_back(state, intent, _closed(intent, Phase.WITHDRAWN, message, now))
            return _later(state, intent.operation, Trouble(reason, message), now, settings)
        case NotNow(reason, message, retry_after):
            state = _given_back(state, intent, _closed(intent, Phase.REFUSED, message, now))
            return _later(state, intent.operation, Trouble(reason, message, retry_after), now, settings)
        case Refused() if intent.operation is Operation.REMOVE:
            return _removal_refused(state, intent, answer, now, settings)
        case Refused(entry, message, said):
            text = plain_text(f"{plain_text(message, 600)}; {entry.remedy}")
            if entry.about is About.SERVER:
                return _refused_for_servers(state, intent, Refused(entry, text, said), now, settings)
            return _refused_for_all(state, intent, Refused(entry, text, said), now, settings)
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
            return waits and stored.settling_since is None and stored.server_ids == intent.server_ids
        case _:
            assert_never(answer)


def _with_job(status: Status, stored: Batch | None, answer: Answer) -> Status:
    """The status with the job of a batch that is over, if it was not known."""
    if stored is None or stored.is_open or stored.job_id is not None or not isinstance(answer, Accepted):
        return status
    told = replace(stored, job_id=answer.job_id)
    return replace(status, jobs=tuple(told if b.batch == told.batch else b for b in status.jobs))


def _refused_for_servers(state: State, intent: Batch, answer: Refused, now: datetime, settings: Settings) -> State:
    """Narrow it down (rule P15)."""
    entry, text, refusal = answer.entry, answer.message, narrowing.fingerprint(answer.message)
    if entry.reason is not FailureReason.SERVER_IN_USE:
        retry_at = now + backoff(intent.attempt, intent.batch, settings)
        cause = Cause(entry.failure, text, intent.attempt, retry_at)
        return narrowing.narrow(state, intent, answer.said, cause, refusal, now).without_waits(intent.operation)
    # Whoever uses a server may be seen by the next look: nobody is blamed, and it is narrowed down only if it is not.
    alone = len(intent.server_ids) == 1
    if alone or narrowing.named(answer.said, intent.server_ids) or narrowing.was_refused_last(state, refusal):
        known = state.failures.get(intent.server_ids[0]) if alone else None
        asked = (known.asked if known is not None else 0) + 1
        cause = Cause(entry.failure, text, intent.attempt - 1, now + in_use(asked, intent.batch, settings), asked)
        return narrowing.narrow(state, intent, answer.said, cause, refusal, now).without_waits(intent.operation)
    state = narrowing.refused(state.with_batch(_closed(intent, Phase.REFUSED, text, now)), intent, refusal)
    return _later(state, intent.operation, Trouble(entry.condition, text), now, settings)


def _refused_for_all(state: State, intent: Batch, answer: Refused, now: datetime, settings: Settings) -> State:
    """What is about the pool, the account or the moment; or about one server after all, which is found out first."""
    entry, text = answer.entry, answer.message
    if entry.may_be_one:
        cause = Cause(entry.failure, text, intent.attempt, now + backoff(intent.attempt, intent.batch, settings))
        asked = narrowing.ask(state, intent, answer.said, cause, narrowing.fingerprint(text), now)
        if asked is not None:
            return asked.without_waits(intent.operation)
    state = state.with_batch(_closed(intent, Phase.REFUSED, text, now))
    if entry.blames:
        cause = Cause(entry.failure, text, intent.attempt)
        causes = dict.fromkeys(intent.server_ids, cause)
        if entry.may_be_one:
            state, causes = narrowing.searched(state, intent, cause)
        state = state.with_causes(causes.items())
    # The same answer awaits every other batch: they wait too.
    slow = entry.about is not About.TRANSIENT
    return _later(state, intent.operation, Trouble(entry.condition, text), now, settings, slow=slow)


def _given_back(state: State, intent: Batch, closed: Batch) -> State:
    """A call that was not carried out for a passing reason costs no attempt (rule P12)."""
    state = state.with_batch(closed)
    if intent.operation is Operation.ADD:
        return state
    before = intent.attempt - 1
    cause = Cause(FailureReason.REMOVAL_FAILED, "an earlier removal failed, see status.jobs", before)
    return removals.give_back(state, closed, intent.server_ids, cause if before else None)


def _removal_refused(state: State, intent: Batch, answer: Refused, now: datetime, settings: Settings) -> State:
    """Nobody was removed. A state of cluster or nodes that passes, such as nodes that install, costs no attempt."""
    entry = answer.entry
    remedy = _MAY_REMOVE if entry.reason is FailureReason.FORBIDDEN else entry.remedy
    if entry.about is About.SERVER:
        remedy = removals.REMEDY
    text = plain_text(f"{plain_text(answer.message, 600)}; {remedy}")
    why, closed = Trouble(entry.condition, text), _closed(intent, Phase.REFUSED, text, now)
    if entry.about is About.TRANSIENT:
        state = _given_back(state, intent, closed)
    else:
        cause = Cause(FailureReason.REMOVAL_FAILED, text, intent.attempt)
        state = removals.give_back(state.with_batch(closed), closed, intent.server_ids, cause)
    return _later(state, intent.operation, why, now, settings)


_MAY_REMOVE: Final = "grant cce:node:remove to the owner of the key, and check spec.nodePool.projectID"


def _closed(intent: Batch, phase: Phase, message: str, now: datetime) -> Batch:
    told = plain_text(message)
    ids = intent.server_ids
    return replace(intent, phase=phase, server_ids=(), node_ids=(), called_ids=ids, finish_time=now, message=told)


def _later(
    state: State, operation: Operation, why: Trouble, now: datetime, settings: Settings, *, slow: bool = False
) -> State:
    """Go back to unplanned ids plus a wait that grows with every refusal in a row (rule P7).

    `slow`: somebody has to do something first, so the attempts must last longer.
    """
    wait = backoff(_refusals_in_a_row(state, operation), state.last_batch, settings, slow=slow)
    if why.retry_after is not None:
        wait = max(wait, timedelta(seconds=why.retry_after))
    before = state.waits_until(operation, now)
    until = now + wait if before is None else max(now + wait, before.until)
    return state.with_wait(Wait(operation, why.reason, plain_text(why.message), until))


def _refusals_in_a_row(state: State, operation: Operation) -> int:
    run = 0
    for batch in reversed(state.batches):
        if batch.operation is not operation or batch.is_open or batch.phase is Phase.QUEUED:
            continue
        if batch.phase not in {Phase.REFUSED, Phase.WITHDRAWN}:
            break
        run += 1
    return run
