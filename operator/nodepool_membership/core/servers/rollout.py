"""A new template of the node pool meets a few servers before it meets many: the canary (rule P28).

Not for: which servers they are (`eligibility`), or the brake on many failures (`batches`).
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Halt, Operation, Phase
from nodepool_membership.core.observed import provenance
from nodepool_membership.core.observed.observation import ACTIVE, Node, NodeTable, PoolReport
from nodepool_membership.core.state.settings import JOB_GRACE
from nodepool_membership.core.state.state import State

_UNTOLD: Final = "-"
"""Stands for the template of a pool that tells none."""


def template_digest(pool: PoolReport) -> str:
    """What stands for the pool's template as it was read: changes with it."""
    return pool.template.digest or _UNTOLD


def proven(state: State, batch: Batch, pool: PoolReport | None, *, joined: bool) -> State:
    """The template has proven itself if a server joined by a call that was made after it was read as it is now.

    That ends a halt by a canary that was only late.
    """
    if not joined or pool is None or batch.template != template_digest(pool):
        return state
    late = state.halt is not None and state.halt.reason is Reason.CANARY_FAILED
    return replace(state, proven_template=batch.template, halt=None if late else state.halt)


def proven_late(state: State, table: NodeTable, pool: PoolReport | None) -> State:
    """The same by members that joined when their call was over: after a time-out, or from a node that was broken.

    Whom a call named is known as long as its batch keeps the ids. Where it does not, a halt stays: the safe side.
    """
    if pool is None or state.proven_template == template_digest(pool):
        return state
    for batch in state.batches:
        if batch.operation is not Operation.ADD or batch.is_open or not batch.failed:
            continue
        nodes = table.nodes(state.members.intersection(batch.called_ids))
        state = proven(state, batch, pool, joined=any(_made_by(node, batch) for node in nodes.values()))
    return state


def _made_by(node: Node, batch: Batch) -> bool:
    """Whether a node is Active, and was there when its call was over, or names the call's job: the call made it."""
    if node.phase != ACTIVE:
        return False
    if batch.job_id is not None and node.job_id == batch.job_id:
        return True
    begun, ended = batch.submit_time, batch.finish_time
    if node.created is None or begun is None or ended is None:
        return False
    return node.created <= ended and not provenance.is_older(node, begun)


def most(state: State, spec: Spec, pool: PoolReport | None) -> int:
    """How many servers the next add may name; 0: the canary is under way, and nothing goes beside it.

    Without the pool, which a preview does not read, one that has proven itself is taken for the one that it has.
    """
    template = (state.proven_template or "") if pool is None else template_digest(pool)
    if not spec.rollout.canary or state.proven_template == template:
        return spec.batch_size
    adds = (b for b in state.open_batches if b.operation is Operation.ADD and b.template == template)
    if any((b.pardoned or 0) < b.servers for b in adds):
        return 0
    return min(spec.rollout.canary, spec.batch_size)


def failed(state: State, spec: Spec, pool: PoolReport, now: datetime) -> Halt | None:
    """The halt of adds after a canary that did not join, or not in time; what a person has answered is over."""
    template = template_digest(pool)
    if not spec.rollout.canary or state.proven_template == template:
        return None
    for batch in reversed(state.batches):
        if batch.operation is not Operation.ADD or batch.template != template:
            continue
        if (lost := _lost(batch, spec, now)) > 0:
            text = (
                f"the canary, batch {batch.batch}, {_fate(batch, state, spec, lost)}, so the node pool's template"
                " is tried on no other server: look at the template, status.jobs and status.failures"
            )
            return Halt(Reason.CANARY_FAILED, text, now)
    return None


def _lost(batch: Batch, spec: Spec, now: datetime) -> int:
    """How many servers of a canary did not join, as far as nobody has answered for them."""
    if batch.is_open:
        lost = batch.servers if _is_late(batch, spec, now) else 0
    elif batch.phase is Phase.FAILED:
        # Also of a call that nobody heard the answer of: no node showed, but whom it has wiped nobody knows.
        lost = batch.servers - (batch.adopted or 0)
    else:
        lost = batch.failed or 0
    return lost - (batch.pardoned or 0)


def _is_late(batch: Batch, spec: Spec, now: datetime) -> bool:
    """Whether the time is over in which a canary is to join, whatever its call still does."""
    limit = timedelta(seconds=spec.join_timeout_seconds) + JOB_GRACE
    return batch.submit_time is not None and now > batch.submit_time + limit


def _fate(batch: Batch, state: State, spec: Spec, lost: int) -> str:
    if batch.is_open:
        return f"did not join within spec.joinTimeoutSeconds ({spec.join_timeout_seconds} s), and may be WIPED since"
    if not batch.failed:
        return (
            f"may have been WIPED and did not join: its call was not answered, and no node showed ({lost} looked for)"
        )
    seen = lost - min(_unseen(batch, state), lost)
    if seen == lost:
        return f"was WIPED and did not join ({lost} failed)"
    if not seen:
        return f"may have been WIPED and did not join: no node showed ({lost} looked for)"
    return f"did not join: {seen} WIPED, {lost - seen} more may have been WIPED, since no node of them showed"


def _unseen(batch: Batch, state: State) -> int:
    """Of how many servers of a call that is over nobody knows whether it has wiped them: they showed no node."""
    if not batch.called_ids:
        return batch.servers
    causes = (state.failures.get(i) for i in batch.called_ids)
    return sum(1 for cause in causes if cause is not None and cause.reason is FailureReason.NEVER_APPEARED)
