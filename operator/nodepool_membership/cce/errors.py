"""What went wrong with a call, as a hierarchy that says what the caller may do; and how answers become errors.

Not for: retrying, or words for users (`core.observed.catalogue`, `runtime.cloud.error_mapping`). Rule P6: a refusal is
only what stands on a positive list of (HTTP status, known code, JSON body); for a call that changes something, all else
is unknown.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from nodepool_membership import redaction
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.transport import FEW_VALUES, values_in
from nodepool_membership.core.observed import catalogue
from nodepool_membership.core.observed.catalogue import About
from nodepool_membership.net.causes import explain

MIN_RETRY_AFTER: Final = 1.0
MAX_RETRY_AFTER: Final = 600.0
_MAX_TEXT: Final = 2000
_KNOWN_FORM: Final = re.compile(r"[A-Z][A-Za-z_]{1,15}\.\d{3,10}", re.ASCII)
"""The form of the cloud's own codes, which no key or token has."""


class CloudError(Exception):
    """A call did not bring what was asked for. `message` is the cloud's own text, without the secrets that the cloud
    echoes, for logs; it may be empty.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, request_id: str | None = None
    ) -> None:
        # The one positional argument: pickle and copy call the type with `args` and restore the rest.
        self.message = redaction.redact(message)
        super().__init__(self.message)
        self.status = status
        # What follows is decided by it, whatever somebody has as its secret.
        self.code = code if code is None or _KNOWN_FORM.fullmatch(code) else redaction.redact(code)
        self.request_id = request_id and redaction.redact(request_id)

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.status, self.code, self.message) if part)

    @classmethod
    def outcome(cls) -> str:
        """As what metrics count it."""
        return cls.__name__.removesuffix("Error")


class NotSentError(CloudError):
    """Certainly not sent: no connection could be made, or none was tried. The call may be repeated."""


class IdentityError(NotSentError):
    """Nothing was sent, since no keys could be had. The message names the field and the remedy.

    `retry_after` in seconds, if it was said.
    """

    def __init__(
        self, message: str, *, reason: Reason = Reason.IDENTITY_REFUSED, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after

    @property
    def is_refusal(self) -> bool:
        """Whether somebody said no, or something is missing, which passes only when it is corrected."""
        return self.reason in {Reason.IDENTITY_REFUSED, Reason.CREDENTIALS_INVALID}


class WithheldError(NotSentError):
    """Certainly not sent: whoever called decided against it at the last moment."""


class RefusedError(CloudError):
    """Certainly refused, and the same call would be again until something changes."""


class LockedError(RefusedError):
    """Certainly refused because of the moment, a task under way or a state: wait, then the same call may pass."""


class ThrottledError(RefusedError):
    """Certainly refused, because of too many calls. `retry_after` in seconds, 1 to 600, None if not said."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, request_id=request_id)
        self.retry_after = retry_after


class PausedError(ThrottledError):
    """A read that was not made, since another one was throttled a moment ago."""


class UnauthenticatedError(RefusedError):
    """Certainly refused: key, signature or token."""


class EndedKeyError(UnauthenticatedError):
    """The same, of keys that have been replaced since: the next call has others, so it is no sign of a wrong key."""

    @staticmethod
    def of(error: UnauthenticatedError) -> "EndedKeyError":
        """What the cloud said, in these terms."""
        return EndedKeyError(error.message, status=error.status, code=error.code, request_id=error.request_id)


class ForbiddenError(RefusedError):
    """Certainly refused: rights."""


class NotFoundError(RefusedError):
    """Certainly refused: cluster, node pool, node or job does not exist; the code does not say which."""


class OutcomeUnknownError(CloudError):
    """A call that changes something may or may not have been accepted."""


class UnavailableError(CloudError):
    """A read failed: network, time-out, 5xx or an answer that cannot be read. Nothing is known."""


def is_about_the_document(error: CloudError) -> bool:
    """Whether a read failed because of the one thing that was asked for, so that others may well be read."""
    if isinstance(error, (LockedError, ThrottledError, UnauthenticatedError, ForbiddenError)):
        return False
    return isinstance(error, RefusedError) or (isinstance(error, UnavailableError) and error.status in {200, 400, 404})


_REFUSING: Final = frozenset({400, 401, 403, 404, 413, 414, 429})
"""409 is not among them: it says that somebody else changed something, not that this call did nothing."""
_OWN_STATUS: Final = re.compile(r"CCE\.\d\d(\d{3})\d{3}|E\.CFE\.(\d{3})\d{4}", re.ASCII)
"""CCE's codes name their HTTP status behind the service: CCE.01400014, E.CFE.4000201."""
_GATEWAY: Final[dict[str, frozenset[int]]] = {
    **dict.fromkeys(("APIGW.0101", "APIGW.0103"), frozenset({404})),
    "APIGW.0201": frozenset({400, 413, 414}),
    **dict.fromkeys(("APIGW.0301", "APIGW.0303", "APIGW.0305", "APIGW.0307"), frozenset({401})),
    **dict.fromkeys(
        ("APIGW.0302", "APIGW.0304", "APIGW.0306", "APIGW.0310", "APIGW.0801", "APIGW.0802"), frozenset({403})
    ),
    "APIGW.0308": frozenset({429}),
}
"""What the gateway refuses by itself, before CCE sees the call."""
_WRAPPERS: Final = ("error", "badRequest", "forbidden", "itemNotFound", "overLimit")
"""What ECS, BMS and EVS put code and message into: {"error": {"code": "Ecs.0114", "message": ...}}."""
_SECOND_FAMILY: Final = re.compile(r"CCE_CM\.\d{4}", re.ASCII)
_BY_REASON: Final[dict[Reason, type[RefusedError]]] = {
    Reason.THROTTLED: ThrottledError,
    Reason.UNAUTHENTICATED: UnauthenticatedError,
    Reason.FORBIDDEN: ForbiddenError,
    Reason.NOT_FOUND: NotFoundError,
}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NOT_SENT: Final = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol),
)
_PROXY_REMEDY: Final = (
    "check HTTPS_PROXY and its user and password, exclude the endpoint with NO_PROXY, or allow it there"
)
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
"""Of terminals, lines and writing directions: none belongs into a log line."""
_ECHO: Final = re.compile(r"[\s,;:]*canonical_?request.*", re.IGNORECASE | re.DOTALL)
"""The gateway echoes what it thinks was signed, the security token with it."""


def from_answer(response: httpx.Response, body: bytes, *, changes: bool) -> CloudError:
    """The error for an answer with a status other than 2xx. `changes`: of a call that may have changed something."""
    status = response.status_code
    document = _document(body)
    fields = _texts(document)
    request_id = request_id_of(response.headers.get("X-Request-Id")) or request_id_of(fields.get("request_id"))
    code, wrapped = _code(fields), _wrapped(document)
    message = _message(fields) or _message(wrapped)
    kind = _kind(status, code, message, changes=changes)
    if not message:
        message = f"an answer of type {response.headers.get('Content-Type', 'unknown')[:100]}, not an error's JSON"
    # Only told: a code in this form is no refusal on the positive list.
    code = code or _code_of(wrapped.get("code"))
    if kind is ThrottledError:
        wait = retry_after(response.headers)
        return ThrottledError(message, status=status, code=code, request_id=request_id, retry_after=wait)
    return kind(message, status=status, code=code, request_id=request_id)


def request_id_of(text: str | None) -> str | None:
    """A request id, for the cloud's support; None if it is none: an endpoint may send anything as one."""
    return text if text and _REQUEST_ID.fullmatch(text) else None


def _kind(status: int, code: str | None, text: str, *, changes: bool) -> type[CloudError]:
    if code is not None and status in _REFUSING and _is_known(status, code):
        return _refusal(status, code, text)
    if changes:
        if code is None and catalogue.is_no_such_call(status, text):
            return NotFoundError
        return OutcomeUnknownError
    # Of a read nothing is at stake, the status will do; but a proxy's 404 must not pass for "there is no such job".
    return {401: UnauthenticatedError, 403: ForbiddenError, 429: ThrottledError}.get(status, UnavailableError)


def _refusal(status: int, code: str, text: str) -> type[RefusedError]:
    entry = catalogue.refusal(status, code, text)
    kind = _BY_REASON.get(entry.condition)
    return kind or (LockedError if entry.about is About.TRANSIENT else RefusedError)


def _is_known(status: int, code: str) -> bool:
    """Whether the code is one that refuses calls with this status; a new serial of CCE's is one, too."""
    if own := _OWN_STATUS.fullmatch(code):
        return str(status) in own.groups()
    if code in _GATEWAY:
        return status in _GATEWAY[code]
    return status in {400, 403, 404} and _SECOND_FAMILY.fullmatch(code) is not None


def from_transport(error: Exception, *, changes: bool, sent: bool = True) -> CloudError:
    """The error for a call that got no answer; `sent` is False if it certainly did not begin to leave."""
    kind = type(error).__name__
    text = explain(error, "cloud") or (f"{kind}: {error}" if str(error) else kind)
    if isinstance(error, httpx.ProxyError):
        text = f"the proxy refuses to connect to the cloud ({error}): {_PROXY_REMEDY}"
    elif not sent and isinstance(error, httpx.RemoteProtocolError):
        text = f"what HTTPS_PROXY names does not answer as a proxy does: {_PROXY_REMEDY}"
    if not sent or isinstance(error, _NOT_SENT):
        return NotSentError(text)
    return OutcomeUnknownError(text) if changes else UnavailableError(text)


def http_date(text: str) -> datetime | None:
    """A moment as headers have it; None: it is none, or of no known zone."""
    try:
        said = parsedate_to_datetime(text)
        return said.astimezone(UTC) if said.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, clamped to 1..600 s: an integer or a float (the gateway sends both), finite, or a date.

    A date counts from the answer's own `Date`: our clock may be wrong.
    """
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        until, sent = http_date(text), http_date(headers.get("Date", ""))
        if until is None or sent is None:
            return None
        seconds = (until - sent).total_seconds()
    return min(max(seconds, MIN_RETRY_AFTER), MAX_RETRY_AFTER) if math.isfinite(seconds) else None


def is_gateways(error: CloudError) -> bool:
    """Whether the gateway refused by itself, so that the call did nothing whatever CCE makes of refused ones."""
    return isinstance(error, RefusedError) and error.code in _GATEWAY


def _code_of(text: str | None) -> str | None:
    """A code; None for what is no such thing, whoever sent it."""
    return text if text is not None and _CODE.fullmatch(text) else None


def _document(body: bytes) -> Mapping[str, object]:
    """A JSON error body; empty if it is anything else, or far longer than any."""
    if values_in(body) > FEW_VALUES:
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _texts(document: Mapping[str, object]) -> dict[str, str]:
    return {name: value for name, value in document.items() if isinstance(value, str) and value}


def _wrapped(document: Mapping[str, object]) -> dict[str, str]:
    """Code and message that stand one level deeper."""
    return next((_texts(inner) for name in _WRAPPERS if isinstance(inner := document.get(name), dict)), {})


def _code(fields: Mapping[str, str]) -> str | None:
    """The more telling of the two families: `CCE.01400014` rather than `CCE_CM.0004`."""
    found = [fields[name] for name in ("errorCode", "error_code") if _code_of(fields.get(name))]
    return next((code for code in found if code.startswith(("CCE.", "APIGW."))), found[0] if found else None)


def _message(fields: Mapping[str, str]) -> str:
    names = ("error_msg", "errorMessage", "message", "error")
    # Cut twice: what is taken out in between may stand across an end.
    texts = dict.fromkeys(fields[name][: 2 * _MAX_TEXT] for name in names if name in fields)
    whole = ": ".join(filter(None, (_ECHO.sub("", _CONTROL.sub(" ", text)).strip() for text in texts)))
    return redaction.redact(whole[: 2 * _MAX_TEXT])[:_MAX_TEXT]
