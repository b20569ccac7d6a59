"""What is known, held against the object as it is now: edits, requests by annotation, a lost status.

Not for: what was seen of the cloud (`decide`).
"""

import json
from dataclasses import asdict, replace
from datetime import datetime

from nodepool_membership.api.codec import digest
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import PREFLIGHT, FailureReason, Reason
from nodepool_membership.api.spec import RemovalPolicy, Spec
from nodepool_membership.api.status import Batch, Operation, Recovery
from nodepool_membership.core.state.requests import Reset, reconcile_requested, reset_requested
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State


def apply_edits_and_requests(membership: Membership, now: datetime, settings: Settings) -> State:
    """What is known, held against the spec as it is now: edits and requests end waits, a lost status begins one."""
    status = membership.status
    state = apply_spec(State.of(status), membership)
    edited = membership.metadata.generation != status.observed_generation
    if edited or state.surplus_since is None:
        # Which ids the list had before is not known: with every edit the wait for all of them begins anew.
        state = replace(state, surplus_since=now)
    if is_lost(membership):
        return replace(state, recovery=Recovery(now, now + settings.settle_window))
    reset = reset_requested(membership)
    if reset is not None and reset.is_followed:
        state = _to_be_read_again(_reset(state, membership, reset), membership.spec, now)
    if edited or reconcile_requested(membership) is not None:
        state = _to_be_read_again(state.without_waits(*Operation), membership.spec, now)
        answered = edited and status.observed_spec != spec_digest(membership.spec)
        if answered or (state.halt is not None and state.halt.reason is Reason.POOL_REFUSES):
            state = state.pardoned()
    return state.without_queued() if membership.metadata.deleting else state


def _to_be_read_again(state: State, spec: Spec, now: datetime) -> State:
    """Servers that were read and not sent are read at once: what was asked of them may be another thing now.

    But those who have no attempt left to be sent with.
    """
    known = [(i, cause) for i, cause in state.failures.items() if cause.reason in PREFLIGHT]
    wanted = [(i, cause, now if cause.attempts < spec.max_attempts else None) for i, cause in known]
    again = [(i, replace(cause, retry_at=at)) for i, cause, at in wanted if (cause.retry_at is None) != (at is None)]
    return state.with_causes(again) if again else state


def spec_digest(spec: Spec) -> str:
    """What was asked for, in 16 characters, whether suspended or not."""
    parts = asdict(replace(spec, suspend=False))
    return digest(json.dumps(parts, default=sorted, sort_keys=True))


def is_lost(membership: Membership) -> bool:
    """Whether a status was lost, so that a call may be under way which nobody knows of (rule P2)."""
    return membership.status.last_batch is None and FINALIZER in membership.metadata.finalizers


def apply_spec(state: State, membership: Membership) -> State:
    """Hold what is recorded against the spec: what left the list is owed or released (rule P18).

    Attempts that an add has cost a server stay known when it leaves the list (rule P12).
    """
    desired = membership.spec.server_ids
    recorded = state.members | state.surplus
    stays = _may_stay(state, membership)
    surplus = _surplus(recorded, membership, stays=stays)
    state = replace(
        state,
        members=recorded if recorded <= desired else recorded & desired,
        batches=tuple(_released(b, desired, stays=stays) for b in state.batches),
        surplus=surplus,
        removal_policy=membership.spec.removal_policy,
    )
    forgotten = []
    for server_id, cause in state.failures.items():
        if cause.reason is FailureReason.REMOVAL_FAILED:
            is_over = server_id not in surplus
        else:
            is_over = server_id not in desired and server_id not in surplus and not cause.attempts
        if is_over:
            forgotten.append(server_id)
    return state.without_causes(forgotten)


def _may_stay(state: State, membership: Membership) -> bool:
    """Whether an id that is off the list may have been off it under Retain, so that it is released."""
    # Of several edits that are seen at once nobody knows the order, nor what the policy was between them.
    several = membership.metadata.generation - membership.status.observed_generation > 1 + membership.metadata.deleting
    return several or RemovalPolicy.RETAIN in {membership.spec.removal_policy, state.removal_policy}


def _released(batch: Batch, desired: frozenset[str], *, stays: bool) -> Batch:
    """A removal under way, with whether whom it leaves in the pool is let go of."""
    if not batch.is_open or batch.operation is not Operation.REMOVE:
        return batch
    released = ((stays or batch.released) and not desired.issuperset(batch.server_ids)) or None
    return batch if released == batch.released else replace(batch, released=released)


def _surplus(recorded: frozenset[str], membership: Membership, *, stays: bool) -> frozenset[str]:
    spec = membership.spec
    off_the_list = frozenset[str]() if stays else recorded - spec.server_ids
    if not membership.metadata.deleting:
        return off_the_list
    # A deletion while suspended behaves as Retain.
    removes = spec.deletion_policy is RemovalPolicy.REMOVE and not spec.suspend
    return recorded & spec.server_ids | off_the_list if removes else frozenset()


def _reset(state: State, membership: Membership, reset: Reset) -> State:
    """Give attempts back, take up vanished members again, and let adds go on.

    Failures off the list are forgotten, since nothing else ever makes room for new ones (rule P4). What is live stays
    so (rule P8).
    """
    covered = {i for i, cause in state.failures.items() if reset.covers(i, cause)}
    covered |= {i for i in state.vanished if reset.covers(i, state.failures.get(i))}
    back = state.vanished & covered
    state = replace(state, members=state.members - back, surplus=state.surplus - back)
    mine = membership.spec.server_ids | state.surplus
    failures, called = {}, state.called
    for server_id, cause in state.failures.items():
        if server_id not in covered or server_id in called:
            failures[server_id] = cause
        elif server_id in mine and server_id not in back:
            failures[server_id] = replace(cause, attempts=0, retry_at=None, asked=0)
    state = replace(state, failures=failures).pardoned().without_waits(*Operation)
    return replace(state, recovery=None) if reset.is_whole else state
