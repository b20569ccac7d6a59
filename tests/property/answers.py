"""What the cloud says to a call, on the wire, as the operator's own classification understands it (rule P6).

Not for: whether the call is carried out (`cloud_model`).
"""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import httpx
from pydantic import ValidationError

from nodepool_membership.cce import wire
from nodepool_membership.cce.errors import CloudError, OutcomeUnknownError, from_answer, from_transport
from nodepool_membership.core.decision.record import Accepted, Answer
from nodepool_membership.runtime.cloud import error_mapping


class Reply(StrEnum):
    """What becomes of a call."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    REFUSED_IN_PART = "refused, but carried out for some"
    LOCKED = "locked"
    THROTTLED = "throttled"
    NOT_SENT = "not sent"
    LOST_BUT_ACCEPTED = "answer lost, accepted"
    LOST = "answer lost, not accepted"


_NOT_SENT: Final[tuple[Exception, ...]] = (
    httpx.ConnectError("connection refused"),
    httpx.ConnectTimeout("no connection"),
    httpx.PoolTimeout("no free connection"),
)
_LOST: Final[tuple[Exception | tuple[int, str], ...]] = (
    httpx.ReadTimeout("no answer"),
    (502, "<html>Bad Gateway</html>"),
    (504, "<html>Gateway Time-out</html>"),
    httpx.RemoteProtocolError("server disconnected"),
    httpx.ReadError("connection reset"),
    httpx.WriteTimeout("the request was not taken"),
    (200, "{}"),
    (202, '{"jobid": ""}'),
    (302, ""),
    (408, '{"error_code": "APIGW.0308", "error_msg": "request timeout"}'),
    (409, '{"errorCode": "CCE.01409001", "errorMessage": "the resource was changed meanwhile"}'),
    (500, '{"errorCode": "CCE.01500001", "errorMessage": "internal error"}'),
    (503, '{"error_code": "APIGW.0613", "error_msg": "backend unavailable"}'),
    (429, "<html>Too Many Requests</html>"),
    (400, '{"errorCode": "CCE.99999999", "errorMessage": "no code of CCE"}'),
)
LOST_WAYS: Final = len(_LOST)
_LOCKED: Final = ((429, "CCE.01429002"), (400, "CCE.01400023"), (429, "CCE.01429003"))
_THROTTLED: Final = ((429, "APIGW.0308"), (429, "CCE.02429001"))


def not_sent(how: int) -> Answer:
    """No connection was made; `how` chooses among the ways this shows."""
    return error_mapping.of_call(from_transport(_NOT_SENT[how % len(_NOT_SENT)], changes=True))


def lost(how: int) -> Answer:
    """Nothing that tells whether the call was accepted."""
    said = _LOST[how % len(_LOST)]
    if isinstance(said, Exception):
        return error_mapping.of_call(from_transport(said, changes=True))
    return _answered(*said)


def locked(how: int, retry_after: float | None) -> Answer:
    return _error(*_LOCKED[how % len(_LOCKED)], "the node pool is being changed", retry_after)


def throttled(how: int, retry_after: float | None) -> Answer:
    return _error(*_THROTTLED[how % len(_THROTTLED)], "too many requests", retry_after)


def refused(status: int, code: str, text: str) -> Answer:
    return _error(status, code, text, None)


def expired() -> Answer:
    """The gateway does not take the signature."""
    return _error(401, "APIGW.0301", "incorrect iam authentication information: signature expired", None)


def accepted(job_id: str) -> Answer:
    return _answered(200, json.dumps({"jobid": job_id}))


def _error(status: int, code: str, text: str, retry_after: float | None) -> Answer:
    names: Sequence[str] = ("error_code", "error_msg") if code.startswith("APIGW") else ("errorCode", "errorMessage")
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return _answered(status, json.dumps(dict(zip(names, (code, text), strict=True))), headers)


def _answered(status: int, body: str, headers: Mapping[str, str] | None = None) -> Answer:
    response = httpx.Response(status, headers=headers or {})
    return error_mapping.of_call(from_answer(response, body.encode(), changes=True)) if status >= 300 else _read(body)


def _read(body: str) -> Answer:
    try:
        return Accepted(wire.ADD_ANSWER.validate_json(body).job_id)
    except ValidationError:
        unread: CloudError = OutcomeUnknownError("an answer without a job id")
        return error_mapping.of_call(unread)
