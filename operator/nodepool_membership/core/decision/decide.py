"""What is to be stored and done next, as one pipeline: each stage is visited once, in this order.

    edits and requests applied    state.edits
    live calls advanced           servers.batches, servers.removals
    servers held against nodes    servers.members
    what is called next           planning.adding, planning.removing, behind planning.gates
    told                          conditions.verdict

Not for: doing it (`runtime`). Pure: the time is an argument, and what has to be known first is asked for with a
`Query`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Approval, Spec
from nodepool_membership.api.status import Batch, Halt, Plan, Status
from nodepool_membership.core.conditions import finalizer, texts, upcoming
from nodepool_membership.core.conditions.finalizer import Finalizer
from nodepool_membership.core.conditions.verdict import Facts, Verdict, conditions, verdict_of
from nodepool_membership.core.decision import comparing
from nodepool_membership.core.decision.looking import Looking, waiting_after
from nodepool_membership.core.observed import clock, drift, rivals
from nodepool_membership.core.observed.drift import Absences
from nodepool_membership.core.observed.observation import NodeTable, Observation, Query
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.observed.waiting import Waiting, WaitsFor
from nodepool_membership.core.planning import adding, approval, gates, removing, vetting
from nodepool_membership.core.planning.gates import Step
from nodepool_membership.core.servers import batches
from nodepool_membership.core.state.edits import apply_edits_and_requests, is_lost, spec_digest
from nodepool_membership.core.state.ledger import Ledger, regained
from nodepool_membership.core.state.requests import reconcile_requested, reset_requested
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State, to_status

TOLD_FROM: Final = 15.0
"""Seconds: a call that waits for less is not told of, since to tell costs a write."""


class Schedule(StrEnum):
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
    """The status to store, the batch in it that is then to be sent, the finalizer, and when to look again.

    `delay` is in seconds and outranks `schedule`.
    """

    status: Status
    intent: Batch | None
    finalizer: Finalizer
    schedule: Schedule
    delay: float | None = None
    waiting: Waiting | None = None
    """What `Observation.waiting` is to be next time, unless the object is edited."""
    absences: Absences = field(default_factory=dict)
    """What `Observation.absences` is to hold next time; kept in memory, losing it costs time only."""
    doubted: bool = False
    """A refused call was carried out in part: no later refusal of this pool is to be trusted (rule P15)."""
    withheld: Rivals = field(default_factory=dict)
    """Servers that were owed removal and are not any more, since another membership names them (rule P18)."""
    refused: Mapping[str, datetime] = field(default_factory=dict)
    """What `Observation.refused` is to hold next time; as `absences`."""

    @property
    def keeps_finalizer(self) -> bool:
        return self.finalizer is not Finalizer.OFF


def acknowledge(membership: Membership, now: datetime, settings: Settings) -> Status:
    """The status for a generation not seen before, from what is recorded alone, before the cloud is looked at."""
    state = apply_edits_and_requests(membership, now, settings)
    status = _about_now(membership, to_status(membership.status, membership.spec, state, membership.wire_bytes))
    # A request is answered by looking, not by this: an unanswered one must survive a crash. But a reset found beside
    # a lost status may be an old one whose answer was lost too: it must not end the wait.
    reset = reset_requested(membership) if is_lost(membership) else None
    handled = reset.token if reset is not None else status.last_handled_reset_at
    status = replace(status, last_handled_reset_at=handled)
    return _told(membership, Facts(membership, status, now, settings))


def remembered(membership: Membership, known: Ledger, now: datetime, settings: Settings) -> Status:
    """The status in place of one that was lost, or of an older one that was restored, while the process runs (P2)."""
    state = regained(membership, known, now, settings)
    status = _about_now(membership, to_status(membership.status, membership.spec, state))
    # As after any loss: a reset that was there before it was found does not end the wait.
    reset = reset_requested(membership)
    status = replace(status, last_handled_reset_at=reset.token if reset is not None else status.last_handled_reset_at)
    return _told(membership, Facts(membership, status, now, settings))


def recorded(membership: Membership, state: State, now: datetime, settings: Settings) -> Status:
    """The status with a call's answer in it. It is about the generation that the call was decided for."""
    status = to_status(membership.status, membership.spec, state, membership.wire_bytes)
    status = replace(status, observed_generation=max(status.observed_generation, 0))
    return _told(membership, Facts(membership, status, now, settings))


def _about_now(membership: Membership, status: Status) -> Status:
    generation, observed = membership.metadata.generation, status.observed_spec
    if generation != status.observed_generation:
        observed = spec_digest(membership.spec)
    return replace(status, observed_generation=generation, observed_spec=observed, plan=_last_plan(membership))


def _last_plan(membership: Membership) -> Plan | None:
    """What the last look said would be done, if that is to be told, and was about the spec as it is."""
    spec, status = membership.spec, membership.status
    told = spec.suspend or spec.approval is Approval.MANUAL
    return status.plan if told and status.observed_generation == membership.metadata.generation else None


def _told(membership: Membership, facts: Facts) -> Status:
    """The status with its conditions."""
    status, verdict = facts.status, verdict_of(facts)
    told = conditions(membership.status, verdict, status.observed_generation, facts.now)
    return replace(status, conditions=told, next_time=facts.next_time)


def decide(membership: Membership, seen: Observation, now: datetime, settings: Settings) -> Decision | Query:
    """Decide what is to be stored and done, or ask for what has to be known first.

    Rules: P1..P3, P7, P8, P10..P13, P15, P16, P18..P20, P25, P26. `now` is aware, whole seconds.
    """
    state = apply_edits_and_requests(membership, now, settings)
    if seen.trouble is not None:
        return _in_trouble(membership, state, seen, now, settings)
    unknown_jobs = tuple(j for j in batches.jobs_to_ask(state) if j not in seen.jobs)
    if unknown_jobs:
        return Query(jobs=unknown_jobs)
    look = Looking(membership, seen, now, settings).query(state)
    if look is not None:
        return look
    if seen.is_set_back(now):
        return _in_trouble(membership, state, replace(seen, trouble=clock.SET_BACK), now, settings)
    return _Pipeline(membership, seen, now, settings).decision(state)


class _Pipeline:
    """The stages that follow once what has to be seen was seen."""

    def __init__(self, membership: Membership, seen: Observation, now: datetime, settings: Settings) -> None:
        self._membership = membership
        self._spec = membership.spec
        self._seen = seen
        self._now = now
        self._settings = settings
        self._absences = seen.absences
        self._withheld: Rivals = {}
        self._plan = _last_plan(membership)

    def decision(self, state: State) -> Decision | Query:
        spec, seen, now, adding_before = self._spec, self._seen, self._now, state.adding
        state = comparing.advanced(self._membership, state, seen, now, self._settings)
        self._absences = drift.from_now(seen.absences, adding_before - state.adding, now)
        seen = self._seen = replace(seen, absences=self._absences)
        state = vetting.with_findings(self._braked(state), spec, seen)
        standing = self._standing(state)
        spared = Looking(self._membership, seen, now, self._settings).spared(standing.state)
        if spared is not None:
            rest = Step(standing.state)
            deleting = self._membership.metadata.deleting
            return self._concluded(rest, spared) if deleting else self._concluded(spared, rest)
        own, awaited = self._own(), standing.blocker
        if standing.covered is not None:
            own = replace(own, spec=replace(own.spec, server_ids=own.spec.server_ids & standing.covered))
        added = adding.next_add(own, standing.state, seen, now, self._settings)
        if isinstance(added, Query) or added.intent is not None:
            return added if isinstance(added, Query) else self._concluded(added, Step(added.state))
        if awaited is not None and added.blocker is None:
            added = replace(added, blocker=awaited, waits_for=standing.waits_for)
        standing = replace(standing, state=added.state)
        removed = removing.next_removal(self._membership, standing, seen, now, self._settings)
        if isinstance(removed, Query):
            return removed
        if awaited is not None and not (removed.state.surplus or (self._plan is not None and self._plan.add)):
            # All that waited for a word was let go of.
            self._plan = None
        return self._concluded(added, removed)

    def _standing(self, before: State) -> approval.Standing:
        """What a person has said yes to, by a look that shows what there is to be done."""
        spec, seen, listing = self._spec, self._seen, self._seen.listing
        if listing is None:
            return approval.Standing(before)
        found = comparing.compared(self._membership, before, listing, seen, self._now, self._settings)
        # While suspended nothing comes of what is seen but the plan: who was away before may be there again.
        state = approval.without_joined(before if spec.suspend else found.state, listing)
        self._absences = {} if spec.suspend else found.absences
        if not spec.suspend:
            self._withheld = found.withheld
            if spec.approval is Approval.AUTOMATIC:
                return approval.Standing(replace(state, approved=None))
        if seen.rivals is None or not (spec.suspend or seen.is_fresh):
            # Nobody knows yet whose servers they are, or all who are listed are there.
            self._plan = self._plan if spec.suspend or state.surplus else None
            return approval.Standing(state)
        what = approval.foreseen(self._membership, self._own().spec, before, found.state, listing)
        if not spec.suspend:
            # Who was to be adopted is a member by now.
            what = replace(what, adopt=frozenset())
        standing = approval.Standing(state)
        if seen.pool is not None and (spec.suspend or seen.proves_absence(spec.node_pool.node_pool_id)):
            standing = approval.standing(self._membership, state, what, seen.pool, seen.object_bytes)
        elif spec.approval is Approval.MANUAL:
            # What is not certain to be absent is not planned, and nothing is called.
            why = gates.not_usable(seen, spec.node_pool.node_pool_id)
            standing = replace(standing, covered=frozenset(), blocker=why)
        if not what.waits(state, standing.covered or frozenset()):
            standing = replace(standing, blocker=None)
        self._plan = None if standing.blocker is None else standing.plan
        if spec.suspend:
            self._plan = approval.plan_of(self._membership, standing.state, what, seen.pool)
        return standing

    def _own(self) -> Membership:
        """The membership without the servers that others have the right to, or an earlier call for."""
        return replace(self._membership, spec=rivals.ours(self._spec, self._seen.rivals or {}))

    def _turn(self, *steps: Step) -> datetime | None:
        """When the write budget has a place, if that takes long enough for a person to ask, or was told already."""
        waits = [step.turn for step in steps if step.turn is not None]
        if not waits:
            return None
        told = self._membership.status.next_time
        turn = upcoming.rounded(self._now + timedelta(seconds=min(waits)), told)
        return turn if min(waits) >= TOLD_FROM or turn == told else None

    def _braked(self, state: State) -> State:
        failed = batches.must_brake(state) if state.halt is None else None
        if failed is None:
            return state
        return replace(state, halt=Halt(Reason.TOO_MANY_FAILURES, texts.braked(*failed), self._now))

    def _concluded(self, added: Step, removed: Step) -> Decision:
        membership, spec, seen, now = self._membership, self._spec, self._seen, self._now
        state = removed.state
        status = to_status(membership.status, spec, state, membership.wire_bytes)
        status = replace(_about_now(membership, status), plan=self._plan)
        overdue = tuple(b.batch for b in status.open_batches if batches.is_overdue(b, spec, now))
        late = any(end <= now for end in upcoming.windows(membership, status, self._settings))
        uncertain = late and seen.is_fresh and not seen.proves_absence(spec.node_pool.node_pool_id)
        facts = Facts(
            membership,
            status,
            now,
            self._settings,
            looked=seen.listing is not None,
            add_blocker=added.blocker,
            remove_blocker=removed.blocker,
            watch_blocker=gates.implausible() if uncertain else None,
            more=added.more or removed.more or added.intent is not None or removed.intent is not None,
            turn=self._turn(added, removed),
            overdue=overdue,
            theirs=rivals.withheld(spec, state, seen.rivals or {}),
            vanished=len(_unseen(state, spec, seen.listing)),
        )
        verdict = verdict_of(facts)
        answered = seen.listing is not None or membership.metadata.deleting
        status = _answered(membership, facts, verdict, answered=answered)
        # How long ago it was deleted, a clock that is off cannot say. Between two calls it stays on: to take it off
        # and put it on again would be two writes a batch.
        stays = seen.is_skewed and bool(status.open_batches)
        stays = stays or (verdict.abnormal == "Reconciling" and finalizer.is_held(membership))
        blocked = facts.blocker is not None
        waiting = None if facts.vanished else waiting_after(seen, now, (added, removed))
        changes = waiting is not None and waiting.what is WaitsFor.CHANGE
        rests = changes or spec.suspend or gates.paused_object(membership) is not None
        delays = [delay for delay in (added.delay, removed.delay) if delay is not None]
        return Decision(
            status,
            added.intent or removed.intent,
            finalizer.decided(membership, status, now, self._settings, stays=stays),
            _schedule(status, verdict, blocked=blocked, rests=rests),
            min(delays) if delays else None,
            waiting=waiting,
            absences=self._absences,
            doubted=added.doubted,
            withheld=self._withheld,
            refused=vetting.refused(state, seen),
        )


def _unseen(state: State, spec: Spec, table: NodeTable | None) -> frozenset[str]:
    """Recorded members on the list that the listing does not show as Active."""
    if table is None or not spec.suspend:
        return frozenset()
    listed = state.members & spec.server_ids
    return frozenset(listed - table.active_in(spec.node_pool.node_pool_id, listed))


def _in_trouble(membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings) -> Decision:
    """The cloud could not be looked at: what is known stays, and what is told depends on how often that was so."""
    trouble = seen.trouble
    if trouble is None:
        raise ValueError("called without a trouble")
    status = _about_now(membership, to_status(membership.status, membership.spec, state, membership.wire_bytes))
    overdue = tuple(b.batch for b in status.open_batches if batches.is_overdue(b, membership.spec, now))
    theirs = rivals.withheld(membership.spec, state, seen.rivals or {})
    facts = Facts(membership, status, now, settings, trouble, seen.failed_reads, overdue=overdue, theirs=theirs)
    status = _answered(membership, facts, verdict_of(facts), answered=False)
    # Nobody looked, so the finalizer stays where it is; a deletion is let go when its limit has passed.
    held = finalizer.decided(membership, status, now, settings, trouble, stays=finalizer.is_held(membership))
    kept = Decision(status, None, held, Schedule.BACKOFF, trouble.retry_after, absences=seen.absences)
    return replace(kept, refused=seen.refused)


def _answered(membership: Membership, facts: Facts, verdict: Verdict, *, answered: bool) -> Status:
    """The status with its conditions, and with the requests that it answers."""
    status = facts.status
    look, reset = reconcile_requested(membership), reset_requested(membership)
    return replace(
        status,
        conditions=conditions(membership.status, verdict, status.observed_generation, facts.now),
        next_time=facts.next_time,
        last_handled_reconcile_at=look if answered and look else status.last_handled_reconcile_at,
        # The reset has been worked into the state above, so it is answered with it.
        last_handled_reset_at=reset.token if reset is not None else status.last_handled_reset_at,
    )


def _schedule(status: Status, verdict: Verdict, *, blocked: bool, rests: bool) -> Schedule:
    """`rests`: nothing is called before the object is changed, which wakes it."""
    if status.open_batches:
        watched = all(batches.is_watched(b) for b in status.open_batches)
        return Schedule.WATCH if watched else Schedule.POLL
    if rests or verdict.abnormal != "Reconciling":
        return Schedule.RESYNC
    return Schedule.BACKOFF if blocked else Schedule.WATCH
