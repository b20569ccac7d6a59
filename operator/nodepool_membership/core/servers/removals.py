"""What becomes of open removals: the node list decides which nodes are gone, the job explains why others are not.

Not for: planning removals (`removing`), the answer of the call itself (`record`), or adds (`batches`).
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.observed.observation import LEAVING, JobPhase, JobReport, Node, Observation
from nodepool_membership.core.servers import batches
from nodepool_membership.core.servers.batches import Evidence
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.retry import backoff
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State

REMEDY: Final = (
    "look at the node in the CCE console and remove it there, or set spec.removalPolicy (on deletion"
    " spec.deletionPolicy) to Retain to let it stay; the annotation cce.nodepools.dev/reset-requested-at makes the"
    " operator try again"
)


def advance(state: State, spec: Spec, seen: Observation, now: datetime, settings: Settings) -> State:
    """Move every open removal as far as what was seen allows."""
    for batch in state.open_batches:
        if batch.operation is not Operation.REMOVE:
            continue
        if batch.phase is Phase.SUBMITTING:
            batch = batches.interrupted(batch)
            state = state.with_batch(batch)
        table = seen.listing
        if table is None or not seen.tells_time or table.begun < batches.begun(batch, now):
            continue
        if batches.needs_nodes(batch, spec, seen, now):
            state = _advance(state, spec, batch, Evidence(seen, table, now, settings))
    return state


def give_back(state: State, batch: Batch, ids: Iterable[str], cause: Cause | None) -> State:
    """Servers whose removal did not happen are recorded again, with the cause, if there is one.

    `edits.apply_spec` says then what they are by the spec: members, owed, or released. Of a released batch nobody is:
    who is on the list by now is taken up like any other Active node.
    """
    if batch.released:
        return state
    ids = frozenset(ids)
    return replace(state, members=state.members | ids).with_causes((i, cause) for i in ids if cause is not None)


def _advance(state: State, spec: Spec, batch: Batch, evidence: Evidence) -> State:
    now, report = evidence.now, evidence.seen.jobs.get(batch.job_id) if batch.job_id else None
    if report is not None and not report.is_over:
        # It may still act on all of them.
        return state.with_batch(replace(batch, phase=Phase.RUNNING, settling_since=None))
    listed = evidence.table.nodes(batch.server_ids)
    uids = dict(zip(batch.server_ids, batch.node_ids, strict=True))
    # The server may be a node anew, by somebody else's hand: what we were to remove is gone then.
    there = {i: node for i, node in listed.items() if node.uid == uids[i]}
    certain = evidence.seen.proves_absence(spec.node_pool.node_pool_id)
    since = batches.begun(batch, now) if batch.job_id is None else min(batch.settling_since or now, now)
    passed = min(now, evidence.table.begun) >= since + evidence.settings.settle_window
    # Gone for good: the job said so, or nothing can act any more. One look without the node of a call that may not
    # have been carried out yet, or whose job cannot be found, frees nobody.
    known = report is not None and report.phase is not JobPhase.LOST
    gone = {i for i in batch.server_ids if i not in there and (i in listed or (certain and (known or passed)))}
    stuck = _stuck(there, report, passed=passed)
    rest = [i for i in batch.server_ids if i not in stuck and i not in gone]
    failed = (batch.failed or 0) + len(stuck)
    batch = replace(
        batch,
        phase=Phase.VERIFYING,
        server_ids=tuple(rest),
        node_ids=tuple(uids[i] for i in rest),
        settling_since=None if batch.job_id is None else since,
        failed=failed or None,
        message=f"failed: {failed} {FailureReason.REMOVAL_FAILED}" if failed else batch.message,
    )
    state = state.with_batch(batch if rest else _closed(batch, now))
    for server_id, node in stuck.items():
        cause = Cause(
            FailureReason.REMOVAL_FAILED,
            _why(node, report),
            batch.attempt,
            now + backoff(batch.attempt, batch.batch, evidence.settings) if batch.attempt < spec.max_attempts else None,
        )
        state = give_back(state, batch, [server_id], cause)
    return state


def _stuck(there: dict[str, Node], report: JobReport | None, *, passed: bool) -> dict[str, Node]:
    """Nodes that will not go by waiting: the settle window has passed, or the job failed and left them alone."""
    if passed:
        return there
    if report is None or report.phase is not JobPhase.FAILED:
        return {}
    return {i: node for i, node in there.items() if node.phase != LEAVING}


def _closed(batch: Batch, now: datetime) -> Batch:
    if batch.failed is None:
        return replace(batch, phase=Phase.SUCCEEDED, finish_time=now, message=None)
    phase = Phase.PARTLY_FAILED if batch.failed < batch.servers else Phase.FAILED
    return replace(batch, phase=phase, finish_time=now)


def _why(node: Node, report: JobReport | None) -> str:
    told = ""
    if report is not None:
        told = report.explanations.get(node.server_id) or report.explanations.get(node.uid) or report.reason
    said = f" ({plain_text(told, 500)})" if told else ""
    return plain_text(f"its node is still in the pool after the removal{said}; {REMEDY}")
