"""What physics answers to a call, as the operator is told it.

Not for: what a call does (`physics`).
"""

from explore import physics
from explore.objects import server_id
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.record import Accepted, Answer, NotSent, Refused, Unknown


def said(told: physics.Answer, intent: Batch) -> Answer:
    match told.kind:
        case "accepted":
            return Accepted(told.job)
        case "unsent":
            return NotSent("no connection was made")
        case "unknown":
            return Unknown("504, whether the call was accepted is unknown")
    code = "CCE.01400001" if intent.operation is Operation.ADD else "CCE.01403006"
    text = f"server {server_id(told.server)} is bad" if told.server >= 0 else "refused"
    status = 400 if intent.operation is Operation.ADD else 403
    return Refused(refusal(status, code, text), f"{status} {code}: {text}", text)
