"""The operator's client and the simulated cloud, over real connections: all calls, and what goes wrong on the way.

Not for: the simulator's own promises; test_simulator_*.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import httpx
import pytest

from cce_simulator import Answer, ClusterConfig, FaultRule, NodePoolConfig, Simulator, lost_answer, throttled
from cce_simulator.config import ACCESS_KEY, CLUSTER_ID, NODE_POOL_ID, PROJECT_ID
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Credentials, Token
from nodepool_membership.cce.errors import (
    CloudError,
    ForbiddenError,
    LockedError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    RefusedError,
    ThrottledError,
    UnauthenticatedError,
    UnavailableError,
)
from nodepool_membership.cce.transport import make_http
from nodepool_membership.core.observed.observation import JobPhase
from nodepool_membership.core.preflight.facts import Group
from simulator_calls import TOKEN, Clock, config, servers

SECRET = "simulator-secret-key"
KEY = AccessKey(ACCESS_KEY, SECRET)
TEMPORARY = AccessKey("TEMPORARYKEY", "temporary", "security/token+=")
KEYS: list[dict[str, object]] = [
    {"accessKey": KEY.access_key, "secretKey": KEY.secret_key},
    {"accessKey": TEMPORARY.access_key, "secretKey": "temporary", "securityToken": TEMPORARY.security_token},
]
MISSING = "00000000-0000-0000-0000-000000000000"
A, B = servers(2)


@dataclass
class Site:
    """A simulator on a clock of its own, and connections to it."""

    simulator: Simulator
    clock: Clock
    http: httpx.AsyncClient

    @classmethod
    @asynccontextmanager
    async def running(cls, **fields: object) -> AsyncIterator[Self]:
        clock = Clock()
        async with Simulator(config(**fields), clock=clock, sleep=clock.sleep) as simulator, make_http(60) as http:
            simulator.configure({"accessKeys": KEYS})
            yield cls(simulator, clock, http)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now, UTC)

    def client(self, credentials: Credentials = KEY, timeout: float = 60) -> CloudClient:
        url = self.simulator.url
        return CloudClient(self.http, url, PROJECT_ID, credentials, now=self.now, timeout_seconds=timeout)

    async def add(self, *ids: str, by: Credentials = KEY) -> str:
        added = await self.client(by).add_nodes(CLUSTER_ID, NODE_POOL_ID, ids, signed_at=self.now())
        return added.job_id

    async def refused(self, *ids: str, by: Credentials = KEY) -> CloudError:
        """The error of an add that is not accepted or not known to be."""
        with pytest.raises(CloudError) as caught:
            await self.add(*ids, by=by)
        return caught.value

    def calls(self) -> int:
        return len(self.simulator.ledger.adds())


def fleet(count: int, **behaviour: object) -> dict[str, object]:
    pool = NodePoolConfig(id=NODE_POOL_ID, server_count=count)
    return {"clusters": (ClusterConfig(id=CLUSTER_ID, node_pools=(pool,)),), "seed": "test", "behaviour": behaviour}


@pytest.mark.parametrize("credentials", [KEY, TEMPORARY, Token(TOKEN)])
async def test_the_whole_life_of_an_add(credentials: Credentials) -> None:
    async with Site.running() as site:
        cloud = site.client(credentials)
        assert (await cloud.get_cluster(CLUSTER_ID)).phase == "Available"
        pool = await cloud.get_node_pool(CLUSTER_ID, NODE_POOL_ID)
        assert (pool.phase, pool.current_nodes, pool.template.groups) == (
            "",
            0,
            (Group("c7.2xlarge.4", "cn-north-4a"),),
        )
        assert len(await cloud.list_nodes(CLUSTER_ID)) == 0
        begun = site.now()
        job_id = await site.add(A.upper(), B, by=credentials)
        assert (await cloud.get_job(job_id)).phase is JobPhase.RUNNING
        table = await cloud.list_nodes(CLUSTER_ID)
        node = table.nodes([A])[A]
        assert (node.phase, node.pool_id, node.created) == ("Installing", NODE_POOL_ID, begun.replace(microsecond=0))
        assert await cloud.get_node(CLUSTER_ID, node.uid) == node
        site.clock.tick(100)
        assert (await cloud.get_job(job_id)).phase is JobPhase.SUCCEEDED
        assert (await cloud.list_nodes(CLUSTER_ID)).active_in(NODE_POOL_ID, [A, B]) == {A, B}
        assert (await cloud.get_node_pool(CLUSTER_ID, NODE_POOL_ID)).current_nodes == 2
        site.clock.tick(3600)
        assert (await cloud.get_job(job_id)).phase is JobPhase.LOST
        assert site.calls() == 1


@pytest.mark.parametrize("naming", ["embedded", "separate"])
async def test_a_failed_install_is_explained(naming: str) -> None:
    bad = {"servers": (A,), "way": "failInstall", "reason": "no disk"}
    async with Site.running(behaviour={"subJobs": naming}, bad_servers=(bad,)) as site:
        job_id = await site.add(A, B)
        site.clock.tick(100)
        report = await site.client().get_job(job_id)
        assert report.phase is JobPhase.FAILED
        assert (report.explanations.get(A) == "no disk") == (naming == "embedded")
        assert B not in report.explanations


# Listings.


async def test_2500_nodes_are_listed_page_by_page() -> None:
    async with Site.running(**fleet(2500)) as site:
        table = await site.client().list_nodes(CLUSTER_ID)
        assert len(table) == 2500
        assert len(table.active_in(NODE_POOL_ID, servers(2500))) == 2500
        assert table.begun == site.now()
        assert len(site.simulator.ledger.select(route="listNodes")) == 13


@pytest.mark.parametrize("count", [199, 200, 201, 2500])
async def test_pages_without_page_info_are_listed_all_the_same(count: int) -> None:
    async with Site.running(**fleet(count, paging="markerWithoutPageInfo")) as site:
        assert len(await site.client().list_nodes(CLUSTER_ID)) == count


@pytest.mark.parametrize("count", [199, 200, 1500])
async def test_a_deployment_without_paging_is_listed_in_one_page(count: int) -> None:
    async with Site.running(**fleet(count, paging="none")) as site:
        assert len(await site.client().list_nodes(CLUSTER_ID)) == count


async def test_more_nodes_than_a_deployment_without_paging_can_show_are_no_listing() -> None:
    async with Site.running(**fleet(2500, paging="none")) as site:
        with pytest.raises(UnavailableError, match="does not come to an end"):
            await site.client().list_nodes(CLUSTER_ID)
        assert len(site.simulator.ledger.select(route="listNodes")) <= 4


async def test_a_missing_next_marker_is_followed_up() -> None:
    async with Site.running(**fleet(600)) as site:
        site.simulator.faults.add(FaultRule(route="listNodes", omit_next_marker=True))
        assert len(await site.client().list_nodes(CLUSTER_ID)) == 600


@pytest.mark.parametrize(
    "rule",
    [
        {"drop": True},
        {"cutBody": True},
        {"answer": {"status": 502, "html": True}},
        {"answer": {"status": 200, "html": True}},
        {"answer": {"status": 200, "body": "{}"}},
    ],
)
async def test_a_page_that_fails_leaves_no_listing(rule: dict[str, object]) -> None:
    async with Site.running(**fleet(500)) as site:
        site.simulator.faults.add(FaultRule.from_json({"route": "listNodes", "skip": 1, "times": 1, **rule}))
        with pytest.raises(UnavailableError):
            await site.client().list_nodes(CLUSTER_ID)
        assert len(await site.client().list_nodes(CLUSTER_ID)) == 500


# Refusals.


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (AccessKey(ACCESS_KEY, "wrong"), "verify aksk signature fail"),
        (AccessKey("NOSUCHKEY", "x"), "ak not exist"),
        (AccessKey("TEMPORARYKEY", "temporary", "wrong-token"), "decrypt token fail"),
        (AccessKey("TEMPORARYKEY", "temporary"), "decrypt token fail"),
        (Token("wrong-token"), ""),
    ],
)
async def test_wrong_credentials(credentials: Credentials, said: str) -> None:
    async with Site.running() as site:
        error = await site.refused(A, by=credentials)
        assert isinstance(error, UnauthenticatedError)
        assert said in error.message
        for secret in ("wrong", "temporary", "canonical", "x-sdk-date"):
            assert secret not in repr(error)
        with pytest.raises(UnauthenticatedError):
            await site.client(credentials).list_nodes(CLUSTER_ID)


async def test_credentials_that_expire() -> None:
    async with Site.running() as site:
        site.simulator.configure({
            "accessKeys": [{**KEYS[1], "expiresAt": site.clock.now + 10}],
            "tokens": [{"value": TOKEN, "expiresAt": site.clock.now + 10}],
        })  # fmt: skip
        await site.add(A, by=TEMPORARY)
        site.clock.tick(11)
        assert isinstance(await site.refused(B, by=TEMPORARY), UnauthenticatedError)
        expired = await site.refused(B, by=Token(TOKEN))
        assert (type(expired), expired.code) == (UnauthenticatedError, "APIGW.0307")


async def test_a_signature_that_is_too_old_can_do_no_harm() -> None:
    """Rule P5: a call held up for longer than the gateway accepts its signature is refused."""
    async with Site.running() as site:
        signed_at = site.now() - timedelta(minutes=16)
        with pytest.raises(UnauthenticatedError, match="signature expired"):
            await site.client().add_nodes(CLUSTER_ID, NODE_POOL_ID, [A], signed_at=signed_at)
        await site.client().add_nodes(CLUSTER_ID, NODE_POOL_ID, [A], signed_at=site.now() - timedelta(minutes=14))


async def test_a_missing_right() -> None:
    async with Site.running() as site:
        site.simulator.configure({"accessKeys": [{**KEYS[0], "deny": ["cce:node:add"]}]})
        error = await site.refused(A)
        assert (type(error), error.code) == (ForbiddenError, "CCE.01403001")
        assert len(await site.client().list_nodes(CLUSTER_ID)) == 0


async def test_another_project() -> None:
    async with Site.running() as site:
        http, url = site.http, site.simulator.url
        elsewhere = CloudClient(http, url, "f" * 32, KEY, now=site.now, timeout_seconds=60)
        with pytest.raises(ForbiddenError):
            await elsewhere.get_cluster(CLUSTER_ID)


async def test_what_does_not_exist() -> None:
    async with Site.running() as site:
        cloud = site.client()
        for cluster, pool in ((MISSING, NODE_POOL_ID), (CLUSTER_ID, MISSING)):
            with pytest.raises(NotFoundError):
                await cloud.add_nodes(cluster, pool, [A], signed_at=site.now())
            with pytest.raises(NotFoundError):
                await cloud.get_node_pool(cluster, pool)
        with pytest.raises(NotFoundError):
            await cloud.list_nodes(MISSING)
        with pytest.raises(NotFoundError):
            await cloud.get_cluster(MISSING)
        assert (await cloud.get_job(MISSING)).phase is JobPhase.LOST
        assert await cloud.get_node(CLUSTER_ID, MISSING) is None


@pytest.mark.parametrize("code", ["CCE.01429002", "CCE.01429003", "CCE.01400023"])
async def test_locked_while_a_job_runs(code: str) -> None:
    async with Site.running(behaviour={"parallelJobs": code}) as site:
        await site.add(A)
        error = await site.refused(B)
        assert (type(error), error.code) == (LockedError, code)
        site.clock.tick(100)
        await site.add(B)


@pytest.mark.parametrize(("header", "seconds"), [(None, None), ("7", 7.0), ("56.818", 56.818)])
async def test_throttled(header: str | None, seconds: float | None) -> None:
    async with Site.running() as site:
        site.simulator.faults.add(throttled(retry_after=header))
        error = await site.refused(A)
        assert isinstance(error, ThrottledError)
        assert error.retry_after == seconds
        assert site.calls() == 1


async def test_the_eleventh_write_of_a_minute_is_throttled() -> None:
    async with Site.running(writes_per_minute=10) as site:
        for server in servers(10):
            await site.add(server)
        assert isinstance(await site.refused(servers(1, first=10)[0]), ThrottledError)


async def test_a_bad_server_is_refused_and_a_state_is_waited_for() -> None:
    async with Site.running(bad_servers=({"servers": (A,)},)) as site:
        error = await site.refused(A, B)
        assert (type(error), error.code) == (RefusedError, "CCE.01400001")
        assert A in error.message
        assert error.request_id == site.simulator.ledger.adds()[0].request_id
        site.simulator.world.inventory.clusters[CLUSTER_ID].pool(NODE_POOL_ID).phase = "Deleting"
        busy = await site.refused(B)
        assert (type(busy), busy.code) == (LockedError, "CCE.01403003")


@pytest.mark.parametrize("style", ["full", "documented", "older"])
async def test_every_style_of_error_body_is_a_certain_refusal(style: str) -> None:
    async with Site.running(behaviour={"errorBody": style}, bad_servers=({"servers": (A,)},)) as site:
        error = await site.refused(A)
        assert type(error) is RefusedError
        assert A in error.message


# Answers that are lost.


@pytest.mark.parametrize("status", [None, 502, 504])
async def test_an_answer_lost_after_acceptance_is_unknown_and_nothing_is_sent_again(status: int | None) -> None:
    async with Site.running() as site:
        site.simulator.faults.add(lost_answer(status=status))
        error = await site.refused(A)
        assert (type(error), error.status) == (OutcomeUnknownError, status)
        (entry,) = site.simulator.ledger.adds()
        assert entry.accepted == (A,)
        assert A in await site.client().list_nodes(CLUSTER_ID)


async def test_a_cut_off_job_id_is_unknown() -> None:
    async with Site.running() as site:
        site.simulator.faults.add(FaultRule(route="addNodes", cut_body=True, times=1))
        assert type(await site.refused(A)) is OutcomeUnknownError
        assert site.calls() == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with Site.running() as site:
        url = f"{site.simulator.url}/api/v3/projects/{PROJECT_ID}/clusters/{CLUSTER_ID}"
        answer = Answer(status=status, headers={"Location": url})
        site.simulator.faults.add(FaultRule(route="addNodes", answer=answer))
        assert type(await site.refused(A)) is OutcomeUnknownError
        assert site.simulator.summary().calls == 1


async def test_connections_that_are_refused_sent_nothing() -> None:
    async with Site.running() as site:
        # Bound until the end: nobody else can listen there meanwhile.
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            cloud = CloudClient(site.http, url, PROJECT_ID, KEY, now=site.now, timeout_seconds=60)
            with pytest.raises(NotSentError):
                await cloud.add_nodes(CLUSTER_ID, NODE_POOL_ID, [A], signed_at=site.now())
            with pytest.raises(NotSentError):
                await cloud.list_nodes(CLUSTER_ID)


async def test_a_server_that_never_answers_leaves_it_unknown() -> None:
    held = asyncio.Event()

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    # The deadline of the call alone is to run out: one for the connection would mean that nothing was sent.
    async with server, make_http(60) as http:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        now = datetime.now(UTC)
        cloud = CloudClient(http, url, PROJECT_ID, KEY, now=lambda: now, timeout_seconds=0.2)
        with pytest.raises(OutcomeUnknownError):
            await cloud.add_nodes(CLUSTER_ID, NODE_POOL_ID, [A], signed_at=now)
        held.set()


async def test_the_clouds_clock() -> None:
    """Rule P21: ten minutes ahead, by the Date header of an answer."""
    async with Site.running(clock_skew_seconds=600) as site:
        cloud = site.client()
        await cloud.get_cluster(CLUSTER_ID)
        assert cloud.clock_offset_seconds == pytest.approx(600, abs=1)
