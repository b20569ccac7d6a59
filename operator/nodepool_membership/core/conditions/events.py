"""The Kubernetes Events that tell the change from one status to the next. One per change of state, none per look.

Not for: posting them (`kube.events`). At most two for a batch that goes well. A Warning is for what a person may have
to look at: not for what passes within seconds, or for what we caused ourselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import EventReason, FailureReason, FindingReason, Reason
from nodepool_membership.api.status import Batch, Condition, Operation, Phase, Status
from nodepool_membership.core.conditions import texts
from nodepool_membership.core.conditions.outcomes import JOINED, REMOVED, Outcome, outcomes
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.wording import counted, some, them

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class EventText:
    """One Event: its type, reason and message."""

    kind: EventType
    reason: EventReason | Reason | FailureReason | FindingReason
    text: str


_BATCH: Final[dict[Phase, tuple[EventReason, EventType]]] = {
    Phase.RUNNING: (EventReason.BATCH_SUBMITTED, "Normal"),
    Phase.VERIFYING: (EventReason.BATCH_VERIFYING, "Warning"),
    Phase.SUCCEEDED: (EventReason.BATCH_SUCCEEDED, "Normal"),
    Phase.PARTLY_FAILED: (EventReason.BATCH_FAILED, "Warning"),
    Phase.FAILED: (EventReason.BATCH_FAILED, "Warning"),
    Phase.REFUSED: (EventReason.BATCH_REFUSED, "Warning"),
    Phase.WITHDRAWN: (EventReason.BATCH_WITHDRAWN, "Warning"),
}
_PASSING: Final = frozenset({Reason.PROGRESSING, Reason.LOCKED, Reason.THROTTLED})
"""Why a call was not taken up, where nobody has to do anything: a decision of the process, or the moment."""
_QUIET: Final = frozenset({Reason.SUSPENDED, Reason.DELETING, Reason.PAUSED, Reason.STARTING})
"""Reasons of Ready that a person or our own start has caused."""


def events_between(old: Status, new: Status) -> tuple[EventText, ...]:
    """What a person would want to be told about `new` who knew `old`."""
    known = {b.batch: b for b in old.jobs}
    phases = {number: batch.phase for number, batch in known.items()}
    over: dict[int, list[Outcome]] = {}
    for outcome in outcomes(old, new):
        over.setdefault(outcome.batch.batch, []).append(outcome)
    changed = [b for b in new.jobs if phases.get(b.batch) is not b.phase and b.phase in _BATCH]
    about = [_about_batch(b, known.get(b.batch), over.get(b.batch, ()), new) for b in changed]
    return (*about, *_foreign(old, new), *_found(old, new), *_about_ready(old, new))


def _found(old: Status, new: Status) -> Iterator[EventText]:
    """What is found of servers once for each cause, what is found of the pool once as long as it is so."""
    known = {(f.reason, f.message if f.count else "") for f in old.findings}
    for finding in new.findings:
        if (finding.reason, finding.message if finding.count else "") not in known:
            of = f"{counted(finding.count, 'server')}: " if finding.count else ""
            yield EventText("Warning", finding.reason, f"{of}{finding.message}")


def _foreign(old: Status, new: Status) -> Iterator[EventText]:
    known = {b.batch for b in old.jobs if b.foreign}
    for batch in new.jobs:
        if batch.foreign and batch.batch not in known:
            text = (
                f"batch {batch.batch}: {counted(batch.foreign, 'server')} became nodes through a job that is not"
                " of this operator: find out who else adds servers to the pool, since each call WIPES them"
            )
            yield EventText("Warning", EventReason.FOREIGN_ADD, text)


def surplus(before: Membership, after: Membership, settings: Settings) -> Iterator[EventText]:
    """Members became owed removal; an edit that leaves them so begins the delay anew, which is told, too."""
    old, new = before.status, after.status
    if new.surplus and (new.surplus > old.surplus or new.surplus_since != old.surplus_since):
        yield EventText("Warning", EventReason.REMOVAL_OWED, texts.surplus(after, new, settings))


def _about_batch(batch: Batch, known: Batch | None, over: Sequence[Outcome], new: Status) -> EventText:
    reason, kind = _BATCH[batch.phase]
    ids = batch.server_ids or (known.server_ids if known is not None else ()) or batch.called_ids
    what = "removal" if batch.operation is Operation.REMOVE else "add"
    subject = f"batch {batch.batch}, {what} of {counted(batch.servers, 'server')} ({some(ids, 'status.jobs')})"
    job = f", job {batch.job_id}" if batch.job_id else ""
    return EventText(
        _kind(kind, batch, new), reason, f"{subject}, attempt {batch.attempt}{job}: {_became(batch, over)}"
    )


def _kind(kind: EventType, batch: Batch, new: Status) -> EventType:
    if batch.phase is Phase.VERIFYING and batch.settling_since is not None and not batch.failed:
        # Its job has ended, and the node list lags behind it.
        return "Normal"
    waits: Mapping[Operation, Reason] = {wait.operation: wait.reason for wait in new.waits}
    if batch.phase in {Phase.REFUSED, Phase.WITHDRAWN} and waits.get(batch.operation) in _PASSING:
        return "Normal"
    return kind


def _became(batch: Batch, over: Sequence[Outcome]) -> str:
    effect = "REINSTALLS" if batch.operation is Operation.REMOVE else "WIPES"
    why = f": {batch.message}" if batch.message else ""
    match batch.phase:
        case Phase.RUNNING:
            return f"accepted, which {effect} {them(batch.servers)}"
        case Phase.VERIFYING:
            found = texts.results((o.result, o.server_ids) for o in over)
            left = counted(len(batch.server_ids), "server")
            return f"{found + '; ' if found else ''}{left} looked for in the node list{why}"
        case Phase.REFUSED:
            return f"refused, nothing was done{why}"
        case Phase.WITHDRAWN:
            return f"not sent, nothing was done{why}"
        case _:
            adopted = f"; {batch.adopted} of them had nodes before the call" if batch.adopted else ""
            failed = batch.failed or 0
            done = "removed and REINSTALLED" if batch.operation is Operation.REMOVE else "joined"
            rest = batch.servers - failed
            named = texts.results((o.result, o.server_ids) for o in over if o.result not in {JOINED, REMOVED})
            return f"{rest} {done}{f', {failed} failed: {named}' if failed else ''}{adopted}"


def _about_ready(old: Status, new: Status) -> tuple[EventText, ...]:
    now = _ready(new)
    if now is None or now.reason in {Reason.PROGRESSING, Reason.PENDING} or not _is_news(old, new):
        return ()
    quiet = now.status == "True" or now.reason in _QUIET
    return (EventText("Normal" if quiet else "Warning", now.reason, now.message),)


def _is_news(old: Status, new: Status) -> bool:
    """Whether Ready tells something else. A suspension does so with its preview, which takes a look at the cloud."""
    was, now = _ready(old), _ready(new)
    if now is None or now.reason is not Reason.SUSPENDED or now.status == "True":
        return turned(old, new) is not None
    told = was is not None and was.reason is Reason.SUSPENDED and (was.status == "True" or old.plan is not None)
    return new.plan is not None and (not told or turned(old, new) is not None)


def turned(old: Status, new: Status) -> Condition | None:
    """Ready as it is now, if its status or its reason is another than before."""
    was, now = _ready(old), _ready(new)
    same = was is not None and now is not None and (was.status, was.reason) == (now.status, now.reason)
    return None if same else now


def _ready(status: Status) -> Condition | None:
    return next((c for c in status.conditions if c.type == "Ready"), None)
