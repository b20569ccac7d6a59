"""Conditions from what is known: the state table of design section 2, with the messages people read.

Not for: finding out the state (`decide`). Follows kstatus and Flux: Ready is always there, Reconciling and Stalled
only while True and never both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import DRIFT, FailureReason, Reason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Condition, Failure, Operation, Phase, Status
from nodepool_membership.core.observation import Trouble
from nodepool_membership.core.rivals import Rivals, told

Abnormal = Literal["Reconciling", "Stalled"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the conditions say: Ready with its reason, and at most one of the abnormal-true types."""

    ready: Literal["True", "False", "Unknown"]
    reason: Reason | FailureReason
    message: str
    also: Abnormal | None = None
    also_reason: Reason | FailureReason | None = None

    def __post_init__(self) -> None:
        if self.ready == "True" and self.also is not None:
            raise ValueError("Ready=True goes with neither Reconciling nor Stalled")


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be done if the membership were not suspended; None while no complete listing was seen."""

    add: int
    calls: int
    adopt: int
    conflict: str = ""
    """Who has the right to servers of the list, in words."""
    remove: int = 0


def waiting(trouble: Trouble) -> Verdict:
    """Something is in the way and is tried again."""
    return Verdict("False", trouble.reason, trouble.message, "Reconciling", Reason.PROGRESSING_WITH_RETRY)


def stalled(reason: Reason | FailureReason, message: str) -> Verdict:
    """Nothing more happens until the cause is gone, the spec changes, or somebody asks."""
    return Verdict("False", reason, message, "Stalled", reason)


def unreachable(trouble: Trouble) -> Verdict:
    """A settled membership that could not be looked at three times in a row."""
    message = f"the cloud could not be looked at 3 times in a row: {trouble.message}"
    return Verdict("Unknown", Reason.CLOUD_UNREACHABLE, message, "Reconciling", Reason.PROGRESSING_WITH_RETRY)


def progressing(status: Status, removal_delay: timedelta | None = None) -> Verdict:
    """Batches are open, or servers are still to be sent or removed."""
    return Verdict("False", Reason.PROGRESSING, _progress(status, removal_delay), "Reconciling", Reason.PROGRESSING)


def deleting(status: Status, hindrance: Verdict | None = None) -> Verdict:
    """Nothing is added any more; open batches are followed to their end, what is owed is removed.

    The message says why a removal waits: what is in the way of the next one, or what the cloud said to the last one.
    """
    left = len(status.open_batches)
    message = f"waiting for {left} open batch(es) before the finalizer is released" if left else "nothing is open"
    if status.surplus:
        message = f"{status.surplus} owed removal (spec.deletionPolicy); {message}"
        why = _last_no(status) if hindrance is None else hindrance.message
        message = f"{message}; {why}" if why else message
    return Verdict("False", Reason.DELETING, plain_text(message), "Reconciling", Reason.DELETING)


def _last_no(status: Status) -> str | None:
    """What the newest batch was refused for, while the next attempt waits for its time."""
    last = status.jobs[-1] if status.jobs and status.next_attempt_time is not None else None
    return last.message if last is not None and last.phase in {Phase.REFUSED, Phase.WITHDRAWN} else None


def suspended(status: Status, preview: Preview | None) -> Verdict:
    """The cloud is only read; the message says what would be done."""
    if preview is None:
        return Verdict("False", Reason.SUSPENDED, f"suspended; {_progress(status)}; the cloud was not looked at yet")
    if status.joined == status.desired and not preview.adopt and not preview.remove:
        return Verdict("True", Reason.SUSPENDED, f"suspended; {_members(status)}")
    parts = [f"would add {preview.add} in {preview.calls} call(s), adopt {preview.adopt}"]
    if preview.remove:
        parts.append(f"would remove {preview.remove}")
    if status.open_batches:
        parts.append(f"{status.joining} joining in {len(status.open_batches)} open batch(es)")
    if status.failed:
        parts.append(f"{status.failed} failed")
    if preview.conflict:
        parts.append(preview.conflict)
    return Verdict("False", Reason.SUSPENDED, "suspended; " + "; ".join(parts))


def settled(status: Status, spec: Spec, theirs: Rivals, removal_delay: timedelta) -> Verdict:
    """Nothing is open and nothing can be sent: done, waiting for a retry or a node, or stalled.

    `theirs` are the servers that wait for another membership to let go of them.
    """
    verdict = _settled(status, spec, theirs)
    if not status.surplus or verdict.also == "Reconciling":
        return verdict
    stuck = [g for g in status.failures if g.reason is FailureReason.REMOVAL_FAILED and g.attempts >= spec.max_attempts]
    if sum(g.count for g in stuck) < status.surplus:
        return progressing(status, removal_delay)
    return stalled(FailureReason.REMOVAL_FAILED, f"{_progress(status)}; {_causes(stuck)}")


def _settled(status: Status, spec: Spec, theirs: Rivals) -> Verdict:
    if status.joined == status.desired:
        return Verdict("True", Reason.SUCCEEDED, _members(status))
    groups = [g for g in status.failures if not spec.server_ids.isdisjoint(g.server_ids)]
    others_wait = status.pending > len(theirs)
    if not groups and (others_wait or not theirs):
        return progressing(status)
    reason = Reason.CONFLICT if theirs else _shared_reason(groups)
    parts = [_progress(status), *([told(theirs)] if theirs else []), *([_causes(groups)] if groups else [])]
    message = "; ".join(parts)
    if others_wait:
        return Verdict("False", reason, message, "Reconciling", Reason.PROGRESSING_WITH_RETRY)
    return stalled(reason, message)


_HALTS: Final = {
    Reason.POOL_REFUSES: (
        "3 single servers in a row were refused with one and the same text, so it is about the pool, not about them:"
        " see the messages in status.jobs"
    ),
    Reason.TOO_MANY_FAILURES: (
        "more than a fifth of a batch failed after it was accepted: look at the node pool's template and at"
        " status.failures"
    ),
}


def halted(reason: Reason, status: Status) -> Verdict:
    """No further add is made, before another batch of servers is wiped for nothing."""
    remedy = "nothing more is added until the spec changes or the reset annotation is set"
    return stalled(reason, f"{_progress(status)}; {_HALTS[reason]}; {remedy}")


def halt_of(status: Status) -> Reason | None:
    """The halt that the stored conditions tell of: it is state, and outlives restarts."""
    condition = status.condition("Stalled")
    return (
        condition.reason if condition and isinstance(condition.reason, Reason) and condition.reason in _HALTS else None
    )


def conditions(status: Status, verdict: Verdict, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Write the verdict as conditions; a transition time changes only with its condition's status."""
    wanted = [_condition("Ready", verdict.ready, verdict.reason, verdict.message, generation)]
    if verdict.also is not None:
        reason = verdict.also_reason or verdict.reason
        wanted.append(_condition(verdict.also, "True", reason, verdict.message, generation))
    return tuple(_since(status.condition(c.type), c, now) for c in wanted)


def _condition(
    kind: Literal["Ready", "Reconciling", "Stalled"],
    value: Literal["True", "False", "Unknown"],
    reason: Reason | FailureReason,
    message: str,
    generation: int,
) -> Condition:
    return Condition(kind, value, reason, plain_text(message), generation)


def _since(old: Condition | None, new: Condition, now: datetime) -> Condition:
    unchanged = old is not None and old.status == new.status and old.last_transition_time is not None
    return replace(new, last_transition_time=old.last_transition_time if old is not None and unchanged else now)


_ONE: Final = 1


def _members(status: Status) -> str:
    if status.desired == 0:
        return "0 of 0 servers: the list is empty"
    return f"{status.joined} of {status.desired} servers are Active members of the pool"


def _progress(status: Status, removal_delay: timedelta | None = None) -> str:
    parts = [f"{status.joined} of {status.desired} servers joined"]
    removals = [b for b in status.open_batches if b.operation is Operation.REMOVE]
    if status.joining:
        batches = len(status.open_batches) - len(removals)
        parts.append(f"{status.joining} joining in {batches} {'batch' if batches == _ONE else 'batches'}")
    if removals:
        parts.append(f"{sum(len(b.server_ids) for b in removals)} being removed")
    if status.surplus:
        after = "" if removal_delay is None else f" once off the list for {removal_delay.total_seconds():.0f} s"
        parts.append(f"{status.surplus} owed removal{after}")
    if status.pending:
        parts.append(f"{status.pending} pending")
    if status.failed:
        parts.append(f"{status.failed} failed")
    return ", ".join(parts)


def _causes(groups: Sequence[Failure]) -> str:
    first = groups[0]
    more = f"; {len(groups) - 1} more cause(s) in status.failures" if len(groups) > 1 else ""
    return f"{first.count} {first.reason}: {first.message}{more}"


def _shared_reason(groups: Sequence[Failure]) -> Reason | FailureReason:
    reasons = {g.reason for g in groups}
    if len(reasons) == 1:
        return groups[0].reason
    return FailureReason.MEMBER_MISSING if reasons <= DRIFT else Reason.SERVERS_FAILED
