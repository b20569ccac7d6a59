"""Signed calls to one service of the cloud: sending, the outcome of a call, and reading its answer. One request each.

Not for: which calls there are (`client`, `servers`), retrying, waiting or judging. Nothing is repeated, no redirect is
followed. Raises only `CloudError`s.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from nodepool_membership import __version__
from nodepool_membership.cce.breaker import Attempt, Breaker
from nodepool_membership.cce.credentials import Credentials, Source
from nodepool_membership.cce.errors import (
    CloudError,
    EndedKeyError,
    IdentityError,
    NotFoundError,
    NotSentError,
    UnauthenticatedError,
    UnavailableError,
    WithheldError,
    from_answer,
    from_transport,
    http_date,
    request_id_of,
)
from nodepool_membership.cce.lockout import Lockout
from nodepool_membership.cce.reads import ReadBudget
from nodepool_membership.cce.signing import DATE_HEADER, authentication, sdk_date
from nodepool_membership.cce.transport import FEW_VALUES, is_connect, read_bounded, values_in

T = TypeVar("T")

_USER_AGENT: Final = f"nodepool-membership/{__version__}"

Fence = Callable[[], str | None]
"""Asked right before bytes of a call leave: why it must not be sent, None if it may."""
_LEAVING: Final = ("send_request_headers.started", "send_request_body.started")
"""Names of httpcore's trace events, without the protocol."""

LIST_VALUES: Final = 50_000
"""In a list of a hundred things or two."""
MANY_VALUES: Final = 400_000
"""In a page of 2,000 nodes, with the 150 that a node has and some more."""

_READER: Final = ThreadPoolExecutor(1, thread_name_prefix="read")
"""Two large pages at once would take the memory of two."""

Observe = Callable[[str, str, float], None]
"""Told of every call: route, outcome, seconds."""


def always_open() -> str | None:
    """The fence that lets everything pass."""
    return None


def nobody(_route: str, _outcome: str, _seconds: float) -> None:
    """The default observer."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """A 2xx answer, read to its end."""

    content: bytes
    status: int
    request_id: str | None


class _Leaves:
    """Watches a request on its way out: closes the fence before it, and knows whether it has begun to leave."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._begun = False
        self._left = False

    @property
    def sent(self) -> bool:
        """False only if it certainly was not: the connection, or the proxy's tunnel, was still being made."""
        return self._left or not self._begun

    async def trace(self, event: str, info: dict[str, object]) -> None:
        """httpcore's extension `trace`."""
        self._begun = True
        if not event.endswith(_LEAVING):
            return
        # Getting a connection may take long: after that, and after a pause of the process, is what counts.
        if (reason := self._fence()) is not None:
            raise WithheldError(reason)
        self._left = self._left or not is_connect(info)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, before it is signed."""

    method: str
    path: str
    query: dict[str, str] | None
    body: bytes | None
    signed_at: datetime | None
    fence: Fence


class Caller:
    """One address, project and credential. Cheap to make: the connections are shared."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        http: httpx.AsyncClient,
        base: str,
        project_id: str,
        source: Source,
        *,
        now: Callable[[], datetime],
        timeout_seconds: float,
        lockout: Lockout | None = None,
        breaker: Breaker | None = None,
        reads: ReadBudget | None = None,
        observe: Observe = nobody,
    ) -> None:
        """`base` is what every path follows: scheme, host and port, without a slash at the end, or more.

        Without `reads` nothing bounds how many reads there are in a second.
        """
        self._http = http
        self._base = base
        self._source = source
        self._headers = {"Content-Type": "application/json", "X-Project-Id": project_id, "User-Agent": _USER_AGENT}
        self._now = now
        self._timeout = timeout_seconds
        self._lockout = lockout or Lockout(clock=monotonic)
        self._breaker = breaker or Breaker(clock=monotonic)
        self._reads = reads
        self._observe = observe
        self.clock_offset_seconds: float | None = None
        """The cloud's clock (its last `Date` header) minus ours (rule P21); None before the first answer."""

    async def call(  # noqa: PLR0913 - made in one place, by name
        self,
        route: str,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        signed_at: datetime | None = None,
        fence: Fence = always_open,
    ) -> ApiAnswer:
        """One call. `route` is its name for the observer; `signed_at` and `fence` are for calls that change something.

        Raises:
            CloudError: there is no 2xx answer.
        """
        begun = monotonic()
        outcome = "aborted"
        try:
            async with self._lockout.call(changes=method != "GET"):
                credentials = await self._source.current()
                request = Request(method, path, query, body, signed_at, fence)
                try:
                    answer = await self._send(request, credentials)
                except UnauthenticatedError as error:
                    # Keys can end before their time: they are renewed before they are blamed.
                    if not await self._has_others(credentials, changes=method != "GET"):
                        raise
                    if method != "GET":
                        raise EndedKeyError.of(error) from None
                    answer = await self._send(request, await self._source.current())
        except CloudError as error:
            # A read of what is not there has told that: it is no trouble of the cloud's.
            missing = isinstance(error, UnavailableError) and error.status == httpx.codes.NOT_FOUND
            outcome = NotFoundError.outcome() if missing else error.outcome()
            raise
        else:
            outcome = "ok"
            return answer
        finally:
            self._observe(route, outcome, monotonic() - begun)

    async def _has_others(self, refused: Credentials, *, changes: bool) -> bool:
        """Whether refused credentials are not used again, for others or for none."""
        try:
            return await self._source.renewed(refused)
        except IdentityError:
            # A call that was refused was sent: that there are no keys any more is for the next one to say.
            if changes:
                return True
            raise

    async def _send(self, wanted: Request, credentials: Credentials) -> ApiAnswer:
        if wanted.method != "GET" or self._reads is None:
            return await self._sent(wanted, credentials)
        async with self._reads.read():
            return await self._sent(wanted, credentials)

    async def _sent(self, wanted: Request, credentials: Credentials) -> ApiAnswer:
        leaves = _Leaves(wanted.fence)
        changes = wanted.method != "GET"
        dated = {} if wanted.signed_at is None else {DATE_HEADER: sdk_date(wanted.signed_at)}
        request = self._http.build_request(
            wanted.method,
            self._base + wanted.path,
            params=wanted.query,
            content=wanted.body,
            headers={**self._headers, **dated},
        )
        request.extensions["trace"] = leaves.trace
        auth = authentication(credentials, now=self._now)
        with self._breaker.call() as attempt:
            answer, content = await self._exchanged(request, auth, leaves, attempt, changes=changes)
            attempt.answered = True
        self._note_clock(answer)
        if not answer.is_success:
            raise from_answer(answer, content, changes=changes)
        return ApiAnswer(content, answer.status_code, request_id_of(answer.headers.get("X-Request-Id")))

    async def _exchanged(
        self, request: httpx.Request, auth: httpx.Auth, leaves: _Leaves, attempt: Attempt, *, changes: bool
    ) -> tuple[httpx.Response, bytes]:
        try:
            # httpx limits the gaps between bytes; this limits the whole call.
            async with asyncio.timeout(self._timeout):
                answer = await self._http.send(request, auth=auth, stream=True, follow_redirects=False)
                try:
                    return answer, await read_bounded(answer)
                finally:
                    await answer.aclose()
        except NotSentError:
            raise
        except TimeoutError:
            text = attempt.silence = f"no answer within {self._timeout:.0f} s"
            raise from_transport(httpx.ReadTimeout(text), changes=changes, sent=leaves.sent) from None
        except (httpx.HTTPError, OSError) as error:
            failure = from_transport(error, changes=changes, sent=leaves.sent)
            if isinstance(error, (httpx.ConnectError, httpx.TimeoutException)):
                attempt.silence = failure.message
            raise failure from None
        except Exception as error:
            # Whatever it was, a call that changes something may have left before (rule P6).
            if changes:
                raise from_transport(error, changes=True) from error
            raise

    def _note_clock(self, answer: httpx.Response) -> None:
        if (said := http_date(answer.headers.get("Date", ""))) is not None:
            self.clock_offset_seconds = (said - self._now()).total_seconds()


def read(adapter: TypeAdapter[T], answer: ApiAnswer, *, max_values: int = FEW_VALUES) -> T:
    """The answer's JSON, of at most so many values.

    Raises:
        UnavailableError: it cannot be read. There is nothing of it in the text.
    """
    if values_in(answer.content) > max_values:
        text = f"an answer of more than {max_values} values"
        raise UnavailableError(text, status=answer.status, request_id=answer.request_id)
    try:
        return adapter.validate_json(answer.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = f"an answer that cannot be read: {where} {first['msg']}".replace("  ", " ")
        raise UnavailableError(text, status=answer.status, request_id=answer.request_id) from None


async def read_page(adapter: TypeAdapter[T], answer: ApiAnswer) -> T:
    """A page of a list, of at most `MANY_VALUES`; one that keeps the loop for long is read in a thread, one at a time.

    Raises:
        UnavailableError: it cannot be read.
    """
    if values_in(answer.content) <= LIST_VALUES:
        return read(adapter, answer, max_values=LIST_VALUES)
    reading = partial(read, adapter, answer, max_values=MANY_VALUES)
    return await asyncio.get_running_loop().run_in_executor(_READER, reading)


def path_of(*segments: str) -> str:
    """Segments of a path, each percent-encoded, with a slash before each."""
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)
