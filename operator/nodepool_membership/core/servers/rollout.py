"""A new template of the node pool meets a few servers before it meets many: the canary (rule P28).

Not for: which servers they are (`eligibility`), or the brake on many failures (`batches`).
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Halt, Operation
from nodepool_membership.core.observed.observation import PoolReport
from nodepool_membership.core.state.state import State, finished

_UNTOLD: Final = "-"
"""Stands for the template of a pool that tells none."""


def template_digest(pool: PoolReport) -> str:
    """What stands for the pool's template as it was read: changes with it."""
    return pool.template.digest or _UNTOLD


def proven(state: State, batch: Batch, pool: PoolReport | None, *, joined: bool) -> State:
    """The template has proven itself if a server joined by a call that was made after it was read as it is now."""
    if not joined or pool is None or batch.template != template_digest(pool):
        return state
    return replace(state, proven_template=batch.template)


def most(state: State, spec: Spec, pool: PoolReport) -> int:
    """How many servers the next add may name; 0: the canary is under way, and nothing goes beside it."""
    template = template_digest(pool)
    if not spec.rollout.canary or state.proven_template == template:
        return spec.batch_size
    if any(b.operation is Operation.ADD and b.template == template for b in state.open_batches):
        return 0
    return min(spec.rollout.canary, spec.batch_size)


def failed(state: State, spec: Spec, pool: PoolReport, now: datetime) -> Halt | None:
    """The halt of adds after a canary that was wiped and did not join; what an edit or a reset answered is over."""
    template = template_digest(pool)
    if not spec.rollout.canary or state.proven_template == template:
        return None
    adds = (b for b in finished(state.batches) if b.operation is Operation.ADD and b.template == template)
    lost = sum((b.failed or 0) - (b.pardoned or 0) for b in adds)
    if lost <= 0:
        return None
    text = (
        f"the canary was WIPED and did not join ({lost} of it failed), so the node pool's template is tried on no other"
        " server: look at the template and at status.failures"
    )
    return Halt(Reason.CANARY_FAILED, text, now)
