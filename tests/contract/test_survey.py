"""One snapshot: pools, nodes, pools again, phase; and whose trouble it is when one of them cannot be read.

Not for: pages of the listing (`test_cce_listing`), or sharing (`tests/unit/cce/test_cce_snapshots.py`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
import pytest

from nodepool_membership.cce import survey as survey_module
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.errors import ForbiddenError, NotFoundError, ThrottledError, UnauthenticatedError
from nodepool_membership.cce.snapshots import Snapshot
from nodepool_membership.cce.survey import MOST_LACKING, SurveyError, survey
from scripted_cloud import CLUSTER, GONE, NOW, POOL, SERVERS, Wire, client

OTHER = "66666666-7777-8888-9999-111111111111"
DENIED = {"error_code": "CCE.01403001", "error_msg": "no"}


def a_pool(uid: str, count: int) -> dict[str, object]:
    return {"metadata": {"uid": uid}, "status": {"phase": "", "currentNode": count}}


def a_node(server: str, pool: str) -> dict[str, object]:
    meta = {"uid": f"uid-{server}", "annotations": {"kubernetes.io/node-pool.id": pool}}
    return {"metadata": meta, "status": {"phase": "Active", "serverId": server}}


@dataclass
class Scripted:
    """Answers by the end of the path; the pools count one more with each request."""

    answers: Mapping[str, httpx.Response] = field(default_factory=dict)
    counts: int = 0
    wire: Wire = field(init=False)

    def __post_init__(self) -> None:
        self.wire = Wire(self._respond)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        last = request.url.path.rsplit("/", 1)[-1]
        if last in self.answers:
            told = self.answers[last]
            return httpx.Response(told.status_code, content=told.content)
        match last:
            case "nodepools":
                self.counts += 1
                return httpx.Response(200, json={"items": [a_pool(POOL.upper(), self.counts), a_pool(OTHER, 7)]})
            case "nodes":
                return httpx.Response(200, json={"items": [a_node(server, POOL) for server in SERVERS]})
            case _ if last == CLUSTER:
                return httpx.Response(200, json={"status": {"phase": "Available"}})
            case _:
                self.counts += 1
                return httpx.Response(200, json=a_pool(last, self.counts))

    async def survey(self, *pools: str) -> Snapshot:
        return await survey(client(self.wire), CLUSTER, frozenset(pools), lambda: NOW)

    @property
    def asked(self) -> list[str]:
        return [request.url.path.rsplit("/", 1)[-1] for request in self.wire.seen]


async def test_a_pool_is_counted_before_and_after_its_nodes_are_listed() -> None:
    cloud = Scripted()
    seen = await cloud.survey(POOL)
    assert cloud.asked == [POOL, "nodes", POOL, CLUSTER]
    assert seen.begun == NOW
    assert (seen.pools[POOL].counted_before, seen.pools[POOL].current_nodes) == (1, 2)
    assert seen.nodes.active_in(POOL, SERVERS) == set(SERVERS)
    assert (seen.cluster.phase, dict(seen.unread), seen.doubtful) == ("Available", {}, frozenset())


async def test_several_pools_are_counted_in_one_request() -> None:
    cloud = Scripted()
    seen = await cloud.survey(POOL, OTHER)
    assert cloud.asked == ["nodepools", "nodes", "nodepools", CLUSTER]
    assert seen.pools.keys() == {POOL, OTHER}
    assert (seen.has(POOL), seen.has("another")) == (True, False)
    assert seen.doubtful == {OTHER}, "it counts seven nodes, and the list shows none"


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(403, json=DENIED), httpx.Response(404, json=GONE), httpx.Response(200, json={"items": [{}]})],
    ids=["not allowed", "not known", "not readable"],
)
async def test_where_pools_cannot_be_listed_each_is_asked_for(answer: httpx.Response) -> None:
    cloud = Scripted({"nodepools": answer})
    seen = await cloud.survey(POOL, OTHER)
    one_by_one = sorted((POOL, OTHER))
    assert cloud.asked == ["nodepools", *one_by_one, "nodes", "nodepools", *one_by_one, CLUSTER]
    assert seen.pools.keys() == {POOL, OTHER}


async def test_a_pool_that_the_list_lacks_is_asked_for_and_is_none_of_the_others_trouble() -> None:
    cloud = Scripted({"lacking": httpx.Response(404, json=GONE)})
    seen = await cloud.survey(POOL, OTHER, "lacking")
    assert seen.pools.keys() == {POOL, OTHER}
    assert isinstance(seen.unread["lacking"], NotFoundError)
    assert seen.has("lacking")


async def test_many_pools_that_the_list_lacks_cost_few_reads() -> None:
    """Whoever has a key for a cluster may name thousands, and others of the cluster wait for the same snapshot."""
    made_up = [f"made-up-{number}" for number in range(300)]
    cloud = Scripted(dict.fromkeys(made_up, httpx.Response(404, json=GONE)))
    seen = await cloud.survey(POOL, OTHER, *made_up)
    assert len(cloud.asked) == MOST_LACKING + len(["nodepools", "nodes", "nodepools", CLUSTER])
    assert seen.pools.keys() == {POOL, OTHER}
    assert seen.unread.keys() == set(made_up)
    assert all(isinstance(error, NotFoundError) for error in seen.unread.values())


@pytest.mark.parametrize(
    ("route", "status", "subject", "error"),
    [
        (POOL, 404, "the node pool", NotFoundError),
        (POOL, 403, "the node pool", ForbiddenError),
        ("nodes", 401, "the node list", UnauthenticatedError),
        (CLUSTER, 429, "the cluster", ThrottledError),
    ],
)
async def test_without_one_of_its_parts_there_is_no_snapshot(
    route: str, status: int, subject: str, error: type[Exception]
) -> None:
    body = {"error_code": f"CCE.01{status}001", "error_msg": "no"}
    cloud = Scripted({route: httpx.Response(status, json=body)})
    with pytest.raises(SurveyError) as caught:
        await cloud.survey(POOL)
    assert caught.value.subject == subject
    assert isinstance(caught.value.error, error)
    assert cloud.asked[-1] == route, "nothing is asked for after it"


async def test_a_trouble_that_is_not_about_a_pool_ends_it_at_once() -> None:
    cloud = Scripted({"nodepools": httpx.Response(429, json={"error_code": "APIGW.0308", "error_msg": "slow"})})
    with pytest.raises(SurveyError):
        await cloud.survey(POOL, OTHER)
    assert cloud.asked == ["nodepools"]


async def test_a_snapshot_has_a_deadline_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(survey_module, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(CloudClient, "list_nodes", hangs)
    with pytest.raises(SurveyError, match="the cluster: it was not read to its end within 0 s"):
        await Scripted().survey(POOL)
