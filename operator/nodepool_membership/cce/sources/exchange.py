"""One request to IAM, STS or an agent for keys, and what its answer means.

Not for: which request (the ways), or when (`renewal`). Nothing is repeated, no redirect is followed. The cloud's texts
are told as they are; whatever leaves the process passes the redaction.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Final

import httpx

from nodepool_membership import __version__
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.calls import Observe, nobody
from nodepool_membership.cce.errors import IdentityError, from_transport, http_date, retry_after
from nodepool_membership.cce.sources.wire import TemporaryKey, read_temporary_key
from nodepool_membership.cce.transport import FEW_VALUES, read_bounded, values_in

SESSION_NAME: Final = "nodepool-membership"
"""What the cloud's audit trail shows beside an agency's name."""
_USER_AGENT: Final = f"nodepool-membership/{__version__}"
_MAX_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class TimedGrant:
    """A grant, and for how many seconds from now it is good by the clock of whoever gave it."""

    grant: TemporaryKey
    seconds: float


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """A 2xx answer, read to its end."""

    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Via:
    """How services that give keys are reached; `timeout_seconds` is for one request, `observe` is told of each."""

    http: httpx.AsyncClient
    now: Callable[[], datetime]
    timeout_seconds: float
    observe: Observe = nobody


class Exchange:
    """One service; `remedy` says what to check when it refuses, by status and code."""

    def __init__(self, via: Via, what: str, remedy: Callable[[int, str], str]) -> None:
        """`what` is the service in words, such as "IAM at https://iam.example.com"."""
        self._via = via
        self._what = what
        self._remedy = remedy

    async def post(
        self, route: str, url: str, headers: Mapping[str, str], body: object, *, auth: httpx.Auth | None = None
    ) -> ServiceAnswer:
        """Send one request; `route` is its name for the observer.

        Raises:
            IdentityError: there is no 2xx answer.
        """
        begun, outcome = monotonic(), "aborted"
        try:
            answer = await self._answer(url, headers, body, auth)
            outcome = "ok"
        except IdentityError:
            outcome = "Identity"
            raise
        else:
            return answer
        finally:
            self._via.observe(route, outcome, monotonic() - begun)

    async def _answer(
        self, url: str, headers: Mapping[str, str], body: object, auth: httpx.Auth | None
    ) -> ServiceAnswer:
        http, timeout = self._via.http, self._via.timeout_seconds
        content = json.dumps(body).encode()
        request = http.build_request("POST", url, headers={"User-Agent": _USER_AGENT, **headers}, content=content)
        try:
            async with asyncio.timeout(timeout):
                # Without `auth` httpx would take user and password from the URL.
                answer = await http.send(request, auth=auth or httpx.Auth(), stream=True, follow_redirects=False)
                try:
                    found = await read_bounded(answer)
                finally:
                    await answer.aclose()
        except TimeoutError:
            raise self._unreachable(f"no answer within {timeout:.0f} s") from None
        except (httpx.HTTPError, OSError) as error:
            raise self._unreachable(from_transport(error, changes=False).message) from None
        if not answer.is_success:
            raise self._refusal(answer.status_code, answer.headers, found)
        return ServiceAnswer(answer.headers, found)

    def lease(self, answer: ServiceAnswer) -> TimedGrant:
        """The keys of an answer.

        Raises:
            IdentityError: it has none, or none that are good.
        """
        try:
            grant = read_temporary_key(answer.content)
        except ValueError as error:
            raise self._unreachable(f"an answer whose keys cannot be read: {error}") from None
        # By the clock that set the expiry: ours may be wrong.
        seconds = (grant.expires - (http_date(answer.headers.get("Date", "")) or self._via.now())).total_seconds()
        if seconds <= 0:
            raise self._unreachable(
                f"keys that ended already, at {grant.expires:%Y-%m-%dT%H:%M:%SZ}: check the clocks of both sides"
            )
        return TimedGrant(grant, seconds)

    def _unreachable(self, text: str) -> IdentityError:
        return IdentityError(f"{self._what}: {text}", reason=Reason.CLOUD_UNREACHABLE)

    def _refusal(self, status: int, headers: Mapping[str, str], content: bytes) -> IdentityError:
        code, message = _said(content)
        said = " ".join(part for part in (str(status), code, message) if part)[:_MAX_TEXT]
        if status == httpx.codes.TOO_MANY_REQUESTS:
            text = f"{self._what}: {said}; too many requests of this account or address: it is asked again later"
            return IdentityError(text, reason=Reason.THROTTLED, retry_after=retry_after(headers))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in {httpx.codes.GONE, httpx.codes.REQUEST_TIMEOUT}:
            return self._unreachable(f"{said}; it is asked again")
        if 300 <= status < 400:
            return self._unreachable(f"{status}, a redirect, which is not followed: correct the address")
        return IdentityError(f"{self._what}: {said}; {self._remedy(status, code)}")


def _said(content: bytes) -> tuple[str, str]:
    """Code and message of an error body: IAM's and STS's own form, or Keystone's `{"error": {...}}`."""
    try:
        document = json.loads(content) if values_in(content) <= FEW_VALUES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return "", "not an error's JSON"
    inner = document.get("error")
    fields = {**document, **(inner if isinstance(inner, dict) else {})}
    code = next((str(fields[name]) for name in ("error_code", "code") if fields.get(name)), "")
    message = next((str(fields[name]) for name in ("error_msg", "message", "title") if fields.get(name)), "")
    return code, message
