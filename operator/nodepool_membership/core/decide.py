"""The one decision: from an object and what was seen of the cloud to its new status and the next step.

Not for: I/O or the answer of a call (`calls`). The same input gives the same answer; applied twice it changes nothing.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Leaving, Spec
from nodepool_membership.api.status import Batch, Phase, Status
from nodepool_membership.core import (
    adding,
    batches,
    clock,
    conditions,
    drift,
    plan,
    removals,
    removing,
    rivals,
    servers,
)
from nodepool_membership.core.adding import Step
from nodepool_membership.core.carry import carry_over, is_lost, requested, reset_requested
from nodepool_membership.core.conditions import Preview, Verdict
from nodepool_membership.core.drift import Absences
from nodepool_membership.core.observation import Freshness, Look, NodeTable, Observation
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State, to_status

LOOKS_BEFORE_UNKNOWN: Final = 3
NO_CREDENTIALS: Final = frozenset({Reason.SECRET_NOT_FOUND, Reason.CREDENTIALS_INVALID})
WITHOUT_CREDENTIALS: Final = timedelta(minutes=10)
"""How long a deleted object is held that cannot be followed up, because its Secret is gone (rule P20)."""


class Pace(StrEnum):
    """When to look again."""

    NOW = "Now"
    POLL = "Poll"
    WATCH = "Watch"
    """Nodes are watched for an outcome: a listing is dearer than a job."""
    RESYNC = "Resync"
    BACKOFF = "Backoff"
    """Something was in the way: with growing waits."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to store, the batch in it that is then to be sent, and when to look again.

    `holds` says whether the finalizer must stay; it may be taken off only after `status` is stored.
    `delay` is in seconds and outranks `pace`.
    """

    status: Status
    intent: Batch | None
    holds: bool
    pace: Pace
    delay: float | None = None
    absences: Absences = field(default_factory=dict)
    """What `Observation.absences` is to hold next time; kept in memory, losing it costs time only."""
    doubted: bool = False
    """A refused call was carried out in part: no later refusal of this pool is to be trusted (rule P15)."""

    def must_hold(self, membership: Membership) -> bool:
        """Whether the finalizer has to be put on although nothing is sent: a deletion would have something to do."""
        would_remove = membership.spec.deletion_policy is Leaving.REMOVE and self.status.members
        wanted = would_remove or self.status.surplus
        return bool(wanted) and not membership.metadata.deleting and FINALIZER not in membership.metadata.finalizers


def acknowledge(membership: Membership, now: datetime, settings: Settings) -> Status:
    """The status for a generation not seen before, from what is recorded alone, before the cloud is looked at."""
    state = carry_over(membership, now, settings)
    status = to_status(membership.status, membership.spec, state)
    if membership.metadata.deleting:
        verdict = conditions.deleting(status)
    elif membership.spec.suspend:
        verdict = conditions.suspended(status, None)
    elif adding.quarantined(membership, state, now):
        verdict = conditions.waiting(adding.STATUS_LOST)
    else:
        verdict = conditions.progressing(status)
    generation = membership.metadata.generation
    # A request is answered by looking, not by this: an unanswered one must survive a crash. But a reset found beside
    # a lost status may be an old one whose answer was lost too: it must not end the wait.
    reset = reset_requested(membership) if is_lost(membership) else None
    return replace(
        status,
        observed_generation=generation,
        conditions=conditions.conditions(membership.status, verdict, generation, now),
        last_handled_reset_at=reset or status.last_handled_reset_at,
    )


def decide(membership: Membership, seen: Observation, now: datetime, settings: Settings) -> Decision | Look:
    """Decide what is to be stored and done, or ask for what has to be known first.

    Rules: P1..P3, P7, P8, P10..P13, P15, P16, P18..P20, P25, P26. `now` is aware, whole seconds.
    """
    state = carry_over(membership, now, settings)
    if seen.trouble is not None:
        return _in_trouble(membership, state, seen, now, settings)
    spec = membership.spec
    unknown_jobs = tuple(j for j in batches.jobs_to_ask(state) if j not in seen.jobs)
    if unknown_jobs:
        return Look(jobs=unknown_jobs)
    mine = replace(membership, spec=rivals.ours(spec, seen.rivals or {}))
    wanted = _listing_wanted(mine, state, seen, now, settings)
    if wanted is not None:
        return Look(listing=wanted)
    if seen.is_set_back(now):
        return _in_trouble(membership, state, replace(seen, trouble=clock.SET_BACK), now, settings)
    state = batches.settle(clock.corrected(state, seen, now, settings), spec, seen, now, settings)
    state = servers.sort_out(removals.settle(state, spec, seen, now, settings), membership)
    if batches.must_brake(membership.status.jobs, state.batches):
        state = replace(state, halt=Reason.TOO_MANY_FAILURES)
    preview, absences = None, seen.absences
    if seen.listing is not None and seen.rivals is not None:
        if spec.suspend:
            theirs = rivals.withheld(spec, state, seen.rivals)
            preview = _preview(mine, state, seen.listing, now, settings)
            preview = replace(preview, conflict=rivals.told(theirs) if theirs else "")
        else:
            state = removing.without_claimed(rivals.concede(state, seen.rivals), seen.rivals)
            absences = _count_absences(state, spec, seen, settings)
            if not membership.metadata.deleting:
                state = servers.compare(state, mine.spec, seen.listing, now, _vanished(state, seen.listing, absences))
            state = removing.without_lost(state, spec, seen, drift.gone(absences))
    step = adding.next_add(mine, state, seen, now, settings)
    if isinstance(step, Step):
        step = removing.next_removal(membership, step, seen, now, settings)
    if isinstance(step, Look):
        return step
    return replace(_conclude(membership, step, preview, seen, now, settings), absences=absences)


def _count_absences(state: State, spec: Spec, seen: Observation, settings: Settings) -> Absences:
    if seen.listing is None or not seen.proves_absence(spec.node_pool.node_pool_id):
        return seen.absences
    known = state.members | state.owed | servers.holding_nodes(state)
    absent = known - seen.listing.present(known)
    return drift.track(seen.absences, absent, seen.listing.begun, settings.resync_interval)


def _vanished(state: State, table: NodeTable, absences: Absences) -> servers.Vanished:
    # One that has come back since it was last counted is no more gone than one that never left.
    gone = frozenset(server_id for server_id in drift.gone(absences) if server_id not in table)
    return servers.Vanished(gone, drift.is_implausible(len(absences.keys() & state.members), len(state.members)))


def _in_trouble(membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings) -> Decision:
    trouble = seen.trouble
    if trouble is None:
        raise ValueError("called without a trouble")
    status = to_status(membership.status, membership.spec, state)
    ready = membership.status.condition("Ready")
    current = membership.status.observed_generation == membership.metadata.generation
    was_ready = current and ready is not None and ready.status == "True"
    if membership.metadata.deleting:
        verdict = conditions.waiting(replace(trouble, message=f"deleting; {trouble.message}"))
    elif was_ready and seen.failed_looks < LOOKS_BEFORE_UNKNOWN:
        # Nobody looked, so nothing is known to have changed; a request stays unanswered too.
        holds = _keeps_finalizer(membership, membership.status)
        return Decision(membership.status, None, holds=holds, pace=Pace.BACKOFF)
    elif current and ready is not None and ready.status in {"True", "Unknown"} and ready.reason is not Reason.PENDING:
        verdict = conditions.unreachable(trouble)
    elif state.halt is not None:
        verdict = conditions.halted(state.halt, status)
    else:
        verdict = conditions.waiting(trouble)
    holds = _holds(membership, status, verdict, now, settings)
    status = _concluded(membership, status, verdict, now, answered=False)
    return Decision(status, None, holds, Pace.BACKOFF, trouble.retry_after)


def _listing_wanted(
    membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings
) -> Freshness | None:
    spec = membership.spec
    follows = any(batches.needs_nodes(b, spec, seen, now) for b in state.open_batches)
    odd = removing.is_owed_since_the_future(state, now)
    if follows or odd or removing.may_remove(membership, state, now, settings):
        return None if seen.is_fresh else Freshness.AFTER_READ
    if membership.metadata.deleting:
        return None
    free = plan.candidates(state, spec)
    if seen.listing is None:
        coming = state.queued or any(plan.may_come(i, state, spec) for i in free)
        may_plan = coming and adding.may_add(membership, state, now)
        if state.open_batches and not may_plan and requested(membership) is None:
            return None
        return Freshness.AFTER_READ if requested(membership) is not None else Freshness.RECENT
    if seen.is_fresh or spec.suspend:
        return None
    if state.queued:
        # All there, they are the proof that the refused call was carried out: planning must see it (rule P15).
        return Freshness.AFTER_READ
    mine = spec.server_ids - state.engaged
    all_there = len(seen.listing.active_in(spec.node_pool.node_pool_id, mine)) == len(mine)
    return None if all_there else Freshness.AFTER_READ


def _preview(membership: Membership, state: State, table: NodeTable, now: datetime, settings: Settings) -> Preview:
    spec = membership.spec
    adopt = len(servers.adoptable(state, spec, table))
    would = plan.eligible(servers.compare(state, spec, table, now, servers.Vanished()), spec, table, now, settings)
    add = would.total if isinstance(would, plan.Eligible) else 0
    add += sum(len(spec.server_ids & frozenset(part.server_ids)) for part in state.queued)
    return Preview(add, -(-add // spec.batch_size), adopt, remove=len(state.owed))


def _conclude(
    membership: Membership, step: Step, preview: Preview | None, seen: Observation, now: datetime, settings: Settings
) -> Decision:
    spec = membership.spec
    status = to_status(membership.status, spec, step.state)
    overdue = any(batches.is_overdue(b, spec, seen, now) for b in status.open_batches)
    if membership.metadata.deleting:
        verdict = conditions.deleting(status, step.hindrance)
    elif spec.suspend:
        # A poll of an open job reads no nodes: what the preview said then stays said.
        verdict = _suspended(membership, status, preview)
    elif step.state.halt is not None:
        verdict = conditions.halted(step.state.halt, status)
    elif step.hindrance is not None:
        verdict = step.hindrance
    elif overdue:
        text = (
            f"a job runs longer than spec.joinTimeoutSeconds ({spec.join_timeout_seconds} s): look at it in the CCE"
            " console; the operator follows it until it ends"
        )
        verdict = conditions.stalled(Reason.JOB_OVERDUE, text)
    elif status.open_batches or step.more or seen.listing is None:
        verdict = conditions.progressing(status, settings.removal_delay)
    else:
        theirs = rivals.withheld(spec, step.state, seen.rivals or {})
        verdict = conditions.settled(status, spec, theirs, settings.removal_delay)
    # How long ago it was deleted, a clock that is off cannot say.
    holds = _holds(membership, status, verdict, now, settings) or (seen.is_skewed and bool(status.open_batches))
    answered = seen.listing is not None or membership.metadata.deleting
    status = _concluded(membership, status, verdict, now, answered=answered)
    return Decision(
        status, step.intent, holds, _pace(step, status, verdict, spec.suspend), step.delay, doubted=step.doubted
    )


def _suspended(membership: Membership, status: Status, preview: Preview | None) -> Verdict:
    ready = membership.status.condition("Ready")
    current = membership.status.observed_generation == membership.metadata.generation
    if preview is None and current and ready is not None and ready.reason is Reason.SUSPENDED:
        return Verdict("True" if ready.status == "True" else "False", ready.reason, ready.message)
    return conditions.suspended(status, preview)


def _concluded(membership: Membership, status: Status, verdict: Verdict, now: datetime, *, answered: bool) -> Status:
    generation = membership.metadata.generation
    reconcile, reset = requested(membership), reset_requested(membership)
    return replace(
        status,
        observed_generation=generation,
        conditions=conditions.conditions(membership.status, verdict, generation, now),
        last_handled_reconcile_at=reconcile if answered and reconcile else status.last_handled_reconcile_at,
        # The reset has been worked into the state above, so it is answered with it.
        last_handled_reset_at=reset or status.last_handled_reset_at,
    )


def _holds(membership: Membership, status: Status, verdict: Verdict, now: datetime, settings: Settings) -> bool:
    """Whether the finalizer stays: something is open or owed, or more is about to be sent (rules P2, P20)."""
    deleted = membership.metadata.deletion_timestamp
    if deleted is None:
        return _keeps_finalizer(membership, status) or verdict.also == "Reconciling"
    limit = settings.settle_window + timedelta(seconds=membership.spec.join_timeout_seconds)
    if verdict.reason in NO_CREDENTIALS:
        limit = min(limit, WITHOUT_CREDENTIALS)
    return _keeps_finalizer(membership, status) and now < deleted + limit


def _keeps_finalizer(membership: Membership, status: Status) -> bool:
    """Whether something is open or owed; under `deletionPolicy: Remove` members are, from when they are recorded.

    A queued part too: no listing has shown yet that its call, which was refused, did nothing (rule P15).
    """
    if status.open_batches or status.surplus or any(b.phase is Phase.QUEUED for b in status.jobs):
        return True
    on_deletion = membership.spec.deletion_policy is Leaving.REMOVE and not membership.metadata.deleting
    return on_deletion and bool(status.members)


def _pace(step: Step, status: Status, verdict: Verdict, suspend: bool) -> Pace:
    if status.open_batches:
        watched = all(batches.is_watched(b) for b in status.open_batches)
        return Pace.WATCH if watched else Pace.POLL
    if suspend or verdict.also != "Reconciling":
        return Pace.RESYNC
    return Pace.BACKOFF if step.hindrance is not None else Pace.WATCH
