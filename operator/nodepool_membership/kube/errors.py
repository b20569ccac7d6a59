"""What the API server's answers mean for the caller, as five exceptions, and how an answer becomes one of them.

Not for: retrying. No text here holds a value of an object: a refused status patch is echoed in the Status message
with up to 2 MB.
"""

import json
import re
from typing import Final

from nodepool_membership.core.program.effects import ConflictError, NoAnswerError, StoreError

_MAX_REASON: Final = 400
_STRICT: Final = "strict decoding error: "
_VALUE: Final = re.compile(r'value: (?:"(?:[^"\\]|\\.)*"(?:: |$)|[^\s:]+: )')
_TOO_LARGE: Final = "request is too large"


class KubeError(StoreError):
    """The API server did not do what was asked. The text is short and fit for logs."""

    @classmethod
    def outcome(cls) -> str:
        """As what metrics count it."""
        return cls.__name__.removeprefix("Kube").removesuffix("Error")


class StaleError(KubeError, ConflictError):
    """409: the object changed since it was read. Nothing was written; read again."""


class GoneError(KubeError):
    """404: the object, or its resource type, does not exist. Nothing was written."""


class ForeignLeaseError(KubeError):
    """The Lease is another program's. Nothing was written; the text says what to do."""


class RejectedError(KubeError):
    """The API server understood and will never accept this request. Nothing was written; repeating is useless."""


class KubeForbiddenError(KubeError):
    """401 or 403: our identity or its rights. Nothing was written."""


class UnansweredError(KubeError, NoAnswerError):
    """Network error, time-out, 5xx or 429: whether a write took effect is unknown."""


class TooLargeError(KubeError):
    """The answer has more bytes than its reader takes; nothing of it was kept."""


def _bounded(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"


def _parts(body: bytes) -> tuple[str, str, list[str]]:
    """Reason, message and one line per cause of a `metav1.Status`, all empty if the body is something else."""
    try:
        status = json.loads(body)
    except ValueError:
        return "", "", []
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return "", "", []
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    lines = [
        f"{cause.get('field', '')}: {_without_value(str(cause.get('message', '')))}"
        for cause in causes or []
        if isinstance(cause, dict)
    ]
    return str(status.get("reason", "")), str(status.get("message", "")), lines


def _after_strict(message: str) -> str:
    """The unknown fields' names: the text before them is a dump of the object."""
    head, found, tail = message.partition(_STRICT)
    return f"{_STRICT}{tail}" if found else head


def _without_value(message: str) -> str:
    """A field error's text; where the value is a whole object, nothing of it but what follows a strict decoding."""
    if _STRICT in message:
        return _after_strict(message)
    text = _VALUE.sub("value: ", message, count=1)
    return "invalid value" if "{" in text else text


def error_for(status: int, body: bytes) -> KubeError:
    """The exception for an answer with this HTTP status, 400 or above."""
    reason, message, causes = _parts(body)
    code = f"{status} {reason}".strip()
    if status in {401, 403}:
        return KubeForbiddenError(_bounded(f"{code}: {message}" if message else code))
    if status == 404:
        return GoneError(code)
    if status == 409:
        return StaleError(code)
    if status == 500 and _TOO_LARGE in message:
        return RejectedError(f"{code}: {_TOO_LARGE}")
    if status >= 500 or status in {408, 429}:
        return UnansweredError(code)
    if not causes and _STRICT in message:
        causes = [_after_strict(message)]
    return RejectedError(_bounded(f"{code}: {'; '.join(causes)}" if causes else code))
