"""What people read in conditions: number and what, what is WIPED, the cause, when next, the remedy - in that order.

Up to three servers by name. Not for: which of it is said (`verdict`), or Events (`events`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import HOLDS_NODE, PREFLIGHT
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Failure, Operation, Plan, Status
from nodepool_membership.core.conditions import finalizer, upcoming
from nodepool_membership.core.observed.rivals import ELSEWHERE, Rivals
from nodepool_membership.core.state.requests import paused
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.wording import are, counted, some, them

HALTED: Final = (
    "nothing more is added until the spec (not only suspend) changes"
    " or the annotation cce.nodepools.dev/reset-requested-at is set"
)


def surplus_ids(membership: Membership, status: Status) -> Sequence[str]:
    """The recorded members that are owed removal, sorted."""
    if not status.surplus:
        return ()
    off_the_list = [i for i in status.members if i not in membership.spec.server_ids]
    return off_the_list if len(off_the_list) == status.surplus else status.members


def members(status: Status) -> str:
    """All that are wanted are there."""
    if status.desired == 0:
        return "0 of 0 servers: the list is empty"
    what = "an Active member" if status.desired == 1 else "Active members"
    return f"{status.joined} of {counted(status.desired, 'server')} {are(status.desired)} {what} of the pool"


def progress(
    membership: Membership, status: Status, settings: Settings, turn: datetime | None = None, theirs: int = 0
) -> str:
    """Where the servers are, and what comes at a known time. `turn`: when the write budget has a place.

    `theirs`: how many of the pending wait for another membership.
    """
    parts = [counts(status)]
    if status.surplus:
        parts.append(surplus(membership, status, settings))
    parts += [text for batch in status.open_batches if (text := _settling(batch, settings)) is not None]
    if turn is not None and (next_one := _next_call(membership, status, theirs)) is not None:
        parts.append(f"{next_one} at {rfc3339(turn)}: the write budget has no place before")
    return "; ".join(parts)


def _next_call(membership: Membership, status: Status, theirs: int) -> str | None:
    """Which call comes next: of all since the last edit, where their number is known."""
    adds = status.pending - theirs
    operation, servers = (Operation.ADD, adds) if adds > 0 else (Operation.REMOVE, status.surplus)
    if servers <= 0:
        return None
    what = "call" if operation is Operation.ADD else "removal call"
    left = -(-servers // membership.spec.batch_size)
    made = upcoming.made_since_edit(membership, status, operation)
    if made is not None:
        return f"{what} {made + 1} of {made + left}"
    return f"the next of {left} more {what}s" if left > 1 else f"1 more {what}"


def counts(status: Status) -> str:
    """Every server in one place."""
    parts = [f"{status.joined} of {counted(status.desired, 'server')} joined", *_under_way(status)]
    if status.pending:
        parts.append(f"{status.pending} pending")
    if status.failed:
        parts.append(f"{status.failed} failed")
    return ", ".join(parts)


def _under_way(status: Status) -> list[str]:
    """What open calls are about."""
    removals = [b for b in status.open_batches if b.operation is Operation.REMOVE]
    parts, adds = [], len(status.open_batches) - len(removals)
    if status.joining:
        parts.append(f"{status.joining} joining in {counted(adds, 'batch', 'batches')}")
    elif adds:
        # Of servers that left the list, or have joined by now.
        parts.append(f"{counted(adds, 'earlier call')} still followed")
    if removals:
        parts.append(f"{sum(len(b.server_ids) for b in removals)} being removed and REINSTALLED")
    return parts


def _settling(batch: Batch, settings: Settings) -> str | None:
    until = upcoming.settles(batch, settings)
    if until is None or not batch.server_ids:
        return None
    number, named = len(batch.server_ids), some(batch.server_ids, "status.jobs")
    has = "has" if number == 1 else "have"
    what = "may still have a node" if batch.operation is Operation.REMOVE else f"{has} no node yet"
    return f"{counted(number, 'server')} of batch {batch.batch} {what} ({named}): looked for until {rfc3339(until)}"


def surplus(membership: Membership, status: Status, settings: Settings, *, stopped: bool = False) -> str:
    """Members that will be removed: who, what it does to them, from when on, and how to stop it.

    `stopped`: a pause keeps them.
    """
    ids = surplus_ids(membership, status)
    text = f"{counted(status.surplus, 'member')} to be removed and REINSTALLED ({some(ids, 'status.members')})"
    stopped = stopped or paused(membership.metadata) is not None
    start = None if stopped else upcoming.removal(membership, status, settings)
    when = f" from {rfc3339(start)} on" if start is not None else ""
    if membership.metadata.deleting:
        return f"{text}{when}; spec.deletionPolicy: Retain stops it"
    return f"{text}{when}; back on spec.serverIDs, or under spec.removalPolicy: Retain, {_stay(status.surplus)}"


def _stay(number: int) -> str:
    return "it stays" if number == 1 else "they stay"


def causes(groups: Sequence[Failure], max_attempts: int, now: datetime) -> str:
    """The largest group of failures, and how many more there are."""
    first = groups[0]
    more = f"; {counted(len(groups) - 1, 'more cause')} in status.failures" if len(groups) > 1 else ""
    where = "status.failures" if len(first.server_ids) == first.count else "status.holds"
    named = some(first.server_ids, where, first.count)
    return f"{first.count} {first.reason} ({named}): {first.message}{_again(first, max_attempts, now)}{more}"


def _again(group: Failure, max_attempts: int, now: datetime) -> str:
    """What happens to them by itself, at a time that is still to come; or why nothing does."""
    if group.reason in PREFLIGHT and group.attempts >= max_attempts:
        return (
            "; its attempts are used up, so that it is not looked at again: the annotation"
            " cce.nodepools.dev/reset-requested-at gives them back"
        )
    moment = upcoming.again(group, max_attempts, now)
    if moment is None:
        return ""
    when = rfc3339(moment)
    if group.reason in HOLDS_NODE:
        return f"; waited for until {when}"
    if group.asked:
        return f"; asked for again at {when}"
    return f"; attempt {group.attempts + 1} of {max_attempts} at {when}"


def conflict(theirs: Rivals, me: str) -> str:
    """Whose servers they are, and what ends the conflict. `me`: namespace/name of the one that waits."""
    gone = {i: rival.until for i, rival in theirs.items() if rival.until is not None}
    owners = {i: ELSEWHERE if rival.foreign else rival.owner for i, rival in theirs.items() if i not in gone}
    parts = []
    for owner, count in sorted(Counter(owners.values()).items(), key=lambda o: (-o[1], o[0])):
        ids = sorted(i for i, name in owners.items() if name == owner)
        parts.append(f"{counted(count, 'server')} of {owner} ({some(ids, 'both lists')})")
    total, told = len(owners), []
    if owners:
        told.append(
            f"{some(parts, 'the other lists')} {are(total)} on the list of {me}, too: take {them(total)} off one of the"
            f" lists; {me} takes {them(total)} over once the owner lets go"
        )
    if gone:
        last, named = rfc3339(max(gone.values())), some(sorted(gone), "spec.serverIDs")
        told.append(
            "an earlier call that no membership knows of any more may still act on"
            f" {counted(len(gone), 'server')} ({named}): not added before {last}"
        )
    return "; ".join(told)


def preview(plan: Plan, status: Status) -> list[str]:
    """What would be done after a suspension."""
    how = f" in {counted(plan.calls, 'call')}, which WIPES {them(plan.add)}" if plan.add else ""
    parts = [f"would add {plan.add}{how}, adopt {plan.adopt}"]
    if plan.remove:
        parts.append(f"would remove {plan.remove}, which REINSTALLS {them(plan.remove)}")
    parts += _under_way(status)
    if status.failed:
        parts.append(f"{status.failed} failed")
    return parts


def deleting(
    membership: Membership, status: Status, settings: Settings, why: Sequence[str], *, stopped: bool = False
) -> str:
    """What a deletion still waits for, and until when at the latest. `stopped`: a pause keeps it from removing."""
    parts = [surplus(membership, status, settings, stopped=stopped)] if status.surplus else []
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
    one = len(batches) == 1
    subject = f"the job of batch {which} runs" if one else f"the jobs of batches {which} run"
    follow = "it is followed until it ends, its" if one else "they are followed until they end, their"
    return (
        f"{subject} longer than spec.joinTimeoutSeconds ({spec.join_timeout_seconds} s): look at {them(len(batches))}"
        f" in the CCE console; {follow} servers are not named in another call, and other servers are added meanwhile"
    )


def braked(failed: int, servers: int) -> str:
    """Why the brake was pulled."""
    return (
        f"{failed} of {counted(servers, 'server')} {'was' if failed == 1 else 'were'} WIPED and did not join; adding is"
        " stopped, the others are untouched: look at the node pool's template and at status.failures"
    )


def results(found: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Servers by what became of them."""
    return ", ".join(f"{len(ids)} {result} ({some(ids, 'status.jobs')})" for result, ids in found)
