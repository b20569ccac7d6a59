"""What errors at the edges mean in the words of `core`: a trouble while looking, or the answer to a call.

Not for: recognising answers on the wire (`cce.errors`) or deciding what follows (`core`). Messages name the
thing and the remedy; texts from the cloud are made fit for status here.
"""

from dataclasses import replace
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.credentials import CredentialsError
from nodepool_membership.cce.endpoints import EndpointNotAllowedError, UnknownRegionError
from nodepool_membership.cce.errors import (
    CloudError,
    EndedKeyError,
    ForbiddenError,
    IdentityError,
    NotFoundError,
    NotSentError,
    RefusedError,
    ThrottledError,
    UnauthenticatedError,
    WithheldError,
    is_gateways,
)
from nodepool_membership.core.decision.record import Answer, NotNow, NotSent, Refused, Unknown
from nodepool_membership.core.observed import catalogue, clock
from nodepool_membership.core.observed.catalogue import About, Entry
from nodepool_membership.core.observed.observation import Trouble

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


def _entry(error: CloudError) -> Entry:
    return catalogue.refusal(error.status or 0, error.code or "", error.message)


def of_read(error: CloudError, subject: str, clock_offset_seconds: float | None = None) -> Trouble:  # noqa: PLR0911 - one match over all errors
    """Why reading `subject` (such as "the node list") failed; a signature may have expired because of our clock."""
    text = f"reading {subject} failed: {said(error)}"
    skewed = clock.skew(clock_offset_seconds)
    match error:
        case IdentityError():
            return Trouble(error.reason, plain_text(error.message), error.retry_after)
        case UnauthenticatedError() if skewed is not None:
            return replace(skewed, message=f"{text}; {skewed.message}")
        case ThrottledError():
            return Trouble(Reason.THROTTLED, f"{text}; {_entry(error).remedy}", error.retry_after)
        case UnauthenticatedError():
            remedy = (
                "check the keys (or the expired token) in the Secret named by spec.credentialsRef, or the identity in"
                " spec.identityRef"
            )
            return Trouble(Reason.UNAUTHENTICATED, f"{text}; {remedy}")
        case ForbiddenError():
            remedy = (
                "check spec.nodePool.projectID, and grant cce:node:list, cce:node:get, cce:nodepool:get,"
                " cce:nodepool:list, cce:cluster:get and cce:job:get to the owner of the key, or to the identity's user"
                " group or agency"
            )
            return Trouble(Reason.FORBIDDEN, f"{text}; {remedy}")
        case NotFoundError():
            remedy = (
                "check projectID, clusterID and nodePoolID in spec.nodePool (which is immutable: make a new object)"
            )
            return Trouble(Reason.NOT_FOUND, f"{text}; {remedy}")
        case RefusedError():
            return Trouble(_entry(error).condition, f"{text}; {_entry(error).remedy}")
        case _:
            return Trouble(Reason.CLOUD_UNREACHABLE, f"{text}; check the network and spec.nodePool.endpoint")


def of_call(error: CloudError) -> Answer:  # noqa: PLR0911 - one match over all errors
    """What the answer to a call that changes something means."""
    text = said(error)
    match error:
        case WithheldError():
            return NotSent(text, Reason.PROGRESSING)
        case IdentityError():
            return NotSent(f"the call was not sent: {plain_text(error.message)}", error.reason)
        case NotSentError():
            # It has a status if an answer to an earlier call is the reason: the key is not used for a while.
            reason = _entry(error).condition if error.status else Reason.CLOUD_UNREACHABLE
            return NotSent(f"the call was not sent: {text}", reason)
        case EndedKeyError():
            told = f"the temporary keys ended before the call, it is made again with new ones: {text}"
            return NotNow(Reason.UNAUTHENTICATED, told, by_gateway=is_gateways(error))
        case RefusedError():
            entry = _entry(error)
            if entry.about is not About.TRANSIENT:
                return Refused(entry, text, error.message)
            wait = error.retry_after if isinstance(error, ThrottledError) else None
            return NotNow(entry.condition, f"{entry.remedy}: {text}", wait, by_gateway=is_gateways(error))
        case _:
            return Unknown(
                f"whether the call was accepted is unknown ({text}); looking for the servers in the node list"
            )


def of_setup(error: CredentialsError | EndpointNotAllowedError | UnknownRegionError) -> Trouble:
    """Why no client could be made for a membership."""
    reasons = {CredentialsError: Reason.CREDENTIALS_INVALID, UnknownRegionError: Reason.REGION_UNKNOWN}
    return Trouble(reasons.get(type(error), Reason.ENDPOINT_NOT_ALLOWED), plain_text(str(error)))
