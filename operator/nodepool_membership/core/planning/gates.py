"""What must be so before any call, an add or a removal, and what tells that it is not.

Not for: which servers are named (`eligibility`, `removing`), or what the conditions say in the end (`verdict`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import MAX_JOBS, PAUSED_ANNOTATION
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.core.observed import clock
from nodepool_membership.core.observed.observation import Observation, Query
from nodepool_membership.core.observed.waiting import Blocker, WaitsFor
from nodepool_membership.core.planning import eligibility
from nodepool_membership.core.preflight import findings
from nodepool_membership.core.state import requests
from nodepool_membership.core.state.state import State

POOL_REFUSING: Final = frozenset({"Deleting", "Error"})
CLUSTER_ACCEPTING: Final = frozenset({"Available"})


@dataclass(frozen=True, slots=True)
class Step:
    """What planning one kind of call came to: the state to store, an intent or what keeps one from being made."""

    state: State
    intent: Batch | None = None
    blocker: Blocker | None = None
    delay: float | None = None
    """Seconds until the next call may be made, if that is known."""
    more: bool = False
    """Servers could be named in a call but wait for a place: a running job, or the budget."""
    turn: float | None = None
    """Seconds until the write budget may have a place, where that is what a call waits for."""
    waits_for: WaitsFor | None = None
    """What must come about first, where that is known without a look."""
    doubted: bool = False
    """A refused call was carried out in part: no later refusal of this pool is to be trusted (rule P15)."""


def seconds(wait: timedelta) -> float:
    """A wait that may lie in the past, for `Step.delay`."""
    return max(wait.total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that is about to be made. `by_tag`: that its servers have no node their own documents have to show."""

    operation: Operation
    servers: int
    by_tag: bool = False


def before_call(  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
    membership: Membership, state: State, wanted: Wanted, seen: Observation, now: datetime
) -> Step | Query | None:
    """What keeps such a call from being made now; None: nothing, so store its intent.

    The questions that cost something come last, and whether it is paused at the very end.
    """
    pool_id = membership.spec.node_pool.node_pool_id
    if state.recovers(now) and state.recovery is not None:
        return Step(state, blocker=STATUS_LOST, delay=seconds(state.recovery.until - now))
    if (blocker := paused_object(membership)) is not None:
        return Step(state, blocker=blocker)
    if (wait := state.waits_until(wanted.operation, now)) is not None:
        return Step(state, blocker=Blocker(wait.reason, wait.message), delay=seconds(wait.until - now))
    if (blocker := not_usable(seen, pool_id, by_tag=wanted.by_tag)) is not None:
        return Step(state, blocker=blocker)
    if (blocker := too_large(wanted, state, seen.object_bytes)) is not None:
        return Step(state, blocker=blocker, waits_for=WaitsFor.CHANGE)
    if not eligibility.has_room(state):
        return Step(state, blocker=_CROWDED, more=True, waits_for=WaitsFor.CHANGE)
    if seen.namespace_state is None:
        return Query(namespace_state=True)
    if seen.namespace_state.paused is not None:
        return until_resumed(state, seen.namespace_state.paused)
    if seen.write_wait is None:
        return Query(write=True)
    return until_turn(state, seen, seen.write_wait) if seen.write_wait > 0 else None


def too_large(wanted: Wanted, state: State, object_bytes: int, *, more: int = 0) -> Blocker | None:
    """Why what becomes of such a call might not fit into an object of this size, and so many bytes more (rule P4)."""
    spare = eligibility.KEPT_FOR_REMOVALS + findings.BYTES if wanted.operation is Operation.ADD else 0
    if eligibility.fits(object_bytes, state, wanted.servers, spare=spare + more):
        return None
    text = (
        f"the object has {object_bytes} bytes and would outgrow what the API server stores: remove large"
        " annotations, set the annotation cce.nodepools.dev/reset-requested-at to have failures of servers off the"
        " list forgotten, or split spec.serverIDs over several memberships"
    )
    return Blocker(Reason.STATUS_FULL, text, stalls=True)


def until_turn(state: State, seen: Observation, wait: float) -> Step:
    """The next call waits for a place in the write budget."""
    blocker = None if seen.held_back is None else _HELD_BACK.get(seen.held_back)
    return Step(state, blocker=blocker, delay=wait, more=True, turn=wait, waits_for=WaitsFor.TURN)


def until_resumed(state: State, why: str) -> Step:
    """The next call waits until the pause of the namespace is taken off."""
    return Step(state, blocker=paused_namespace(why), waits_for=WaitsFor.RESUMED)


STATUS_LOST: Final = Blocker(
    Reason.STATUS_LOST,
    "the status was lost, or an older one restored, so a call may be under way that nobody knows of: nothing is called"
    " for one settle window; the annotation cce.nodepools.dev/reset-requested-at ends the wait",
)
STARTING: Final = Blocker(
    Reason.STARTING,
    "nothing is added or removed before the operator has read every membership once since its start, to know which"
    " servers the others claim: its log names those that it cannot read",
)
_CROWDED: Final = Blocker(
    Reason.PROGRESSING,
    f"status.jobs holds at most {MAX_JOBS} batches, so the next call waits until open ones are closed: servers that do"
    " not show are looked for as long as the settle window; a larger spec.batchSize makes fewer batches",
)
_HELD_BACK: Final = {
    Reason.THROTTLED: Blocker(
        Reason.THROTTLED, "the cloud throttled the writes of this access key; the operator waits before the next one"
    ),
    Reason.LOCKED: Blocker(
        Reason.LOCKED,
        "the cluster or pool is busy with another task, as a call of another membership was answered a moment ago; the"
        " operator waits before the next one",
    ),
}
"""By why nobody may write."""


def paused_object(membership: Membership) -> Blocker | None:
    """Why no call is started, where the object itself says so."""
    why = requests.paused(membership.metadata)
    return None if why is None else _paused("this object", why)


def paused_namespace(why: str) -> Blocker:
    """Why no call is started in a namespace that is paused."""
    return _paused("the namespace", why)


def _paused(where: str, why: str) -> Blocker:
    told = f": {why}" if why else ""
    text = f"paused by the annotation {PAUSED_ANNOTATION} of {where}{told}; no call is started until it is taken off"
    return Blocker(Reason.PAUSED, text)


def not_usable(seen: Observation, pool_id: str, *, by_tag: bool = False) -> Blocker | None:
    """Why no call can be made to the pool, by what was seen of it."""
    if (skewed := clock.skew(seen.clock_offset_seconds)) is not None:
        return Blocker(skewed.reason, skewed.message)
    if not by_tag and not seen.proves_absence(pool_id):
        return implausible()
    if seen.cluster is not None and seen.cluster.phase not in CLUSTER_ACCEPTING:
        phase = seen.cluster.phase or "unknown"
        text = f"the cluster is in phase {phase}; servers are added and removed while it is Available"
        return Blocker(Reason.CLUSTER_NOT_READY, text)
    if seen.pool is not None and seen.pool.phase in POOL_REFUSING:
        text = f"the node pool is in phase {seen.pool.phase}; look at it in the CCE console"
        return Blocker(Reason.POOL_NOT_READY, text)
    return None


def implausible() -> Blocker:
    """Node list and pool disagree."""
    text = (
        "the node list and the node pool's own count of nodes (currentNode) disagree, so it is not certain which"
        " servers have no node; looking again. If it stays, compare the pool's number of nodes with its nodes in"
        " the CCE console"
    )
    return Blocker(Reason.LISTING_IMPLAUSIBLE, text)
