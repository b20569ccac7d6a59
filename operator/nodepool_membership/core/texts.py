"""What people read in conditions: numbers, what is WIPED, the cause, when next, the remedy - in that order.

Not for: which of it is said (`verdict`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Failure, Operation, Plan, Status
from nodepool_membership.core import finalizer
from nodepool_membership.core.settings import Settings

HALTED: Final = (
    "nothing more is added until the spec changes or the annotation cce.nodepools.dev/reset-requested-at is set"
)
_NAMED: Final = 3


def some(ids: Sequence[str], where: str) -> str:
    """Up to three ids by name."""
    more = len(ids) - _NAMED
    return ", ".join(ids[:_NAMED]) + (f" and {more} more in {where}" if more > 0 else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def members(status: Status) -> str:
    if status.desired == 0:
        return "0 of 0 servers: the list is empty"
    return f"{status.joined} of {status.desired} servers are Active members of the pool"


def progress(status: Status, settings: Settings | None = None) -> str:
    """Where the servers are."""
    parts = [f"{status.joined} of {status.desired} servers joined"]
    removals = [b for b in status.open_batches if b.operation is Operation.REMOVE]
    if status.joining:
        batches = len(status.open_batches) - len(removals)
        parts.append(f"{status.joining} joining in {counted(batches, 'batch', 'batches')}")
    if removals:
        parts.append(f"{sum(len(b.server_ids) for b in removals)} being removed")
    if status.surplus:
        parts.append(_owed(status, settings))
    if status.pending:
        parts.append(f"{status.pending} pending")
    if status.failed:
        parts.append(f"{status.failed} failed")
    return ", ".join(parts)


def _owed(status: Status, settings: Settings | None) -> str:
    text = f"{status.surplus} to be removed and REINSTALLED"
    if settings is None or status.surplus_since is None or status.waits:
        return text
    return f"{text} from {rfc3339(status.surplus_since + settings.removal_delay)} on"


def causes(groups: Sequence[Failure]) -> str:
    """The largest group of failures, and how many more there are."""
    first = groups[0]
    more = f"; {counted(len(groups) - 1, 'more cause')} in status.failures" if len(groups) > 1 else ""
    when = f"; next attempt at {rfc3339(first.retry_time)}" if first.retry_time is not None else ""
    return f"{first.count} {first.reason}: {first.message}{when}{more}"


def preview(plan: Plan, status: Status) -> list[str]:
    """What would be done after a suspension."""
    how = f" in {counted(plan.calls, 'call')}, which WIPES them" if plan.add else ""
    parts = [f"would add {plan.add}{how}, adopt {plan.adopt}"]
    if plan.remove:
        parts.append(f"would remove {plan.remove}, which REINSTALLS them")
    if status.open_batches:
        parts.append(f"{status.joining} joining in {counted(len(status.open_batches), 'open batch', 'open batches')}")
    if status.failed:
        parts.append(f"{status.failed} failed")
    return parts


def deleting(membership: Membership, status: Status, now: datetime, settings: Settings, why: Sequence[str]) -> str:
    """What a deletion still waits for, and until when at the latest."""
    parts = []
    if status.surplus:
        text = f"{status.surplus} to be removed and REINSTALLED (spec.deletionPolicy)"
        start = None if status.surplus_since is None else status.surplus_since + settings.removal_delay
        if start is not None and start > now:
            text = f"{text} from {rfc3339(start)} on"
        parts.append(f"{text}; spec.deletionPolicy: Retain stops it")
    if status.open_batches:
        jobs = [f"batch {b.batch}" + (f" (job {b.job_id})" if b.job_id else "") for b in status.open_batches]
        parts.append(f"waiting for {some(jobs, 'status.jobs')} to end")
    elif not status.surplus:
        parts.append("nothing is open" if not status.holds else "waiting until no earlier call can act on its servers")
    if status.open_batches or status.surplus or status.holds:
        parts.append(f"at the latest {rfc3339(finalizer.limit(membership, status, settings))}")
    return "; ".join([*parts, *why])


def overdue(batches: Sequence[int], spec: Spec) -> str:
    """A job that does not end."""
    which = some([str(number) for number in batches], "status.jobs")
    return (
        f"the job of batch {which} runs longer than spec.joinTimeoutSeconds ({spec.join_timeout_seconds} s): look at it"
        " in the CCE console; it is followed until it ends, its servers are not named in another call,"
        " and other servers are added meanwhile"
    )


def braked(failed: int, servers: int) -> str:
    """Why the brake was pulled."""
    return (
        f"{failed} of {counted(servers, 'server')} were WIPED and did not join; adding is stopped, the others are"
        " untouched: look at the node pool's template and at status.failures"
    )
