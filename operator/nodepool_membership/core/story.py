"""The Kubernetes Events that tell the change from one status to the next. One per change of state, none per look.

Not for: posting them (`kube.events`). At most two for a batch that goes well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from nodepool_membership.api.reasons import EventReason, FailureReason, FindingReason, Reason
from nodepool_membership.api.status import Batch, Condition, Operation, Phase, Status
from nodepool_membership.core.texts import counted


@dataclass(frozen=True, slots=True)
class Note:
    """One Event: reason and note as `events.k8s.io/v1` means them."""

    kind: Literal["Normal", "Warning"]
    reason: EventReason | Reason | FailureReason | FindingReason
    text: str


_BATCH: Final[dict[Phase, tuple[EventReason, Literal["Normal", "Warning"]]]] = {
    Phase.RUNNING: (EventReason.BATCH_SUBMITTED, "Normal"),
    Phase.VERIFYING: (EventReason.BATCH_VERIFYING, "Warning"),
    Phase.SUCCEEDED: (EventReason.BATCH_SUCCEEDED, "Normal"),
    Phase.PARTLY_FAILED: (EventReason.BATCH_FAILED, "Warning"),
    Phase.FAILED: (EventReason.BATCH_FAILED, "Warning"),
    Phase.REFUSED: (EventReason.BATCH_REFUSED, "Warning"),
    Phase.WITHDRAWN: (EventReason.BATCH_WITHDRAWN, "Warning"),
}


def notes(old: Status, new: Status) -> tuple[Note, ...]:
    """What a person would want to be told about `new` who knew `old`."""
    before = {b.batch: b.phase for b in old.jobs}
    changed = [_about_batch(b) for b in new.jobs if before.get(b.batch) is not b.phase and b.phase in _BATCH]
    return (*changed, *_foreign(old, new), *_found(old, new), *_about_ready(old, new))


def _found(old: Status, new: Status) -> Iterator[Note]:
    """What is found of servers once for each cause, what is found of the pool once as long as it is so."""
    known = {(f.reason, f.message if f.count else "") for f in old.findings}
    for finding in new.findings:
        if (finding.reason, finding.message if finding.count else "") not in known:
            of = f"{counted(finding.count, 'server')}: " if finding.count else ""
            yield Note("Warning", finding.reason, f"{of}{finding.message}")


def _foreign(old: Status, new: Status) -> Iterator[Note]:
    known = {b.batch for b in old.jobs if b.foreign}
    for batch in new.jobs:
        if batch.foreign and batch.batch not in known:
            text = (
                f"batch {batch.batch}: {batch.foreign} servers became nodes through a job that is not of this operator:"
                " find out who else adds servers to the pool, since each call WIPES them"
            )
            yield Note("Warning", EventReason.FOREIGN_ADD, text)


def _about_batch(batch: Batch) -> Note:
    reason, kind = _BATCH[batch.phase]
    what = "removal of " if batch.operation is Operation.REMOVE else ""
    subject = f"batch {batch.batch} ({what}{batch.servers} servers, attempt {batch.attempt})"
    job = f", job {batch.job_id}" if batch.job_id else ""
    adopted = f", {batch.adopted} of them had nodes before the call" if batch.adopted else ""
    why = f": {batch.message}" if batch.message else ""
    return Note(kind, reason, f"{subject} is {batch.phase}{job}{adopted}{why}")


def _about_ready(old: Status, new: Status) -> tuple[Note, ...]:
    was, now = _ready(old), _ready(new)
    if now is None or now.reason in {Reason.PROGRESSING, Reason.PENDING}:
        return ()
    if was is not None and (was.status, was.reason) == (now.status, now.reason):
        return ()
    quiet = now.status == "True" or now.reason in {Reason.SUSPENDED, Reason.DELETING, Reason.PAUSED}
    return (Note("Normal" if quiet else "Warning", now.reason, now.message),)


def _ready(status: Status) -> Condition | None:
    return next((c for c in status.conditions if c.type == "Ready"), None)
