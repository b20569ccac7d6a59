"""An async client for the calls of the CCE API v3 that the operator makes. Each method is one request, or one listing.

Not for: retrying, waiting or judging. Nothing is repeated, no redirect is followed. Raises only `CloudError`s.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import httpx
from pydantic import TypeAdapter

from nodepool_membership.cce import wire
from nodepool_membership.cce.breaker import Breaker
from nodepool_membership.cce.calls import (
    LIST_VALUES,
    ApiAnswer,
    Caller,
    Fence,
    Observe,
    always_open,
    nobody,
    path_of,
    read,
    read_page,
)
from nodepool_membership.cce.credentials import Source
from nodepool_membership.cce.errors import NotFoundError, OutcomeUnknownError, UnavailableError
from nodepool_membership.cce.lockout import Lockout
from nodepool_membership.cce.reads import ReadBudget
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    JobReport,
    Node,
    NodeTable,
    PoolReport,
)

PAGE_SIZE: Final = 200
"""Nodes a page (the API allows 1..2000): a node document is about 3 KB, so a page is 0.6 MB."""
MAX_PAGE_SIZE: Final = 2000
MAX_PAGES: Final = 1000
"""More than any cluster needs: a listing that goes on has lost its way."""
MAX_NODES: Final = 20_000
"""Of one listing: twice what the largest cluster has, 4 MB in memory."""


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """The answer to an accepted add or removal. `request_id` is the cloud's, for its support."""

    job_id: str
    request_id: str | None


class CloudClient:
    """One endpoint, project and credential. Cheap to make: the connections are shared."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        http: httpx.AsyncClient,
        endpoint: str,
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
        base = endpoint + path_of("api", "v3", "projects", project_id)
        self._now = now
        self._caller = Caller(
            http,
            base,
            project_id,
            source,
            now=now,
            timeout_seconds=timeout_seconds,
            lockout=lockout,
            breaker=breaker,
            reads=reads,
            observe=observe,
        )

    @property
    def clock_offset_seconds(self) -> float | None:
        """The cloud's clock minus ours (rule P21); None before the first answer."""
        return self._caller.clock_offset_seconds

    async def add_nodes(
        self,
        cluster_id: str,
        pool_id: str,
        server_ids: Sequence[str],
        *,
        signed_at: datetime,
        fence: Fence = always_open,
    ) -> AcceptedJob:
        """Have 1..200 servers added: their operating systems are reinstalled, their disks wiped.

        https://support.huaweicloud.com/intl/en-us/api-cce/AddNodesToNodePool.html

        Raises:
            NotSentError: certainly nothing happened, no connection was made.
            WithheldError: the same, because the fence was closed.
            RefusedError: certainly nothing happened; its subclasses say why.
            OutcomeUnknownError: it may have been accepted.
        """
        body = {"apiVersion": "v3", "kind": "List", "nodeList": [{"serverID": server_id} for server_id in server_ids]}
        path = path_of("clusters", cluster_id, "nodepools", pool_id, "nodes", "add")
        content = json.dumps(body).encode()
        answer = await self._caller.call("addNodes", "POST", path, body=content, signed_at=signed_at, fence=fence)
        return _accepted(wire.ADD_ANSWER, answer)

    async def remove_nodes(
        self, cluster_id: str, node_uids: Sequence[str], *, signed_at: datetime, fence: Fence = always_open
    ) -> AcceptedJob:
        """Have 1..200 nodes removed from the cluster: operating systems are reinstalled, the servers kept running.

        The call that destroys servers, DELETE of a node, is none of this client's.

        Raises:
            NotSentError, RefusedError, OutcomeUnknownError: as for an add.
        """
        body = {"apiVersion": "v3", "kind": "RemoveNodesTask", "spec": {"nodes": [{"uid": uid} for uid in node_uids]}}
        path = path_of("clusters", cluster_id, "nodes", "operation", "remove")
        query = {"removeNodeSystemSecurityGroup": "false"}
        content = json.dumps(body).encode()
        answer = await self._caller.call(
            "removeNodes", "PUT", path, query=query, body=content, signed_at=signed_at, fence=fence
        )
        return _accepted(wire.REMOVE_ANSWER, answer)

    async def get_job(self, job_id: str) -> JobReport:
        """A job; one that the cloud does not know (any more) is reported as lost, not raised.

        Raises:
            CloudError: it cannot be looked at.
        """
        try:
            answer = await self._caller.call("getJob", "GET", path_of("jobs", job_id))
        except NotFoundError as error:
            if not _says_absent(error):
                raise
            return JobReport(job_id, JobPhase.LOST)
        return read(wire.JOB, answer).report(job_id)

    async def list_nodes(self, cluster_id: str) -> NodeTable:
        """A complete listing of the cluster's nodes (rule P13), or none at all.

        Raises:
            CloudError: a page failed.
            UnavailableError: a page cannot be read, or the pages do not come to an end.
        """
        for size in (PAGE_SIZE, MAX_PAGE_SIZE):
            table = await self._list_by(cluster_id, size)
            if table is not None:
                table.close()
                return table
        raise UnavailableError("the node list does not come to an end: pages bring no further nodes")

    async def _list_by(self, cluster_id: str, size: int) -> NodeTable | None:
        """A listing by pages of `size`; None if a page brings nothing new, as from deployments without paging."""
        table = NodeTable(self._now())
        seen: set[str] = set()
        query, nodes = {"limit": str(size)}, 0
        for _ in range(MAX_PAGES):
            answer = await self._caller.call("listNodes", "GET", path_of("clusters", cluster_id, "nodes"), query=query)
            page = await read_page(wire.NODE_PAGE, answer)
            # Making nodes of a large page keeps the loop for long enough.
            await asyncio.sleep(0)
            marker = _next_marker(page, size)
            if marker is not None and marker in seen:
                return table if _is_unpaged(page, size) else None
            nodes += len(page.documents)
            if nodes > MAX_NODES:
                raise UnavailableError(f"the node list has more than {MAX_NODES} nodes, the most that are read")
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
            answer = await self._caller.call("getNode", "GET", path_of("clusters", cluster_id, "nodes", node_uid))
        except NotFoundError as error:
            if not _says_absent(error):
                raise
            return None
        return read(wire.NODE, answer).node()

    async def get_node_pool(self, cluster_id: str, pool_id: str) -> PoolReport:
        """A node pool. Raises CloudError."""
        answer = await self._caller.call("getNodePool", "GET", path_of("clusters", cluster_id, "nodepools", pool_id))
        return read(wire.POOL, answer).report()

    async def list_node_pools(self, cluster_id: str) -> dict[str, PoolReport]:
        """All node pools that were made by somebody, by their ids. Raises CloudError."""
        answer = await self._caller.call("listNodePools", "GET", path_of("clusters", cluster_id, "nodepools"))
        return read(wire.POOLS, answer, max_values=LIST_VALUES).reports()

    async def get_cluster(self, cluster_id: str) -> ClusterReport:
        """A cluster. Raises CloudError."""
        answer = await self._caller.call("getCluster", "GET", path_of("clusters", cluster_id))
        return read(wire.CLUSTER, answer).report()


_Accepting = TypeVar("_Accepting", wire.AddAnswer, wire.RemoveAnswer)


def _accepted(adapter: TypeAdapter[_Accepting], answer: ApiAnswer) -> AcceptedJob:
    try:
        return AcceptedJob(read(adapter, answer).job_id, answer.request_id)
    except UnavailableError:
        text = "an answer without a job id"
        raise OutcomeUnknownError(text, status=answer.status, request_id=answer.request_id) from None


def _says_absent(error: NotFoundError) -> bool:
    """Whether CCE does not know the thing; the gateway's 404 says that it does not know the address."""
    return error.code is not None and not error.code.startswith("APIGW.")


def _next_marker(page: wire.NodePage, size: int) -> str | None:
    """Where the listing goes on; None on its last page. Older deployments send no pageInfo (docs/cloud-facts.md)."""
    if page.next_marker:
        return page.next_marker
    # A full page without a marker is followed up with its last uid: rather one call more than a node less (rule P13).
    # One that is more than full comes from a deployment that has a page size of its own, or none.
    return page.documents[-1].uid if len(page.documents) >= size else None


def _is_unpaged(page: wire.NodePage, size: int) -> bool:
    """Whether a page that came again is everything: more than was asked for, and not cut at the API's own limit."""
    return not page.next_marker and size < len(page.documents) != MAX_PAGE_SIZE
