"""What physics answers to a call, or to who asks for a job, as the operator is told it.

Not for: what a call does (`physics`).
"""

from explore import physics
from explore.objects import server_id
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.core.decision.record import Accepted, Answer, NotSent, Refused, Unknown
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase, JobReport


def said(told: physics.Answer, intent: Batch) -> Answer:
    match told.kind:
        case "accepted":
            return Accepted(told.job)
        case "unsent":
            return NotSent("no connection was made")
        case "unknown":
            return Unknown("504, whether the call was accepted is unknown")
    status, code, text = refused_with(told, intent)
    return Refused(refusal(status, code, text), f"{status} {code}: {text}", text)


def refused_with(told: physics.Answer, intent: Batch) -> tuple[int, str, str]:
    """HTTP status, code and text of a refusal."""
    text = f"server {server_id(told.server)} is bad" if told.server >= 0 else "refused"
    return (400, "CCE.01400001", text) if intent.operation is Operation.ADD else (403, "CCE.01403006", text)


def job_said(cloud: physics.Cloud, uid: str, how: str, now: int) -> JobReport:
    """What is told of a job: what is so, or what `how` says."""
    if how == "unreadable":
        return JobReport(uid, JobPhase.UNREADABLE)
    job = next((j for j in cloud.jobs if j.uid == uid), None)
    if job is None or how == "404":
        return JobReport(uid, JobPhase.LOST)
    if job.ends > now:
        return JobReport(uid, JobPhase.RUNNING)
    if not job.failed:
        return JobReport(uid, JobPhase.SUCCEEDED)
    texts = {server_id(s): "not installed" for s in job.servers}
    return JobReport(uid, JobPhase.FAILED, "some nodes failed", texts)
