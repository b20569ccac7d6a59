"""An async client for the calls of the CCE API v3 that the operator makes. Each method is one request, or one listing.

Not for: retrying, waiting or judging. Nothing is repeated, no redirect is followed. Raises only `CloudError`s.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from nodepool_membership import __version__
from nodepool_membership.cce import wire
from nodepool_membership.cce.credentials import Credentials
from nodepool_membership.cce.errors import (
    CloudError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    UnavailableError,
    WithheldError,
    from_answer,
    from_transport,
)
from nodepool_membership.cce.lockout import Lockout
from nodepool_membership.cce.signing import DATE_HEADER, authentication, sdk_date
from nodepool_membership.core.observation import ClusterReport, JobPhase, JobReport, Node, NodeTable, PoolReport

T = TypeVar("T")

PAGE_SIZE: Final = 200
"""Nodes a page (the API allows 1..2000): a node document is about 3 KB, so a page is 0.6 MB."""
MAX_PAGE_SIZE: Final = 2000
MAX_PAGES: Final = 1000
"""More than any cluster needs: a listing that goes on has lost its way."""
MAX_ANSWER_BYTES: Final = 32 << 20
_CONNECTIONS: Final = 20
_USER_AGENT: Final = f"nodepool-membership/{__version__}"

Fence = Callable[[], str | None]
"""Asked right before bytes of a call leave: why it must not be sent, None if it may."""
_LEAVING: Final = ("send_request_headers.started", "send_request_body.started")
"""Names of httpcore's trace events, without the protocol."""

Observe = Callable[[str, str, float], None]
"""Told of every call: route, outcome, seconds."""


def _open() -> str | None:
    """The fence that lets everything pass."""
    return None


def _nobody(_route: str, _outcome: str, _seconds: float) -> None:
    """The default observer."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an accepted add or removal. `request_id` is the cloud's, for its support."""

    job_id: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """A 2xx answer, read to its end."""

    content: bytes
    status: int
    request_id: str | None


def make_http(timeout_seconds: float) -> httpx.AsyncClient:
    """The connections of the process; proxies come from the environment. To be closed."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        # Shorter for making a connection than for the call as a whole: then a call that was not sent is known as such.
        timeout=httpx.Timeout(timeout_seconds, connect=timeout_seconds / 4, pool=timeout_seconds / 4),
        limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        # The gateway's load balancer sets a cookie; it would travel from one membership's calls to another's.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
    )


class CloudClient:
    """One endpoint, project and credential. Cheap to make: the connections are shared."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        endpoint: str,
        project_id: str,
        credentials: Credentials,
        *,
        now: Callable[[], datetime],
        timeout_seconds: float,
        lockout: Lockout | None = None,
        observe: Observe = _nobody,
    ) -> None:
        self._http = http
        self._base = f"{endpoint}/api/v3/projects/{quote(project_id, safe='')}"
        self._auth = authentication(credentials, now=now)
        self._headers = {"Content-Type": "application/json", "X-Project-Id": project_id, "User-Agent": _USER_AGENT}
        self._now = now
        self._timeout = timeout_seconds
        self._lockout = lockout or Lockout(clock=monotonic)
        self._observe = observe
        self.clock_offset_seconds: float | None = None
        """The cloud's clock (its last `Date` header) minus ours (rule P21); None before the first answer."""

    async def add_nodes(
        self, cluster_id: str, pool_id: str, server_ids: Sequence[str], *, signed_at: datetime, fence: Fence = _open
    ) -> Accepted:
        """Have 1..200 servers added: their operating systems are reinstalled, their disks wiped.

        https://support.huaweicloud.com/intl/en-us/api-cce/AddNodesToNodePool.html

        Raises:
            NotSentError: certainly nothing happened, no connection was made.
            WithheldError: the same, because the fence was closed.
            RefusedError: certainly nothing happened; its subclasses say why.
            OutcomeUnknownError: it may have been accepted.
        """
        body = {"apiVersion": "v3", "kind": "List", "nodeList": [{"serverID": server_id} for server_id in server_ids]}
        path = _path("clusters", cluster_id, "nodepools", pool_id, "nodes", "add")
        content = json.dumps(body).encode()
        answer = await self._call("addNodes", "POST", path, body=content, signed_at=signed_at, fence=fence)
        return _accepted(wire.ADD_ANSWER, answer)

    async def remove_nodes(
        self, cluster_id: str, node_uids: Sequence[str], *, signed_at: datetime, fence: Fence = _open
    ) -> Accepted:
        """Have 1..200 nodes removed from the cluster: operating systems are reinstalled, the servers kept running.

        The call that destroys servers, DELETE of a node, is none of this client's.
        Dossier section 6.

        Raises:
            NotSentError, RefusedError, OutcomeUnknownError: as for an add.
        """
        body = {"apiVersion": "v3", "kind": "RemoveNodesTask", "spec": {"nodes": [{"uid": uid} for uid in node_uids]}}
        path = _path("clusters", cluster_id, "nodes", "operation", "remove")
        query = {"removeNodeSystemSecurityGroup": "false"}
        content = json.dumps(body).encode()
        answer = await self._call(
            "removeNodes", "PUT", path, query=query, body=content, signed_at=signed_at, fence=fence
        )
        return _accepted(wire.REMOVE_ANSWER, answer)

    async def get_job(self, job_id: str) -> JobReport:
        """A job; one that the cloud does not know (any more) is reported as lost, not raised.

        Raises:
            CloudError: it cannot be looked at.
        """
        try:
            answer = await self._call("getJob", "GET", _path("jobs", job_id))
        except NotFoundError as error:
            if not _says_absent(error):
                raise
            return JobReport(job_id, JobPhase.LOST)
        return self._read(wire.JOB, answer).report(job_id)

    async def list_nodes(self, cluster_id: str) -> NodeTable:
        """A complete listing of the cluster's nodes (rule P13), or none at all.

        Raises:
            CloudError: a page failed.
            UnavailableError: a page cannot be read, or the pages do not come to an end.
        """
        for size in (PAGE_SIZE, MAX_PAGE_SIZE):
            table = await self._list_by(cluster_id, size)
            if table is not None:
                return table
        raise UnavailableError("the node list does not come to an end: pages bring no further nodes")

    async def _list_by(self, cluster_id: str, size: int) -> NodeTable | None:
        """A listing by pages of `size`; None if a page brings nothing new, as from deployments without paging."""
        table = NodeTable(self._now())
        seen: set[str] = set()
        query = {"limit": str(size)}
        for _ in range(MAX_PAGES):
            answer = await self._call("listNodes", "GET", _path("clusters", cluster_id, "nodes"), query=query)
            page = self._read(wire.NODE_PAGE, answer)
            marker = _next_marker(page, size)
            if marker is not None and marker in seen:
                return table if _is_unpaged(page, size) else None
            table.extend(document.node() for document in page.documents)
            if marker is None:
                return table
            seen.add(marker)
            query = {"limit": str(size), "marker": marker}
            # Not to be held while the next page comes.
            del answer, page
        return None

    async def get_node(self, cluster_id: str, node_uid: str) -> Node | None:
        """One node, None if there is none. Raises CloudError."""
        try:
            answer = await self._call("getNode", "GET", _path("clusters", cluster_id, "nodes", node_uid))
        except NotFoundError as error:
            if not _says_absent(error):
                raise
            return None
        return self._read(wire.NODE, answer).node()

    async def get_node_pool(self, cluster_id: str, pool_id: str) -> PoolReport:
        """A node pool. Raises CloudError."""
        answer = await self._call("getNodePool", "GET", _path("clusters", cluster_id, "nodepools", pool_id))
        return self._read(wire.POOL, answer).report()

    async def get_cluster(self, cluster_id: str) -> ClusterReport:
        """A cluster. Raises CloudError."""
        answer = await self._call("getCluster", "GET", _path("clusters", cluster_id))
        return self._read(wire.CLUSTER, answer).report()

    async def _call(
        self,
        route: str,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        signed_at: datetime | None = None,
        fence: Fence = _open,
    ) -> _Answer:
        begun = monotonic()
        outcome = "aborted"
        try:
            async with self._lockout.call(changes=method != "GET"):
                answer = await self._send(method, path, query, body, signed_at, fence)
        except CloudError as error:
            outcome = type(error).__name__.removesuffix("Error")
            raise
        else:
            outcome = "ok"
            return answer
        finally:
            self._observe(route, outcome, monotonic() - begun)

    async def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None,
        body: bytes | None,
        signed_at: datetime | None,
        fence: Fence,
    ) -> _Answer:
        async def guard(event: str, _info: object) -> None:
            # Getting a connection may take long: after that, and after a pause of the process, is what counts.
            if event.endswith(_LEAVING) and (reason := fence()) is not None:
                raise WithheldError(reason)

        changes = method != "GET"
        headers = self._headers if signed_at is None else {**self._headers, DATE_HEADER: sdk_date(signed_at)}
        request = self._http.build_request(method, self._base + path, params=query, content=body, headers=headers)
        if changes:
            request.extensions["trace"] = guard
        try:
            # httpx limits the gaps between bytes; this limits the whole call.
            async with asyncio.timeout(self._timeout):
                answer = await self._http.send(request, auth=self._auth, stream=True, follow_redirects=False)
                try:
                    content = await _read_bounded(answer)
                finally:
                    await answer.aclose()
        except NotSentError:
            raise
        except TimeoutError:
            text = f"no answer within {self._timeout:.0f} s"
            raise (OutcomeUnknownError(text) if changes else UnavailableError(text)) from None
        except (httpx.HTTPError, OSError) as error:
            raise from_transport(error, changes=changes) from None
        except Exception as error:
            # Whatever it was, a call that changes something may have left before (rule P6).
            if changes:
                raise from_transport(error, changes=True) from error
            raise
        self._note_clock(answer)
        if not answer.is_success:
            raise from_answer(answer, content, changes=changes)
        return _Answer(content, answer.status_code, answer.headers.get("X-Request-Id"))

    def _note_clock(self, answer: httpx.Response) -> None:
        try:
            said = parsedate_to_datetime(answer.headers.get("Date", ""))
        except (ValueError, OverflowError):
            return
        if said.tzinfo is not None:
            self.clock_offset_seconds = (said - self._now()).total_seconds()

    def _read(self, adapter: TypeAdapter[T], answer: _Answer) -> T:
        try:
            return adapter.validate_json(answer.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            text = f"an answer that cannot be read: {where} {first['msg']}".replace("  ", " ")
            raise UnavailableError(text, status=answer.status, request_id=answer.request_id) from None


def _accepted(adapter: TypeAdapter[wire.AddAnswer] | TypeAdapter[wire.RemoveAnswer], answer: _Answer) -> Accepted:
    try:
        return Accepted(adapter.validate_json(answer.content).job_id, answer.request_id)
    except ValidationError:
        text = "an answer without a job id"
        raise OutcomeUnknownError(text, status=answer.status, request_id=answer.request_id) from None


async def _read_bounded(answer: httpx.Response) -> bytes:
    """The body, decompressed; never more than is sane."""
    content = bytearray()
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise httpx.ReadError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _says_absent(error: NotFoundError) -> bool:
    """Whether CCE does not know the thing; the gateway's 404 says that it does not know the address."""
    return error.code is not None and not error.code.startswith("APIGW.")


def _next_marker(page: wire.NodePage, size: int) -> str | None:
    """Where the listing goes on; None on its last page. Older deployments send no pageInfo (dossier section 4)."""
    if page.next_marker:
        return page.next_marker
    # A full page without a marker is followed up with its last uid: rather one call more than a node less (rule P13).
    # One that is more than full comes from a deployment that has a page size of its own, or none.
    return page.documents[-1].uid if len(page.documents) >= size else None


def _is_unpaged(page: wire.NodePage, size: int) -> bool:
    """Whether a page that came again is everything: more than was asked for, and not cut at the API's own limit."""
    return not page.next_marker and size < len(page.documents) != MAX_PAGE_SIZE


def _path(*segments: str) -> str:
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)
