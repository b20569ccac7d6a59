"""What becomes of open add batches: from the job and the node list to a verdict for each server.

Not for: planning batches (`plan`), the answer of the call itself (`calls`), or servers outside batches (`servers`).
Rules P8, P10, P11: the node list decides, the job explains.
"""

from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core import provenance
from nodepool_membership.core.catalogue import explain, explain_without_node
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.observation import ACTIVE, BROKEN, JobPhase, JobReport, Node, NodeTable, Observation
from nodepool_membership.core.settings import JOB_GRACE, Settings
from nodepool_membership.core.state import State

BRAKE_AT: Final = 3
_NEVER_APPEARED: Final = (
    "no node appeared for the server within the settle window; check that it exists, is running and reachable"
)
INTERRUPTED = "the operator stopped between the intent and the cloud's answer; looking for the servers in the node list"


def jobs_to_ask(state: State) -> tuple[str, ...]:
    """Jobs that may still be running: one cheap question each."""
    return tuple(b.job_id for b in state.open_batches if b.phase is Phase.RUNNING and b.job_id)


def in_flight(state: State) -> int:
    """Jobs that may be running in the cloud, of adds and removals; a batch whose job is over is only watched."""
    return sum(1 for b in state.open_batches if b.finish_time is None)


def is_overdue(batch: Batch, spec: Spec, seen: Observation, now: datetime) -> bool:
    """Whether a job should long have ended (rule P10): still not over after the join timeout and a grace."""
    if batch.phase is not Phase.RUNNING or batch.job_id is None:
        return False
    report = seen.jobs.get(batch.job_id)
    limit = timedelta(seconds=spec.join_timeout_seconds) + JOB_GRACE
    return report is not None and not report.is_over and now > begun(batch, now) + limit


def needs_nodes(batch: Batch, spec: Spec, seen: Observation, now: datetime) -> bool:
    """Whether the node list has to be read for this batch: its job is over, late, or unknown."""
    if batch.phase is not Phase.RUNNING or batch.job_id is None:
        return True
    report = seen.jobs.get(batch.job_id)
    return report is not None and (report.is_over or is_overdue(batch, spec, seen, now))


def settle(state: State, spec: Spec, seen: Observation, now: datetime, settings: Settings) -> State:
    """Move every open add as far as what was seen allows."""
    for batch in state.open_batches:
        if batch.operation is not Operation.ADD:
            continue
        if batch.phase is Phase.SUBMITTING:
            batch = replace(batch, phase=Phase.VERIFYING, message=INTERRUPTED)
            state = state.with_batch(batch)
        table = seen.listing
        # A clock that is off can neither say how long servers are absent nor stamp what others wait from (rule P21).
        if table is None or not seen.tells_time or table.begun < begun(batch, now):
            continue
        if needs_nodes(batch, spec, seen, now):
            state = _settle(state, batch, _Look(spec, seen, table, now, settings))
    return state


@dataclass(frozen=True, slots=True)
class _Look:
    spec: Spec
    seen: Observation
    table: NodeTable
    now: datetime
    settings: Settings


@dataclass(frozen=True, slots=True)
class _Verdict:
    joined: frozenset[str]
    failed: dict[str, Cause]
    on_the_way: frozenset[str]
    absent: frozenset[str]
    adopted: frozenset[str]
    """Those of `joined` whose node is older than the call."""
    accepted: bool
    """A node is there that the call may have made."""
    remarks: tuple[str, ...]

    @property
    def decided(self) -> bool:
        return bool(self.joined or self.failed)


def begun(batch: Batch, now: datetime) -> datetime:
    """The batch's submitTime; a stored time in the future counts as now (rule P21)."""
    return now if batch.submit_time is None else min(batch.submit_time, now)


def _settle(state: State, batch: Batch, look: _Look) -> State:
    report = look.seen.jobs.get(batch.job_id) if batch.job_id else None
    verdict = _judge(state, batch, report, look)
    over = batch.phase is Phase.VERIFYING or (report is not None and report.is_over)
    if batch.job_id is None and batch.finish_time is None:
        return _settle_without_job(state, batch, verdict, look)
    if not over:
        # An overdue job: only a full success may close it, since it may still act on the others.
        return _finish(state, batch, verdict, look) if len(verdict.joined) == len(batch.server_ids) else state
    if verdict.on_the_way:
        # What installs a server is not over, whatever became of its job: the window begins when it is gone (rule P8).
        phase = Phase.RUNNING if batch.job_id is None else batch.phase
        return state.with_batch(replace(batch, phase=phase, finish_time=None))
    since = look.now if batch.finish_time is None else min(batch.finish_time, look.now)
    return _record(state, replace(batch, finish_time=since), verdict, look, since)


def _settle_without_job(state: State, batch: Batch, verdict: _Verdict, look: _Look) -> State:
    """An add whose answer was lost, or came without a job id (rules P8, P11)."""
    # Running is what servers on their way have made it: one that was seen and is gone may come back.
    since = look.now if batch.phase is Phase.RUNNING else begun(batch, look.now)
    if batch.phase is Phase.VERIFYING and verdict.accepted:
        # Why the answer was unknown is over; what was found out about servers is not.
        message = batch.message if batch.failed else "; ".join(provenance.remarked(batch.message)) or None
        batch = replace(batch, phase=Phase.RUNNING, message=message)
        state = state.with_batch(batch)
    if batch.phase is Phase.RUNNING and not verdict.on_the_way:
        return _record(state, replace(batch, finish_time=since), verdict, look, since)
    if batch.phase is Phase.VERIFYING and (verdict.decided or _window_passed(since, look)):
        return _record(state, batch, verdict, look, since)
    return state


def _window_passed(since: datetime, look: _Look) -> bool:
    if not look.seen.proves_absence(look.spec.node_pool.node_pool_id):
        return False
    return min(look.now, look.table.begun) >= since + look.settings.settle_window


def _record(state: State, batch: Batch, verdict: _Verdict, look: _Look, since: datetime) -> State:
    """Take over what is decided; servers that are still absent stay in the batch for the settle window."""
    if not verdict.on_the_way and (not verdict.absent or _window_passed(since, look)):
        return _finish(state, batch, verdict, look)
    if batch.phase is Phase.VERIFYING and not verdict.decided:
        return state.with_batch(batch)
    waiting = verdict.absent | verdict.on_the_way
    open_batch = replace(
        batch,
        phase=Phase.VERIFYING,
        server_ids=tuple(sorted(waiting)),
        failed=_all_failed(batch, verdict.failed),
        message=_said(batch, verdict, _what_failed(verdict.failed.values())) or batch.message,
    )
    told = _told_of_absent(state, batch, verdict, look)
    kept = {i: Cause(FailureReason.NEVER_APPEARED, text, state.attempts(i)) for i, text in told.items()}
    return _take_over(state, verdict, look).with_causes(kept.items()).with_batch(open_batch)


def _told_of_absent(state: State, batch: Batch, verdict: _Verdict, look: _Look) -> dict[str, str]:
    """What the job says of servers without a node. It is asked once: until the batch ends, `book` keeps what it said.

    Also where it says nothing: what is kept of a server must not be what the job of an earlier attempt said.
    """
    report = look.seen.jobs.get(batch.job_id) if batch.job_id else None
    told: dict[str, str] = {}
    for server_id in verdict.absent:
        known = state.book.get(server_id)
        is_known = known is not None and known.reason is FailureReason.NEVER_APPEARED
        if report is not None:
            text = report.explanations.get(server_id) or (report.reason if report.phase is JobPhase.FAILED else "")
            if text or is_known:
                told[server_id] = explain_without_node(text) if text else _NEVER_APPEARED
        elif known is not None and is_known and batch.job_id:
            told[server_id] = known.message
    return told


def _finish(state: State, batch: Batch, verdict: _Verdict, look: _Look) -> State:
    told = _told_of_absent(state, batch, verdict, look)
    lost = {i: Cause(FailureReason.NEVER_APPEARED, told.get(i, _NEVER_APPEARED), batch.attempt) for i in verdict.absent}
    failed = {**verdict.failed, **lost}
    trouble = _what_failed(failed.values())
    remarks = _said(batch, verdict, None)
    adopted = any(remark.startswith(provenance.ADOPTED) for remark in provenance.remarked(remarks))
    count = _all_failed(batch, failed)
    if count is None and not adopted:
        phase, message = Phase.SUCCEEDED, remarks
    else:
        # An adoption is no failure, but no success of this call either (rule P10).
        phase = Phase.PARTLY_FAILED if (count or 0) + len(verdict.adopted) < batch.servers else Phase.FAILED
        message = _said(batch, verdict, "; ".join(filter(None, (batch.message, trouble))))
    closed = replace(
        batch,
        phase=phase,
        server_ids=(),
        finish_time=look.now,
        # A call of unknown outcome of which nothing was ever seen was not accepted: it wiped nothing (rule P26).
        failed=count if batch.job_id or batch.finish_time or batch.phase is Phase.RUNNING else None,
        message=None if message is None else plain_text(message),
    )
    return _take_over(state, replace(verdict, failed=failed), look).with_batch(closed)


def _said(batch: Batch, verdict: _Verdict, what: str | None) -> str | None:
    """What became of the batch, with the remarks made so far on where its nodes come from."""
    parts = (what or "").split("; ")
    parts += [*provenance.remarked(batch.message), *verdict.remarks]
    return "; ".join(dict.fromkeys(filter(None, parts))) or None


def _all_failed(batch: Batch, failed: Sized) -> int | None:
    return (batch.failed or 0) + len(failed) or None


def _take_over(state: State, verdict: _Verdict, look: _Look) -> State:
    members = state.members | (verdict.joined & look.spec.server_ids)
    return replace(state, members=members).without_causes(verdict.joined).with_causes(verdict.failed.items())


def _judge(state: State, batch: Batch, report: JobReport | None, look: _Look) -> _Verdict:
    nodes = look.table.nodes(batch.server_ids)
    since = begun(batch, look.now)
    joined, failed, on_the_way = set(), {}, set()
    for server_id, node in nodes.items():
        cause = node_trouble(node, batch.attempt, look.spec, since, look.now, report)
        if cause is not None:
            failed[server_id] = cause
        elif node.phase == ACTIVE:
            joined.add(server_id)
        else:
            on_the_way.add(server_id)
    absent = frozenset(batch.server_ids) - nodes.keys()
    older = frozenset(i for i, node in nodes.items() if provenance.is_older(node, since))
    adopted = older & joined
    foreign = provenance.foreign_jobs(nodes.values(), since, report, state, look.table)
    return _Verdict(
        joined=frozenset(joined),
        failed=failed,
        on_the_way=frozenset(on_the_way),
        absent=absent,
        adopted=adopted,
        accepted=nodes.keys() > older,
        remarks=provenance.remarks(len(adopted), foreign),
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
        text = (
            f"its node is still {plain_text(node.phase, 40)} after {spec.join_timeout_seconds} s"
            " (spec.joinTimeoutSeconds); look at it in the CCE console, and whether the subnet's DNS resolves the"
            " cloud's own services (OBS): without them it installs for ever"
        )
        return Cause(FailureReason.JOIN_TIMEOUT, text, attempts)
    return None


def _what_failed(causes: Iterable[Cause]) -> str | None:
    reasons = [cause.reason for cause in causes]
    if not reasons:
        return None
    return "failed: " + ", ".join(f"{reasons.count(r)} {r}" for r in sorted(set(reasons)))


def must_brake(before: Iterable[Batch], after: Iterable[Batch]) -> bool:
    """Whether an add now has many more failures after acceptance than before: 3 or more, over 20 % (rule P26)."""
    known = {batch.batch: batch.failed or 0 for batch in before}
    return any(
        batch.operation is Operation.ADD
        and (failed := batch.failed or 0) > known.get(batch.batch, 0)
        and failed >= BRAKE_AT
        and 5 * failed > batch.servers
        for batch in after
    )


def is_watched(batch: Batch) -> bool:
    """Whether only the node list can still tell about the batch: there is no running job to ask."""
    return batch.phase is Phase.VERIFYING or batch.job_id is None
