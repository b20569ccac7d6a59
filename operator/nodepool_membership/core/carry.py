"""What is known, held against the object as it is now: edits, requests by annotation, a lost status.

Not for: what was seen of the cloud (`decide`).
"""

import hashlib
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.membership import Membership, Metadata
from nodepool_membership.api.names import FINALIZER, RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS
from nodepool_membership.api.reasons import Reason
from nodepool_membership.core import conditions, plan, servers
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State

MAX_TOKEN: Final = 256


def requested(membership: Membership) -> str | None:
    """The value of a reconcile request that was not answered yet."""
    token = _token(membership.metadata, RECONCILE_ANNOTATIONS)
    return token if token is not None and token != membership.status.last_handled_reconcile_at else None


def reset_requested(membership: Membership) -> str | None:
    """The value of a reset request that was not answered yet; it counts only beside the same reconcile request."""
    return unhandled_reset(membership.metadata, membership.status.last_handled_reset_at)


def unhandled_reset(metadata: Metadata, handled: str | None) -> str | None:
    """The same of an object whose last handled reset is known from elsewhere."""
    token = _token(metadata, RESET_ANNOTATIONS)
    return None if token in {None, handled} or token != _token(metadata, RECONCILE_ANNOTATIONS) else token


def _token(metadata: Metadata, names: tuple[str, ...]) -> str | None:
    value = next((v for n in names if (v := metadata.annotations.get(n))), None)
    if value is None or len(value) <= MAX_TOKEN:
        return value
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()


def carry_over(membership: Membership, now: datetime, settings: Settings) -> State:
    """What is known, held against the spec as it is now: edits and requests end waits, a lost status begins one."""
    status, spec = membership.status, membership.spec
    state = servers.sort_out(State.of(status), membership)
    edited = membership.metadata.generation != status.observed_generation
    if edited or state.surplus_since is None:
        # Which ids the list had before is not known: with every edit the wait for all of them begins anew.
        state = replace(state, surplus_since=now)
    if is_lost(membership):
        return replace(state, next_attempt=now + settings.settle_window)
    reset = reset_requested(membership)
    if reset is not None:
        state = plan.give_attempts_back(servers.take_up_again(state), spec)
    state = replace(state, halt=conditions.halt_of(status))
    asked = requested(membership) is not None
    if reset is not None or ((edited or asked) and status.last_batch):
        state = replace(state, next_attempt=None)
    if reset is not None or edited or (asked and state.halt is Reason.POOL_REFUSES):
        state = replace(state, halt=None)
    return state.without_queued() if membership.metadata.deleting else state


def is_lost(membership: Membership) -> bool:
    """Whether a status was lost, so that an add may be under way which nobody knows of (rule P2)."""
    return membership.status.last_batch is None and FINALIZER in membership.metadata.finalizers
