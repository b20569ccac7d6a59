"""Whether the finalizer is on the object: one decision (rules P2, P20).

Not for: writing it (`runtime`).
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Operation, Phase, Status
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.state.settings import Settings

NO_CREDENTIALS: Final = frozenset({Reason.SECRET_NOT_FOUND, Reason.CREDENTIALS_INVALID, Reason.IDENTITY_REFUSED})
WITHOUT_CREDENTIALS: Final = timedelta(minutes=10)
"""How long a deleted object is held that cannot be followed up, because its credentials are gone (rule P20)."""


class Finalizer(StrEnum):
    """What becomes of the finalizer once the status is stored."""

    ON = "On"
    """It is put on, if it is not: a deletion would have something to wait for or to do."""
    AS_IS = "AsIs"
    OFF = "Off"
    """It is taken off: a deleted object is let go."""


def decided(
    membership: Membership,
    status: Status,
    now: datetime,
    settings: Settings,
    trouble: Trouble | None = None,
    *,
    stays: bool,
) -> Finalizer:
    """What becomes of it with `status`; `stays`: where nothing needs it, it is left as it is."""
    if is_needed(membership, status):
        if not membership.metadata.deleting:
            return Finalizer.ON
        if now < limit(membership, status, settings, trouble):
            return Finalizer.AS_IS
    return Finalizer.AS_IS if stays else Finalizer.OFF


def is_held(membership: Membership) -> bool:
    """Whether it is on an object that nobody deletes."""
    return FINALIZER in membership.metadata.finalizers and not membership.metadata.deleting


def is_needed(membership: Membership, status: Status) -> bool:
    """Whether a deletion would have something to wait for or to do.

    That is what is live, queued or owed, or was lost; under `deletionPolicy: Remove` also members. A queued part too,
    since no listing has shown yet that its call, which was refused, did nothing (rule P15). A node that is there holds
    nothing: whoever names its server next sees it.
    """
    if status.open_batches or status.surplus or any(b.phase is Phase.QUEUED for b in status.jobs):
        return True
    members = frozenset(status.members)
    if any(hold.since is not None and not members.issuperset(hold.server_ids) for hold in status.holds):
        return True
    if membership.metadata.deleting:
        return False
    if status.recovery is not None:
        return True
    return membership.spec.deletion_policy is RemovalPolicy.REMOVE and bool(status.members)


def limit(membership: Membership, status: Status, settings: Settings, trouble: Trouble | None = None) -> datetime:
    """When a deleted object is let go, whatever is open (rule P20).

    Settle window and join timeout after its last progress: the deletion, a call, or a removal that ended.
    """
    deleted = membership.metadata.deletion_timestamp
    if deleted is None:
        raise ValueError("only a deleted object is let go")
    if trouble is not None and trouble.reason in NO_CREDENTIALS:
        return deleted + min(WITHOUT_CREDENTIALS, settings.settle_window + _join_timeout(membership))
    moments = [deleted, *(b.submit_time for b in status.jobs)]
    moments += [b.finish_time for b in status.jobs if b.operation is Operation.REMOVE]
    last = max(moment for moment in moments if moment is not None)
    return last + settings.settle_window + _join_timeout(membership)


def _join_timeout(membership: Membership) -> timedelta:
    return timedelta(seconds=membership.spec.join_timeout_seconds)
