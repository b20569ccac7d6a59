"""At which known times something happens by itself: the next call of each kind, and the end of a settle window.

Not for: deciding that it happens then (`gates`, `eligibility`, `removing`, `batches`). What is told here is output.
"""

from collections.abc import Iterator, Set
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import HOLDS_NODE, FailureReason
from nodepool_membership.api.spec import Approval
from nodepool_membership.api.status import Batch, Failure, Operation, Phase, Status
from nodepool_membership.core.servers import batches
from nodepool_membership.core.state.failures import cause_of
from nodepool_membership.core.state.requests import paused
from nodepool_membership.core.state.settings import Settings

_NOT_MADE: Final = frozenset({Phase.QUEUED, Phase.REFUSED, Phase.WITHDRAWN})
_SAME: Final = timedelta(seconds=2)
"""A time that is computed anew at each look is the same time within so much."""


def settles(batch: Batch, settings: Settings) -> datetime | None:
    """When the settle window of an open batch ends, if it runs."""
    if batch.settling_since is not None:
        return batch.settling_since + settings.settle_window
    if batch.phase is Phase.VERIFYING and batch.job_id is None and batch.submit_time is not None:
        return batch.submit_time + settings.settle_window
    return None


def windows(membership: Membership, status: Status, settings: Settings) -> Iterator[datetime]:
    """When settle windows end: of open batches, and of servers that are added again once their node is gone so long."""
    yield from (end for batch in status.open_batches if (end := settles(batch, settings)) is not None)
    listed = membership.spec.server_ids
    gone = (group for group in status.failures if group.reason is FailureReason.NODE_VANISHED)
    yield from (group.retry_time for group in gone if group.retry_time and not listed.isdisjoint(group.server_ids))


def removal(membership: Membership, status: Status, settings: Settings) -> datetime | None:
    """When members that are owed removal begin to be removed; it may have passed. None: not before a person acts."""
    spec = membership.spec
    if not status.surplus or status.surplus_since is None:
        return None
    if spec.approval is Approval.MANUAL and _approved(status).isdisjoint(status.members):
        return None
    if kept_by_jobs(membership, status):
        return None
    moments = [status.surplus_since + settings.removal_delay]
    moments += [wait.until for wait in status.waits if wait.operation is Operation.REMOVE]
    moments += [status.recovery.until] if status.recovery is not None else []
    failed = [group for group in status.failures if group.reason is FailureReason.REMOVAL_FAILED]
    if sum(group.count for group in failed) >= status.surplus:
        again = [group.retry_time for group in failed if group.attempts < spec.max_attempts]
        if not again:
            return None
        retries = [moment for moment in again if moment is not None]
        if len(retries) == len(again):
            moments.append(min(retries))
    return max(moments)


def kept_by_jobs(membership: Membership, status: Status) -> bool:
    """Whether adds that are under way, whose job may be overdue, name all members that are owed removal."""
    called = frozenset(i for batch in status.open_batches for i in batch.server_ids)
    listed = frozenset() if membership.metadata.deleting else membership.spec.server_ids
    return bool(status.surplus) and called.issuperset(i for i in status.members if i not in listed)


def add(membership: Membership, status: Status, theirs: Set[str], now: datetime) -> datetime | None:
    """When the next servers are named in an add, if nothing else comes in between; None: at once, or never.

    `theirs`: those who wait for another membership.
    """
    spec = membership.spec
    waits = [wait.until for wait in status.waits if wait.operation is Operation.ADD]
    waits += [status.recovery.until] if status.recovery is not None else []
    until = max((moment for moment in waits if moment > now), default=None)
    if status.halt is not None or (until is None and not status.failures):
        return None
    free = spec.server_ids - theirs - frozenset(status.members)
    free -= frozenset(i for batch in status.open_batches for i in batch.server_ids)
    if spec.approval is Approval.MANUAL:
        free &= _approved(status)
    retries = []
    for group in status.failures:
        ids = free.intersection(group.server_ids)
        if group.attempts >= spec.max_attempts or cause_of(group).is_final(spec.max_attempts):
            free -= ids
        elif ids and group.retry_time is not None and group.retry_time > now:
            free -= ids
            if group.reason not in HOLDS_NODE:
                retries.append(group.retry_time)
    if free:
        return until
    if not retries:
        return None
    return min(retries) if until is None else max(until, min(retries))


def _approved(status: Status) -> frozenset[str]:
    return frozenset() if status.approved_plan is None else frozenset(status.approved_plan.server_ids)


def again(group: Failure, max_attempts: int, now: datetime) -> datetime | None:
    """When servers that failed are tried or judged again by themselves."""
    due = group.reason in HOLDS_NODE or group.attempts < max_attempts
    return group.retry_time if due and group.retry_time is not None and group.retry_time > now else None


def judged(membership: Membership, status: Status) -> Iterator[datetime]:
    """When servers whose nodes are waited for count as failed."""
    for group in status.failures:
        late = group.reason in HOLDS_NODE and group.retry_time is not None
        if late and group.retry_time and not membership.spec.server_ids.isdisjoint(group.server_ids):
            yield group.retry_time


def next_time(
    membership: Membership,
    status: Status,
    now: datetime,
    settings: Settings,
    *,
    theirs: Set[str] = frozenset(),
    stopped: bool = False,
) -> datetime | None:
    """The first of all these times that is still to come.

    `stopped`: calls are kept from being made by what only a person ends.
    """
    # No call is made before a running job ends, which has no known time.
    stopped = stopped or batches.fill_all_turns(status.open_batches, membership.spec, now)
    moments = [moment for batch in status.open_batches if (moment := settles(batch, settings)) is not None]
    suspended, deleting = membership.spec.suspend, membership.metadata.deleting
    if not suspended and not deleting:
        moments += judged(membership, status)
    if not suspended and not stopped and paused(membership.metadata) is None:
        calls = [removal(membership, status, settings), None if deleting else add(membership, status, theirs, now)]
        moments += [moment for moment in calls if moment is not None]
    return min((moment for moment in moments if moment > now), default=None)


def made_since_edit(membership: Membership, status: Status, operation: Operation) -> int | None:
    """How many calls of a kind were accepted, or may have been, since the spec was edited; None: nobody knows."""
    edit = membership.metadata.last_edit
    if edit is None or edit.time is None or not status.jobs:
        return None if status.last_batch else 0
    since = edit.time
    oldest = min(status.jobs, key=lambda batch: batch.batch)
    if oldest.batch > 1 and (oldest.submit_time is None or oldest.submit_time >= since):
        return None
    calls = [b for b in status.jobs if b.operation is operation and b.phase not in _NOT_MADE]
    return sum(1 for b in calls if b.submit_time is not None and b.submit_time >= since)


def is_first(turn: datetime, first: datetime | None, now: datetime) -> bool:
    """Whether the place in the write budget comes clearly before all else: the next look knows it by its time."""
    return turn > now and (first is None or turn + _SAME < first)


def rounded(moment: datetime, before: datetime | None) -> datetime:
    """A time that is computed anew at each look, as it was told before unless it is another: looks must not write."""
    moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    if before is not None and abs(moment - before) <= _SAME:
        return before
    return moment
