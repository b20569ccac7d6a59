"""What errors at the edges mean in the words of `core`: a trouble while looking, or the answer to a call.

Not for: recognising answers on the wire (`cce.errors`) or deciding what follows (`core`). Messages name the
thing and the remedy; texts from the cloud are made fit for status here.
"""

from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.cce.credentials import CredentialsError
from nodepool_membership.cce.endpoints import EndpointNotAllowedError, UnknownRegionError
from nodepool_membership.cce.errors import (
    CloudError,
    ForbiddenError,
    LockedError,
    NotFoundError,
    NotSentError,
    RefusedError,
    ThrottledError,
    UnauthenticatedError,
)
from nodepool_membership.core import catalogue
from nodepool_membership.core.calls import Answer, NotNow, NotSent, Refused, Unknown
from nodepool_membership.core.observation import Trouble

_BY_FAILURE = {
    FailureReason.FORBIDDEN: Reason.FORBIDDEN,
    FailureReason.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    FailureReason.NOT_FOUND: Reason.NOT_FOUND,
    FailureReason.POOL_NOT_READY: Reason.POOL_NOT_READY,
}


UNEXPECTED: Final = Unknown("an unexpected error, see the operator's log; looking for the servers in the node list")


class TroubleError(Exception):
    """The cloud could not be looked at; carries why, in words for the user."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(f"{trouble.reason}: {trouble.message}")
        self.trouble = trouble


def said(error: CloudError) -> str:
    """What the cloud answered, on one line: HTTP status, code and message."""
    head = " ".join(str(part) for part in (error.status, error.code) if part)
    return plain_text(": ".join(part for part in (head, error.message) if part), 500) or type(error).__name__


def of_look(error: CloudError, subject: str) -> Trouble:
    """Why reading `subject` (such as "the node list") failed."""
    text = f"reading {subject}: {said(error)}"
    match error:
        case ThrottledError():
            return Trouble(
                Reason.THROTTLED, f"{text}; the cloud limits requests, the operator waits", error.retry_after
            )
        case UnauthenticatedError():
            remedy = "check the keys (or the expired token) in the Secret named by spec.credentialsRef"
            return Trouble(Reason.UNAUTHENTICATED, f"{text}; {remedy}")
        case ForbiddenError():
            remedy = (
                "check spec.nodePool.projectID, and grant cce:node:list, cce:node:get, cce:nodepool:get,"
                " cce:cluster:get and cce:job:get to the owner of the key"
            )
            return Trouble(Reason.FORBIDDEN, f"{text}; {remedy}")
        case NotFoundError():
            remedy = (
                "check projectID, clusterID and nodePoolID in spec.nodePool (which is immutable: make a new object)"
            )
            return Trouble(Reason.NOT_FOUND, f"{text}; {remedy}")
        case LockedError():
            return Trouble(Reason.LOCKED, f"{text}; another task is under way, the operator waits")
        case RefusedError():
            entry = catalogue.refusal(error.status or 0, error.code or "")
            return Trouble(_BY_FAILURE.get(entry.reason, Reason.CALL_REFUSED), f"{text}; {entry.remedy}")
        case _:
            return Trouble(Reason.CLOUD_UNREACHABLE, f"{text}; check the network and spec.nodePool.endpoint")


def of_call(error: CloudError) -> Answer:
    """What the answer to an add call means."""
    text = said(error)
    match error:
        case NotSentError():
            return NotSent(f"the call was not sent: {text}")
        case LockedError():
            return NotNow(Reason.LOCKED, f"the cluster or pool is busy with another task, the operator waits: {text}")
        case ThrottledError():
            return NotNow(Reason.THROTTLED, f"the cloud limits writes, the operator waits: {text}", error.retry_after)
        case RefusedError() | ForbiddenError() | UnauthenticatedError() | NotFoundError():
            return Refused(catalogue.refusal(error.status or 0, error.code or ""), text, error.message)
        case _:
            return Unknown(
                f"whether the call was accepted is unknown ({text}); looking for the servers in the node list"
            )


def of_setup(error: CredentialsError | EndpointNotAllowedError | UnknownRegionError) -> Trouble:
    """Why no client could be made for a membership."""
    reasons = {CredentialsError: Reason.CREDENTIALS_INVALID, UnknownRegionError: Reason.REGION_UNKNOWN}
    return Trouble(reasons.get(type(error), Reason.ENDPOINT_NOT_ALLOWED), plain_text(str(error)))
