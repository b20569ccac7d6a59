"""What would be done with each server, by the decisions themselves, and what keeps it from being done now.

Not for: the plan in a status, which is counts (`approval`). Both come from `approval.foreseen`; here each server that
would be wiped is held against what was read of it, too.
"""

from collections import defaultdict
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.status import Finding, Operation, Plan
from nodepool_membership.core.conditions import texts
from nodepool_membership.core.decision import comparing
from nodepool_membership.core.observed import rivals
from nodepool_membership.core.observed.observation import Freshness, NodeTable, Observation, PoolReport, Query, Trouble
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.observed.waiting import Blocker
from nodepool_membership.core.planning import approval, gates, removing, vetting
from nodepool_membership.core.preflight.judge import Judged
from nodepool_membership.core.servers import batches, rollout
from nodepool_membership.core.state.edits import apply_edits_and_requests
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State
from nodepool_membership.core.wording import counted

AnyReason: TypeAlias = FailureReason | FindingReason | Reason


@dataclass(frozen=True, slots=True)
class Left:
    """Servers that nothing would be done with, and why."""

    reason: AnyReason
    message: str
    server_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """Ids in their order. What is in `stops` keeps all of it from being done at once; the plan is what follows then."""

    plan: Plan
    """Its id is the one to approve; its counts are those of the ids here."""
    add: tuple[str, ...]
    """Servers that would be WIPED, at once or after a wait."""
    adopt: tuple[str, ...]
    remove: tuple[str, ...]
    """Members that would be removed, which reinstalls them."""
    left: tuple[Left, ...]
    findings: tuple[Finding, ...]
    stops: tuple[Blocker, ...]
    called: int
    """Servers that calls are under way for: they are followed, and not in the plan."""


def resumed(membership: Membership) -> Membership:
    """The membership without its suspension: a preview tells what would follow. A deletion means another thing then."""
    if membership.metadata.deleting:
        return membership
    return replace(membership, spec=replace(membership.spec, suspend=False))


def preview(membership: Membership, seen: Observation, now: datetime, settings: Settings) -> Preview | Trouble | Query:
    """What the operator would do, or what has to be known first; a trouble where it cannot be known."""
    suspended, membership = membership.spec.suspend, resumed(membership)
    state = apply_edits_and_requests(membership, now, settings)
    if seen.trouble is not None:
        return seen.trouble
    unknown_jobs = tuple(j for j in batches.jobs_to_ask(state) if j not in seen.jobs)
    if unknown_jobs:
        return Query(jobs=unknown_jobs)
    if seen.listing is None or seen.pool is None or not seen.is_fresh:
        return Query(listing=Freshness.AFTER_READ)
    if seen.namespace_state is None:
        return Query(namespace_state=True)
    evidence = _Evidence(membership, seen, seen.listing, seen.pool, now)
    return evidence.preview(comparing.advanced(membership, state, seen, now, settings), settings, suspended=suspended)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a preview is made from."""

    membership: Membership
    seen: Observation
    table: NodeTable
    pool: PoolReport
    now: datetime

    def preview(self, before: State, settings: Settings, *, suspended: bool) -> Preview | Query:
        membership, seen, spec = self.membership, self.seen, self.membership.spec
        others = seen.rivals or {}
        compared = comparing.compared(membership, before, self.table, seen, self.now, settings)
        state = approval.without_joined(compared.state, self.table)
        what = approval.foreseen(membership, rivals.ours(spec, others), before, state, self.table)
        standing = approval.standing(membership, state, what, self.pool, seen.object_bytes)
        verdict, by_tag = Judged(what.add, {}, frozenset()), False
        if what.add and spec.preflight.reads:
            inspection = seen.inspection
            if inspection is None or not what.add <= inspection.asked:
                return Query(servers=what.add)
            verdict = vetting.judged(membership, seen, inspection)
            if not seen.proves_absence(spec.node_pool.node_pool_id):
                unproven = vetting.maybe_nodes(verdict, inspection)
                verdict = replace(verdict, told=vetting.with_proof(verdict, verdict.passed - unproven))
                by_tag = not unproven and not state.surplus
        remove = (
            frozenset() if seen.namespace_state is not None and seen.namespace_state.keeps else self._removable(state)
        )
        told = vetting.with_findings(replace(state, findings=()), spec, seen, what.add, verdict.told)
        narrowed = replace(what, add=verdict.passed, remove=remove)
        plan = approval.plan_of(membership, state, narrowed, self.pool)
        return Preview(
            replace(plan, id=(standing.plan or approval.plan_of(membership, state, what, self.pool)).id),
            tuple(sorted(verdict.passed)),
            tuple(sorted(what.adopt)),
            tuple(sorted(remove)),
            tuple(self._left(state, verdict, what.add | remove, others)),
            told.findings,
            (
                *self._stops(state, standing.blocker, suspended=suspended, by_tag=by_tag),
                *self._delays(state, verdict.passed, remove, settings),
            ),
            len(state.called),
        )

    def _removable(self, state: State) -> frozenset[str]:
        """Those who are owed removal and can be named: their node is there, and they have an attempt left."""
        there = self.table.present(state.surplus)
        return frozenset(i for i in there if state.attempts(i) < self.membership.spec.max_attempts)

    def _left(self, state: State, verdict: Judged, planned: frozenset[str], others: Rivals) -> Iterator[Left]:
        spec = self.membership.spec
        causes: dict[str, tuple[AnyReason, str]] = {i: (f.reason, f.message) for i, f in verdict.failed.items()}
        for i in verdict.waiting:
            if verdict.why is not None:
                causes[i] = (verdict.why.reason, verdict.why.message)
        rest = (spec.server_ids | state.surplus) - planned - state.called
        for i in rest & state.failures.keys():
            causes[i] = (state.failures[i].reason, state.failures[i].message)
        for i, rival in rivals.withheld(spec, state, others).items():
            owner = rivals.ELSEWHERE if rival.foreign else rival.owner
            why = f"another membership has the right to it: {owner}"
            if rival.until is not None:
                until = rfc3339(rival.until)
                why = f"an earlier call that no membership knows of any more may still act on it until {until}"
            causes[i] = (Reason.CONFLICT, why)
        groups: defaultdict[tuple[AnyReason, str], list[str]] = defaultdict(list)
        for server_id in sorted(causes):
            groups[causes[server_id]].append(server_id)
        for (reason, message), ids in groups.items():
            yield Left(reason, message, tuple(ids))

    def _stops(self, state: State, awaited: Blocker | None, *, suspended: bool, by_tag: bool) -> Iterator[Blocker]:
        """All that keeps calls from being made now."""
        membership, seen = self.membership, self.seen
        if suspended:
            yield Blocker(Reason.SUSPENDED, "spec.suspend is true: no call is made")
        if (paused := gates.paused_object(membership)) is not None:
            yield paused
        if seen.namespace_state is not None and seen.namespace_state.paused is not None:
            yield gates.paused_namespace(seen.namespace_state.paused)
        if state.recovers(self.now):
            yield gates.STATUS_LOST
        halt = state.halt or rollout.failed(state, membership.spec, self.pool, self.now)
        if halt is not None:
            yield Blocker(halt.reason, f"{halt.message}; {texts.HALTED}")
        if awaited is not None:
            yield awaited
        if (unusable := gates.not_usable(seen, membership.spec.node_pool.node_pool_id, by_tag=by_tag)) is not None:
            yield unusable
        for operation in Operation:
            if (wait := state.waits_until(operation, self.now)) is not None:
                yield Blocker(wait.reason, f"{wait.message}; until {rfc3339(wait.until)}")

    def _delays(self, state: State, add: Set[str], remove: Set[str], settings: Settings) -> Iterator[Blocker]:
        """Times before which some of these are not named in a call, whatever is in the way of the others."""
        retries = {i: c.retry_at for i in add if (c := state.failures.get(i)) is not None and c.retry_at is not None}
        later = [moment for moment in retries.values() if moment > self.now]
        if later:
            what = f"{counted(len(later), 'server')} to add {'waits' if len(later) == 1 else 'wait'}"
            yield Blocker(Reason.PENDING, f"{what} for another attempt, until {rfc3339(min(later))} at the earliest")
        begin = removing.settled_at(state, self.now, settings)
        if remove and begin > self.now:
            yield Blocker(Reason.PENDING, f"{counted(len(remove), 'removal')} from {rfc3339(begin)} on")
