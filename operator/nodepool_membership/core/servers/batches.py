"""What becomes of open add batches: from the job and the node list to a verdict for each server.

Not for: planning batches (`eligibility`), the answer of the call itself (`record`), or servers outside batches
(`members`). Rules P8, P10, P11: the node list decides, the job explains.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.observed import provenance
from nodepool_membership.core.observed.catalogue import explain, explain_without_node
from nodepool_membership.core.observed.observation import (
    ACTIVE,
    BROKEN,
    JobPhase,
    JobReport,
    Node,
    NodeTable,
    Observation,
)
from nodepool_membership.core.servers import rollout
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.ledger import without_servers
from nodepool_membership.core.state.retry import backoff
from nodepool_membership.core.state.settings import JOB_GRACE, Settings
from nodepool_membership.core.state.state import Held, State, finished

BRAKE_AT: Final = 3
_NEVER_APPEARED: Final = (
    "no node appeared for the server within the settle window; check that it exists, is running and reachable"
)
_INTERRUPTED: Final = (
    "the operator stopped between the intent and the cloud's answer; looking for the servers in the node list"
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What open batches are held against: a complete listing, the jobs, and the time."""

    seen: Observation
    table: NodeTable
    now: datetime
    settings: Settings

    def window_passed(self, since: datetime, pool_id: str) -> bool:
        """Whether what this listing lacks has been over since then, by the settle window (rule P8)."""
        if not self.seen.proves_absence(pool_id):
            return False
        return min(self.now, self.table.begun) >= since + self.settings.settle_window


def jobs_to_ask(state: State) -> tuple[str, ...]:
    """The jobs of all live calls: what was seen of one is never the last word while its batch is open (rule P8)."""
    return tuple(b.job_id for b in state.open_batches if b.job_id)


def begun(batch: Batch, now: datetime) -> datetime:
    """The batch's submitTime; a stored time in the future counts as now (rule P21)."""
    return now if batch.submit_time is None else min(batch.submit_time, now)


def is_overdue(batch: Batch, spec: Spec, now: datetime) -> bool:
    """Whether a job should long have ended (rule P10): not over after the join timeout and a grace."""
    if batch.phase is not Phase.RUNNING or batch.job_id is None:
        return False
    return now > begun(batch, now) + timedelta(seconds=spec.join_timeout_seconds) + JOB_GRACE


def fill_all_turns(live: Iterable[Batch], spec: Spec, now: datetime) -> bool:
    """Whether as many jobs may be running as are allowed, of adds and removals.

    One that is overdue keeps no other from its turn. `live`: the open batches.
    """
    running = sum(1 for b in live if b.settling_since is None and not is_overdue(b, spec, now))
    return running >= spec.max_parallel_jobs


def is_watched(batch: Batch) -> bool:
    """Whether only the node list can still tell about the batch: there is no running job to ask."""
    return batch.phase is Phase.VERIFYING or batch.job_id is None


def needs_nodes(batch: Batch, spec: Spec, seen: Observation, now: datetime) -> bool:
    """Whether the node list has to be read for this batch: its job is over, late, or cannot be known."""
    if is_watched(batch) or is_overdue(batch, spec, now):
        return True
    report = seen.jobs.get(batch.job_id or "")
    return report is not None and (report.phase is JobPhase.UNREADABLE or not _acts(report))


def _acts(report: JobReport | None) -> bool:
    """Whether the cloud says that a job is under way. One that it does not know may act, too, but says nothing."""
    return report is not None and not report.is_over


def interrupted(batch: Batch) -> Batch:
    """An intent whose answer was not recorded: the call may have been accepted."""
    return replace(batch, phase=Phase.VERIFYING, interrupted=True, message=_INTERRUPTED)


def advance(state: State, spec: Spec, seen: Observation, now: datetime, settings: Settings) -> State:
    """Move every open add as far as what was seen allows."""
    for batch in state.open_batches:
        if batch.operation is not Operation.ADD:
            continue
        if batch.phase is Phase.SUBMITTING:
            batch = interrupted(batch)
            state = state.with_batch(batch)
        table = seen.listing
        # A clock that is off can neither say how long servers are absent nor stamp what others wait from (rule P21).
        if table is None or not seen.tells_time or table.begun < begun(batch, now):
            continue
        if needs_nodes(batch, spec, seen, now):
            state = _Advance(state, batch, spec, Evidence(seen, table, now, settings)).result()
    return state


@dataclass(frozen=True, slots=True)
class _Sorted:
    joined: frozenset[str]
    failed: Mapping[str, Cause]
    on_the_way: frozenset[str]
    absent: frozenset[str]
    adopted: frozenset[str]
    """Those of `joined` whose node is older than the call."""
    accepted: bool
    """A node is there that the call may have made."""
    foreign: int

    def without(self, members: Set[str]) -> "_Sorted":
        """What is still to be found out, of all but these; they count among those that joined."""
        failed = {i: cause for i, cause in self.failed.items() if i not in members}
        return replace(self, failed=failed, on_the_way=self.on_the_way - members, absent=self.absent - members)


class _Advance:
    """One look at one open add."""

    def __init__(self, state: State, batch: Batch, spec: Spec, evidence: Evidence) -> None:
        self._state = state
        self._batch = batch
        self._spec = spec
        self._evidence = evidence
        self._called = batch.called_ids or (batch.server_ids if len(batch.server_ids) == batch.servers else ())
        self._report = evidence.seen.jobs.get(batch.job_id) if batch.job_id else None
        self._verdict = _judge(state, batch, self._report, spec, evidence)
        if not _acts(self._report):
            # Who joined while the job was overdue is a member like any other from now on: drift is not told here.
            self._batch = without_servers(batch, state.members)
            self._verdict = self._verdict.without(state.members)

    def result(self) -> State:
        batch, verdict, now = self._batch, self._verdict, self._evidence.now
        if _acts(self._report):
            # Overdue, or back after it was not found: it may still act on all, so none of its servers is let go.
            joined = verdict.joined & self._spec.server_ids
            state = replace(self._proven(), members=self._state.members | joined).without_causes(joined)
            return state.with_batch(replace(batch, phase=Phase.RUNNING, settling_since=None))
        if batch.job_id is None and batch.phase is Phase.VERIFYING and batch.settling_since is None:
            return self._unanswered()
        if verdict.on_the_way:
            # What installs a server is not over, whatever became of its job: the window begins when it is gone (P8).
            phase = Phase.RUNNING if batch.job_id is None else batch.phase
            return self._state.with_batch(replace(batch, phase=phase, settling_since=None))
        since = now if batch.settling_since is None else min(batch.settling_since, now)
        return self._record(replace(batch, settling_since=since), since)

    def _unanswered(self) -> State:
        """An add whose answer was lost, or came without a job id (rules P8, P11)."""
        batch, verdict = self._batch, self._verdict
        since = begun(batch, self._evidence.now)
        if not verdict.accepted:
            # A node from before the call proves nothing about it.
            if verdict.joined or verdict.failed or self._window_passed(since):
                return self._record(batch, since)
            return self._state.with_batch(batch)
        batch = replace(batch, phase=Phase.RUNNING, message=batch.message if batch.failed else None)
        if verdict.on_the_way:
            return self._state.with_batch(batch)
        return self._record(replace(batch, settling_since=since), since)

    def _window_passed(self, since: datetime) -> bool:
        return self._evidence.window_passed(since, self._spec.node_pool.node_pool_id)

    def _record(self, batch: Batch, since: datetime) -> State:
        """Take over what is decided; servers that are still absent stay in the batch for the settle window."""
        verdict = self._verdict
        if not verdict.on_the_way and (not verdict.absent or self._window_passed(since)):
            return self._finish(batch)
        failed = (batch.failed or 0) + len(verdict.failed) or None
        waiting = replace(
            self._remarked(batch),
            phase=Phase.VERIFYING,
            server_ids=tuple(sorted(verdict.absent | verdict.on_the_way)),
            failed=failed,
            message=_what_failed(verdict.failed.values()) or batch.message,
        )
        told = {i: cause for i in verdict.absent if (cause := self._told(i)) is not None}
        return self._take_over(verdict.failed).with_causes(told.items()).with_batch(waiting)

    def _told(self, server_id: str) -> Cause | None:
        """What is kept of a server without a node while it is looked for: what the job says of it."""
        text = self._explanation(server_id)
        return None if text is None else Cause(FailureReason.NEVER_APPEARED, text, self._batch.attempt)

    def _explanation(self, server_id: str) -> str | None:
        if self._report is None:
            return None
        text = self._report.explanations.get(server_id) or (
            self._report.reason if self._report.phase is JobPhase.FAILED else ""
        )
        return explain_without_node(text) if text else None

    def _finish(self, batch: Batch) -> State:
        verdict, now = self._verdict, self._evidence.now
        retry_at = now + backoff(batch.attempt, batch.batch, self._evidence.settings)
        final = batch.attempt >= self._spec.max_attempts
        lost = {i: self._never_appeared(i, batch, None if final else retry_at) for i in verdict.absent}
        failed = {**verdict.failed, **lost}
        count = (batch.failed or 0) + len(failed)
        remarked = self._remarked(batch)
        other = count + (remarked.adopted or 0)
        phase = Phase.SUCCEEDED
        if other:
            # An adoption is no failure, but no success of this call either (rule P10).
            phase = Phase.PARTLY_FAILED if other < batch.servers else Phase.FAILED
        message = _what_failed(failed.values()) or (batch.message if count else None)
        closed = replace(
            remarked,
            phase=phase,
            server_ids=(),
            called_ids=self._called,
            finish_time=now,
            # A call of unknown outcome of which nothing was ever seen was not accepted: it wiped nothing (rule P26).
            failed=(count or None) if batch.job_id or batch.settling_since or batch.phase is Phase.RUNNING else None,
            message=message and plain_text(message),
        )
        return self._take_over(failed).with_batch(closed)

    def _never_appeared(self, server_id: str, batch: Batch, retry_at: datetime | None) -> Cause:
        known, text = self._state.failures.get(server_id), self._explanation(server_id)
        same = known is not None and (known.reason, known.attempts) == (FailureReason.NEVER_APPEARED, batch.attempt)
        if text is None and known is not None and same:
            # Kept since its job told.
            return replace(known, retry_at=retry_at)
        return Cause(FailureReason.NEVER_APPEARED, text or _NEVER_APPEARED, batch.attempt, retry_at)

    def _remarked(self, batch: Batch) -> Batch:
        """The batch with what was found out about where its nodes come from."""
        verdict = self._verdict
        adopted, foreign = (batch.adopted or 0) + len(verdict.adopted), (batch.foreign or 0) + verdict.foreign
        return replace(batch, adopted=adopted or None, foreign=foreign or None)

    def _proven(self) -> State:
        by_call = bool(self._verdict.joined - self._verdict.adopted)
        return rollout.proven(self._state, self._batch, self._evidence.seen.pool, joined=by_call)

    def _take_over(self, failed: Mapping[str, Cause]) -> State:
        verdict = self._verdict
        members = self._state.members | (verdict.joined & self._spec.server_ids)
        state = replace(self._proven(), members=members).without_causes(verdict.joined).with_causes(failed.items())
        # Their nodes are there: no add names them before these are gone for good (rule P8).
        return state.with_holds(dict.fromkeys(verdict.failed, Held()))


def _judge(state: State, batch: Batch, report: JobReport | None, spec: Spec, evidence: Evidence) -> _Sorted:
    nodes = evidence.table.nodes(batch.server_ids)
    since = begun(batch, evidence.now)
    joined, failed, on_the_way = set(), {}, set()
    for server_id, node in nodes.items():
        cause = node_trouble(node, batch.attempt, spec, since, evidence.now, report)
        if cause is not None:
            failed[server_id] = cause
        elif node.phase == ACTIVE:
            joined.add(server_id)
        else:
            on_the_way.add(server_id)
    older = frozenset(i for i, node in nodes.items() if provenance.is_older(node, since))
    return _Sorted(
        joined=frozenset(joined),
        failed=failed,
        on_the_way=frozenset(on_the_way),
        absent=frozenset(batch.server_ids) - nodes.keys(),
        adopted=older & joined,
        accepted=nodes.keys() > older,
        foreign=provenance.foreign_jobs(nodes.values(), since, report, state, evidence.table),
    )


def node_trouble(
    node: Node, attempts: int, spec: Spec, since: datetime, now: datetime, report: JobReport | None = None
) -> Cause | None:
    """Why a listed node is no member and will not become one by waiting; None when it is, or may."""
    if node.pool_id != spec.node_pool.node_pool_id:
        where = "in another node pool" if node.pool_id else "in no node pool"
        text = f"the server is a node of this cluster {where}; move or remove it there, or take it off spec.serverIDs"
        return Cause(FailureReason.OTHER_POOL, text, attempts)
    if node.phase == ACTIVE:
        return None
    if node.phase in BROKEN:
        told = (
            "" if report is None else report.explanations.get(node.server_id) or report.explanations.get(node.uid, "")
        )
        told = told or ("" if report is None else report.reason)
        if told:
            return Cause(*explain(told), attempts)
        text = f"its node is in phase {plain_text(node.phase, 40)}; look at it in the CCE console, remove it there"
        return Cause(FailureReason.NODE_ERROR, text, attempts)
    if now > (node.created or since) + timedelta(seconds=spec.join_timeout_seconds):
        return late(node.phase, spec, attempts)
    return None


def late(phase: str, spec: Spec, attempts: int) -> Cause:
    """A node that did not become Active in time."""
    text = (
        f"its node is still {plain_text(phase, 40)} after {spec.join_timeout_seconds} s"
        " (spec.joinTimeoutSeconds); look at it in the CCE console, and whether the subnet's DNS resolves the"
        " cloud's own services (OBS): without them it installs for ever"
    )
    return Cause(FailureReason.JOIN_TIMEOUT, text, attempts)


def _what_failed(causes: Iterable[Cause]) -> str | None:
    reasons = [cause.reason for cause in causes]
    if not reasons:
        return None
    return "failed: " + ", ".join(f"{reasons.count(r)} {r}" for r in sorted(set(reasons)))


def must_brake(state: State) -> tuple[int, int] | None:
    """How many servers of how many failed in the last adds, where that is 3 or more and over a fifth (rule P26).

    Small batches add up: of the newest adds so many are taken together as make the share the largest.
    """
    adds = [b for b in state.batches if b.operation is Operation.ADD and b.is_open and (b.failed or 0)]
    adds += [b for b in reversed(finished(state.batches)) if b.operation is Operation.ADD and _was_accepted(b)]
    failed = servers = 0
    for batch in adds:
        fresh = max((batch.failed or 0) - (batch.pardoned or 0), 0)
        if batch.pardoned and not fresh:
            continue
        if fresh >= BRAKE_AT and 5 * fresh > batch.servers:
            return fresh, batch.servers
        if batch.attempt > 1:
            # That a server fails again says nothing about the others.
            continue
        failed += fresh
        servers += batch.servers
        if failed >= BRAKE_AT and 5 * failed > servers:
            return failed, servers
    return None


def _was_accepted(batch: Batch) -> bool:
    return batch.phase in {Phase.SUCCEEDED, Phase.PARTLY_FAILED} or bool(batch.failed)
