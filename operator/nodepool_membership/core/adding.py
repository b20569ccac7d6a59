"""What is added next, if anything: the next intent, or what keeps one from being made.

Not for: which servers are eligible (`plan`), or what the membership's conditions say in the end (`decide`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import MAX_JOBS
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch
from nodepool_membership.core import batches, clock, conditions, narrowing, plan
from nodepool_membership.core.conditions import Verdict
from nodepool_membership.core.observation import Look, Observation, Trouble
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State

POOL_REFUSING: Final = frozenset({"Deleting", "Error"})
CLUSTER_ACCEPTING: Final = frozenset({"Available"})


@dataclass(frozen=True, slots=True)
class Step:
    """What planning came to: the state to store, an intent or what keeps one from being made."""

    state: State
    intent: Batch | None = None
    hindrance: Verdict | None = None
    delay: float | None = None
    doubted: bool = False
    more: bool = False
    """Servers could be named in a call but wait for a place: a running job, or the budget."""
    retries: bool = False
    """Calls wait for the next retry of a failed server, and for nothing else: a removal need not."""


STATUS_LOST: Final = Trouble(
    Reason.STATUS_LOST,
    "the finalizer is there but the status was lost, so an add may be under way: nothing is added for one settle"
    " window; to end the wait set the reset annotation",
)


def quarantined(membership: Membership, state: State, now: datetime) -> bool:
    """Whether a lost status is waited out. Known by the wait itself: without a batch nothing else makes one wait."""
    return not membership.status.last_batch and state.next_attempt is not None and state.next_attempt > now


def may_add(membership: Membership, state: State, now: datetime) -> bool:
    """Whether an add could start now as far as the membership itself is concerned."""
    spec = membership.spec
    waits = state.halt is not None or (state.next_attempt is not None and state.next_attempt > now)
    return not waits and (spec.suspend or batches.in_flight(state) < spec.max_parallel_jobs)


def next_add(membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings) -> Step | Look:
    """The next add (rules P1, P3, P4), or the place in the write budget that has to be asked for first."""
    spec = membership.spec
    if membership.metadata.deleting or spec.suspend or seen.listing is None or not seen.is_fresh:
        return Step(state)
    if (skewed := clock.skew(seen.clock_offset_seconds)) is not None:
        # A wait that such a clock takes for over may not be.
        waits = state.open_batches or state.queued or plan.candidates(state, spec)
        return Step(state, hindrance=conditions.waiting(skewed) if waits else None)
    if plan.shows(state.queued, seen.listing, spec.node_pool.node_pool_id):
        return Step(narrowing.in_doubt(state, now), doubted=True)
    if state.halt is not None:
        return Step(state)
    if seen.rivals is None:
        waits = state.queued or plan.candidates(state, spec)
        return Step(state, hindrance=conditions.waiting(_STARTING) if waits else None)
    if not quarantined(membership, state, now):
        # What was recorded during that wait left the counter at 0, with which the next wait would pass for another one.
        state = replace(state, last_batch=plan.next_number(state) - 1)
    state = plan.without_idle_parts(state, spec)
    chosen = plan.next_part(state, spec) or plan.eligible(state, spec, seen.listing, now, settings)
    if state.next_attempt is not None and state.next_attempt > now:
        # A wait is a hindrance only to servers that could be sent: its cause may be gone since it began.
        waited_for = _waited_for(membership) if isinstance(chosen, plan.Eligible) else None
        retries = isinstance(chosen, plan.RetryAt) and chosen.moment == state.next_attempt
        return Step(state, hindrance=waited_for, delay=seconds(state.next_attempt - now), retries=retries)
    if isinstance(chosen, plan.RetryAt):
        state = replace(state, next_attempt=chosen.moment)
        return Step(state, delay=seconds(chosen.moment - now), retries=True)
    state = replace(state, next_attempt=None)
    if chosen is None:
        return Step(state)
    if batches.in_flight(state) >= spec.max_parallel_jobs:
        return Step(state, more=True)
    return _add(membership, state, chosen, seen, now)


def _add(membership: Membership, state: State, chosen: plan.Eligible, seen: Observation, now: datetime) -> Step | Look:
    """The intent, unless something outside the membership is in the way of it."""
    spec = membership.spec
    blocked = in_the_way(state, seen, spec.node_pool.node_pool_id, min(chosen.total, spec.batch_size))
    if blocked is not None:
        return blocked
    planned, intent = plan.intend(state, spec, chosen, now)
    return Step(planned, intent=intent)


def in_the_way(state: State, seen: Observation, pool_id: str, servers: int) -> Step | Look | None:
    """What keeps a call that names so many servers from being made now, apart from the membership itself."""
    hindrance = _not_usable(seen, pool_id)
    if hindrance is not None:
        return Step(state, hindrance=conditions.waiting(hindrance))
    if not plan.fits(seen.object_bytes, state, servers):
        text = (
            f"the object has {seen.object_bytes} bytes and would outgrow what the API server stores: remove large"
            " annotations, set the reset annotation to have failures of servers off the list forgotten, or split"
            " spec.serverIDs over several memberships"
        )
        return Step(state, hindrance=conditions.stalled(Reason.STATUS_FULL, text))
    if not plan.has_room(state):
        return Step(state, hindrance=conditions.waiting(_CROWDED), more=True)
    if seen.write_wait is None:
        return Look(write=True)
    if seen.write_wait > 0:
        throttled = conditions.waiting(_THROTTLED) if seen.throttled else None
        return Step(state, hindrance=throttled, delay=seen.write_wait, more=True)
    return None


_STARTING: Final = Trouble(
    Reason.STARTING,
    "nothing is added before the operator has read every membership once since its start, to know which servers the"
    " others claim: its log names those that it cannot read",
)

_CROWDED: Final = Trouble(
    Reason.PROGRESSING,
    f"status.jobs holds at most {MAX_JOBS} batches, so the next call waits until open ones are closed: servers that do"
    " not show are looked for as long as the settle window; a larger spec.batchSize makes fewer batches",
)

_THROTTLED: Final = Trouble(
    Reason.THROTTLED, "the cloud throttled the writes of this access key; the operator waits before the next one"
)


def seconds(wait: timedelta) -> float:
    """A wait that may lie in the past, for `Step.delay`."""
    return max(wait.total_seconds(), 0.0)


def _not_usable(seen: Observation, pool_id: str) -> Trouble | None:
    if (skewed := clock.skew(seen.clock_offset_seconds)) is not None:
        return skewed
    if not seen.proves_absence(pool_id):
        text = (
            "the node list and the node pool's own count of nodes (currentNode) disagree, so it is not certain which"
            " servers have no node; looking again. If it stays, compare the pool's number of nodes with its nodes in"
            " the CCE console"
        )
        return Trouble(Reason.LISTING_IMPLAUSIBLE, text)
    if seen.cluster is not None and seen.cluster.phase not in CLUSTER_ACCEPTING:
        phase = seen.cluster.phase or "unknown"
        text = f"the cluster is in phase {phase}; servers are added and removed while it is Available"
        return Trouble(Reason.CLUSTER_NOT_READY, text)
    if seen.pool is not None and seen.pool.phase in POOL_REFUSING:
        text = f"the node pool is in phase {seen.pool.phase}; look at it in the CCE console"
        return Trouble(Reason.POOL_NOT_READY, text)
    return None


def _waited_for(membership: Membership) -> Verdict | None:
    """Why calls wait: a lost status, or word for word what the stored conditions tell; None when they tell no wait."""
    if not membership.status.last_batch:
        return conditions.waiting(STATUS_LOST)
    ready, also = membership.status.condition("Ready"), membership.status.condition("Reconciling")
    if ready is None or also is None or also.reason is not Reason.PROGRESSING_WITH_RETRY or ready.status != "False":
        return None
    if membership.status.observed_generation != membership.metadata.generation:
        return None
    return Verdict("False", ready.reason, ready.message, "Reconciling", also.reason)
