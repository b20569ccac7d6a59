"""What becomes of open removals: the node list decides which nodes are gone, the job explains why others are not.

Not for: planning removals (`removing`), the answer of the call itself (`calls`), or adds (`batches`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core import batches
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.observation import LEAVING, JobPhase, JobReport, Node, NodeTable, Observation
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State

REMEDY: Final = (
    "look at the node in the CCE console and remove it there, or set spec.removalPolicy (on deletion"
    " spec.deletionPolicy) to Retain to let it stay; the reset annotation makes the operator try again"
)


def settle(state: State, spec: Spec, seen: Observation, now: datetime, settings: Settings) -> State:
    """Move every open removal as far as what was seen allows."""
    for batch in state.open_batches:
        if batch.operation is not Operation.REMOVE:
            continue
        if batch.phase is Phase.SUBMITTING:
            batch = replace(batch, phase=Phase.VERIFYING, message=batches.INTERRUPTED)
            state = state.with_batch(batch)
        table = seen.listing
        if table is None or not seen.tells_time or table.begun < batches.begun(batch, now):
            continue
        if batches.needs_nodes(batch, spec, seen, now):
            state = _settle(state, spec, batch, _Look(seen, table, now, settings))
    return state


def give_back(state: State, ids: Iterable[str], cause: Cause | None) -> State:
    """Servers whose removal did not happen are recorded again, with the cause, if there is one.

    `servers.sort_out` says then what they are by the spec: members, owed, or released.
    """
    ids = frozenset(ids)
    return replace(state, members=state.members | ids).with_causes((i, cause) for i in ids if cause is not None)


@dataclass(frozen=True, slots=True)
class _Look:
    seen: Observation
    table: NodeTable
    now: datetime
    settings: Settings


def _settle(state: State, spec: Spec, batch: Batch, look: _Look) -> State:
    report = look.seen.jobs.get(batch.job_id) if batch.job_id else None
    listed = look.table.nodes(batch.server_ids)
    uids = dict(zip(batch.server_ids, batch.node_ids, strict=True))
    # The server may be a node anew, by somebody else's hand: what we were to remove is gone then.
    there = {i: node for i, node in listed.items() if node.uid == uids[i]}
    certain = look.seen.proves_absence(spec.node_pool.node_pool_id)
    left = [i for i in batch.server_ids if i in there or (i not in listed and not certain)]
    over = batch.job_id is None or batch.finish_time is not None or (report is not None and report.is_over)
    if left and not over:
        # An overdue job: it may still act, only a full success closes it.
        return state
    since = batches.begun(batch, look.now) if batch.job_id is None else min(batch.finish_time or look.now, look.now)
    stuck = _stuck(left, there, report, look, since)
    rest = [i for i in left if i not in stuck]
    failed = (batch.failed or 0) + len(stuck)
    batch = replace(
        batch,
        phase=Phase.VERIFYING,
        server_ids=tuple(rest),
        node_ids=tuple(uids[i] for i in rest),
        finish_time=None if batch.job_id is None else since,
        failed=failed or None,
        message=f"failed: {failed} {FailureReason.REMOVAL_FAILED}" if failed else batch.message,
    )
    if not rest:
        batch = _closed(batch, look.now)
    state = state.with_batch(batch)
    for server_id, node in stuck.items():
        state = give_back(state, [server_id], Cause(FailureReason.REMOVAL_FAILED, _why(node, report), batch.attempt))
    return state


def _stuck(
    left: Iterable[str], there: dict[str, Node], report: JobReport | None, look: _Look, since: datetime
) -> dict[str, Node]:
    """Nodes that will not go by waiting: the settle window has passed, or the job failed and left them alone."""
    if min(look.now, look.table.begun) >= since + look.settings.settle_window:
        return {i: there[i] for i in left if i in there}
    if report is None or report.phase is not JobPhase.FAILED:
        return {}
    return {i: there[i] for i in left if i in there and there[i].phase != LEAVING}


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
