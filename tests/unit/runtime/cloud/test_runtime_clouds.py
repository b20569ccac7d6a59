"""What a membership may use of the cloud: calls of before a restart, and credentials that are gone (P20, P23).

Not for: the budget itself (`test_cce_budget`), or what is decided without credentials (`test_core_requests`).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import NodePoolRef
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.cce.budget import Budgets, Taken
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Source
from nodepool_membership.cce.endpoints import AllowList
from nodepool_membership.cce.services import PUBLIC_ONLY
from nodepool_membership.cce.snapshots import Snapshots
from nodepool_membership.cce.sources.exchange import Via
from nodepool_membership.cce.wire import MAX_SUB_JOBS
from nodepool_membership.core.decision.record import Accepted, NotNow
from nodepool_membership.core.observed.observation import Freshness, JobPhase, JobReport, Observation
from nodepool_membership.core.program.effects import Awaited, ClusterView, ReadCluster
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import KubeError, KubeForbiddenError, UnansweredError
from nodepool_membership.kube.secrets import Secrets
from nodepool_membership.kube.service_accounts import ServiceAccounts
from nodepool_membership.runtime.cloud.clouds import Access, Clouds
from nodepool_membership.runtime.cloud.error_mapping import TroubleError
from nodepool_membership.runtime.cloud.identities import Identities, Own
from nodepool_membership.runtime.cloud.jobs import MAX_KEPT, Jobs
from nodepool_membership.runtime.cloud.locks import Locks
from unit.core_builders import JOB, NOW, SECOND, a_batch, a_spec, an_object, servers

A, B, C, D = servers(4)
KEYS = {"accessKey": b"AK", "secretKey": b"secret-key"}
PER_MINUTE = 2
POLL = 15.0
SOUND = {"items": [], "status": {"phase": "Available"}}
"""An answer that is one to every read."""


class FakeSecrets(Secrets):
    """One Secret, which may be gone or unreadable."""

    def __init__(self, api: KubeApi) -> None:
        super().__init__(api)
        self.data: Mapping[str, bytes] | None = KEYS
        self.error: KubeError | None = None
        self.asked: list[tuple[str, str, bool]] = []

    async def read(self, namespace: str, name: str, *, fresh: bool = False) -> Mapping[str, bytes] | None:
        self.asked.append((namespace, name, fresh))
        if self.error is not None:
            raise self.error
        return self.data


class Sources(Identities):
    """Whose keys nobody asks for."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__(
            Via(httpx.AsyncClient(), lambda: NOW, 1),
            ServiceAccounts(KubeApi.__new__(KubeApi)),
            PUBLIC_ONLY,
            frozenset(),
            Own(),
            monotonic=monotonic,
            random=lambda: 0.0,
        )


@dataclass
class Site:
    """A process that has just started."""

    secrets: FakeSecrets
    connected: list[Source] = field(default_factory=list)
    now: float = 5000.0
    answer: httpx.Response = field(default_factory=lambda: httpx.Response(500))
    asked: list[float] = field(default_factory=list)
    """When."""
    there: asyncio.Event = field(default_factory=asyncio.Event)
    """A snapshot is there, or cannot be had."""

    def __post_init__(self) -> None:
        budgets = Budgets(PER_MINUTE, random=lambda: 0.0, clock=lambda: self.now)
        snapshots = Snapshots(
            lambda _: self.there.set(), keep_seconds=1, pace_seconds=1, now=lambda: NOW, monotonic=lambda: self.now
        )
        self.clouds = Clouds(
            self._connect,
            self.secrets,
            Sources(lambda: self.now),
            AllowList.parse(()),
            budgets,
            snapshots,
            Jobs(POLL, monotonic=lambda: self.now),
            Locks(POLL, monotonic=lambda: self.now),
            monotonic=lambda: self.now,
            now=lambda: NOW,
        )

    def _connect(self, endpoint: str, project_id: str, source: Source) -> CloudClient:
        self.connected.append(source)
        http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: self._answered()))
        return CloudClient(http, endpoint, project_id, source, now=lambda: NOW, timeout_seconds=1)

    def _answered(self) -> httpx.Response:
        """A copy: an answer is read once."""
        self.asked.append(self.now)
        return httpx.Response(self.answer.status_code, headers=self.answer.headers, content=self.answer.content)

    async def waits(self, membership: Membership) -> float:
        """Seconds until the next write of this membership."""
        found = self.clouds.take(membership, await self.clouds.access(membership))
        return 0.0 if isinstance(found, Taken) else found


@pytest.fixture
def site() -> Site:
    return Site(FakeSecrets(KubeApi.__new__(KubeApi)))


def held(*, deleting: bool = False) -> Membership:
    return an_object(a_spec(A), finalizers=(FINALIZER,), deleted=NOW if deleting else None)


async def test_calls_of_before_the_start_count_also_those_of_batches_that_ended(site: Site) -> None:
    jobs = (
        a_batch(Phase.SUCCEEDED, A, number=1, submitted=NOW - 125 * SECOND, finished=NOW),
        a_batch(Phase.REFUSED, B, number=2, submitted=NOW - 95 * SECOND, finished=NOW),
        a_batch(Phase.RUNNING, C, number=3, submitted=NOW - 75 * SECOND, job_id=JOB),
    )
    membership = an_object(a_spec(A, B, C, D), Status(1, last_batch=3, jobs=jobs))
    await site.clouds.recall(membership, NOW)
    assert await site.waits(membership) == 25.0
    # The same key, whoever uses it.
    other = replace(membership, metadata=replace(membership.metadata, uid="another"), status=Status())
    assert await site.waits(other) == 45.0


@pytest.mark.parametrize(
    ("phase", "age", "counts"),
    [
        (Phase.SUBMITTING, 90, True),
        (Phase.SUBMITTING, 120, False),
        (Phase.VERIFYING, 30, True),
        (Phase.RUNNING, -3600, True),
        (Phase.WITHDRAWN, 10, False),
        (Phase.RUNNING, 119, True),
        (Phase.RUNNING, 121, False),
    ],
)
async def test_a_call_counts_for_as_long_as_it_may_have_been_made_a_minute_ago(
    site: Site, phase: Phase, age: int, *, counts: bool
) -> None:
    jobs = tuple(a_batch(phase, i, number=n, submitted=NOW - age * SECOND) for n, i in enumerate((A, B)))
    membership = an_object(a_spec(A), Status(1, last_batch=2, jobs=jobs))
    await site.clouds.recall(membership, NOW)
    assert (await site.waits(membership) > 0) == counts


async def test_a_queued_part_was_never_sent(site: Site) -> None:
    part = replace(a_batch(Phase.QUEUED, A), submit_time=None)
    await site.clouds.recall(an_object(a_spec(A), Status(1, last_batch=1, jobs=(part, part))), NOW)
    assert site.connected == []


UNREADABLE = {
    "400": httpx.Response(400, json={"error_code": "CCE.01400001", "error_msg": "bad job"}),
    "404 of nobody": httpx.Response(404, json={"message": "API not found"}),
    "too deep": httpx.Response(200, content=b"[" * 5000 + b"]" * 5000),
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_job_that_cannot_be_read_is_on_its_way_and_stops_nothing_else(
    site: Site, answer: httpx.Response
) -> None:
    site.answer = answer
    reports = await site.clouds.jobs(await access_of(site), (JOB,))
    assert reports == {JOB: JobReport(JOB, JobPhase.UNREADABLE)}


RUNNING = httpx.Response(200, json={"metadata": {"uid": JOB}, "status": {"phase": "Running"}})
OVER = httpx.Response(200, json={"metadata": {"uid": JOB}, "status": {"phase": "Success"}})


async def test_a_job_is_asked_for_at_most_once_a_poll_interval_until_it_is_over(site: Site) -> None:
    access, asked = await access_of(site), list[float]()
    site.answer = RUNNING
    site.asked = asked
    for seconds in (0.0, 5.0, 8.4, 0.1, 13.0):
        site.now += seconds
        assert await site.clouds.jobs(access, (JOB,)) == {JOB: JobReport(JOB, JobPhase.RUNNING)}
    assert [moment - asked[0] for moment in asked] == pytest.approx([0.0, 13.5])
    site.answer, site.now = OVER, site.now + POLL
    for _ in range(2):
        assert (await site.clouds.jobs(access, (JOB,)))[JOB].phase is JobPhase.SUCCEEDED
    assert len(asked) == 4


async def test_of_jobs_that_say_too_much_the_newest_are_kept(site: Site) -> None:
    access, asked = await access_of(site), list[float]()
    sub_jobs = [{"metadata": {"uid": f"sub-job-{number}"}} for number in range(3000)]
    document = {"metadata": {"uid": JOB}, "spec": {"subJobs": sub_jobs}, "status": {"phase": "Running"}}
    site.answer, site.asked = httpx.Response(200, json=document), asked
    jobs = [f"{JOB[:-3]}{number:03d}" for number in range(MAX_KEPT // MAX_SUB_JOBS + 1)]
    for job_id in jobs:
        assert len((await site.clouds.jobs(access, (job_id,)))[job_id].sub_jobs) == MAX_SUB_JOBS
    before = len(asked)
    await site.clouds.jobs(access, tuple(jobs[-3:]))
    assert len(asked) == before
    await site.clouds.jobs(access, tuple(jobs[:2]))
    assert len(asked) == before + 2


async def test_what_is_said_of_a_job_is_not_for_who_asks_with_another_key(site: Site) -> None:
    site.answer = RUNNING
    await site.clouds.jobs(await access_of(site), (JOB,))
    site.secrets.data = {"accessKey": b"ANOTHER", "secretKey": b"secret-key"}
    await site.clouds.jobs(await access_of(site), (JOB,))
    assert len(site.asked) == 2


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_what_is_not_about_the_job_is_a_trouble(site: Site, status: int) -> None:
    site.answer = httpx.Response(status, json={"error_code": f"CCE.01{status}001", "error_msg": "no"})
    with pytest.raises(TroubleError):
        await site.clouds.jobs(await access_of(site), (JOB,))


async def access_of(site: Site) -> Access:
    access = await site.clouds.access(an_object(a_spec(A)))
    assert isinstance(access, Access)
    return access


async def test_without_credentials_there_is_nothing_to_count_for(site: Site) -> None:
    site.secrets.data = None
    job = a_batch(Phase.RUNNING, A, submitted=NOW)
    await site.clouds.recall(an_object(a_spec(A), Status(1, last_batch=1, jobs=(job,))), NOW)
    assert site.connected == []


async def test_a_secret_that_is_not_answered_for_is_asked_for_again(site: Site) -> None:
    site.secrets.error = UnansweredError("no answer")
    job = a_batch(Phase.RUNNING, A, submitted=NOW)
    with pytest.raises(UnansweredError):
        await site.clouds.recall(an_object(a_spec(A), Status(1, last_batch=1, jobs=(job,))), NOW)


async def access(site: Site, membership: Membership) -> Access:
    return await site.clouds.access(membership)


LOST = [(None, None), ({"accessKey": b"AK"}, None), (KEYS, KubeForbiddenError("no"))]


@pytest.mark.parametrize(("data", "error"), LOST, ids=["gone", "broken", "forbidden"])
async def test_a_deleting_object_is_followed_with_the_last_good_credentials(
    site: Site, data: Mapping[str, bytes] | None, error: KubeError | None
) -> None:
    await access(site, held())
    site.secrets.data = {**KEYS, "secretKey": b"rotated-key"}
    await access(site, held())
    site.secrets.data, site.secrets.error = data, error
    await access(site, held(deleting=True))
    assert site.connected[-1] == AccessKey("AK", "rotated-key")


async def test_who_is_not_deleting_must_have_its_secret(site: Site) -> None:
    """Who deletes the Secret of a living object takes the key away from it."""
    await access(site, held())
    site.secrets.data = None
    with pytest.raises(TroubleError) as caught:
        await access(site, held())
    assert caught.value.trouble.reason is Reason.SECRET_NOT_FOUND


async def test_credentials_are_kept_only_while_there_is_a_finalizer(site: Site) -> None:
    await access(site, an_object(a_spec(A)))
    assert site.clouds._kept == {}
    await access(site, held())
    assert len(site.clouds._kept) == 1
    site.clouds.forget(held().metadata.uid)
    assert site.clouds._kept == {}
    site.secrets.data = None
    with pytest.raises(TroubleError):
        await access(site, held(deleting=True))


async def test_the_secret_outranks_what_is_kept(site: Site) -> None:
    await access(site, held())
    site.secrets.data = {**KEYS, "secretKey": b"rotated-key"}
    await access(site, held(deleting=True))
    assert site.connected[-1] == AccessKey("AK", "rotated-key")


async def test_who_shares_a_pool_that_is_locked_spends_no_write_on_it(site: Site) -> None:
    one = an_object(a_spec(A))
    other = replace(one, metadata=replace(one.metadata, uid="another"))
    pool = replace(other.spec.node_pool, node_pool_id="elsewhere")
    elsewhere = replace(other, spec=replace(other.spec, node_pool=pool))
    used = await site.clouds.access(one)
    site.clouds.answered(one, used, NotNow(Reason.LOCKED, "busy"))
    assert (site.clouds.until_turn(other, used), site.clouds.held_back(other, used)) == (22.5, Reason.LOCKED)
    assert site.clouds.take(other, used) == 22.5
    assert site.clouds.until_turn(elsewhere, used) == 0.0
    site.now += 20
    site.clouds.answered(one, used, NotNow(Reason.THROTTLED, "slow down"))
    assert site.clouds.take(other, used) == 2.5
    site.clouds.answered(one, used, Accepted(JOB))
    assert site.clouds.held_back(other, used) is None
    assert isinstance(site.clouds.take(other, used), Taken)


async def test_who_has_another_key_is_not_kept_from_a_pool_that_is_locked(site: Site) -> None:
    one = an_object(a_spec(A))
    site.clouds.answered(one, await site.clouds.access(one), NotNow(Reason.LOCKED, "busy"))
    site.secrets.data = {"accessKey": b"ANOTHER", "secretKey": b"secret-key"}
    assert await site.waits(one) == 0.0


async def test_listings_are_shared_by_who_sees_the_same_and_nobody_else(site: Site) -> None:
    seen = {(await site.clouds.access(held())).snapshot_key for _ in range(2)}
    site.secrets.data = {"accessKey": b"ANOTHER", "secretKey": b"secret-key"}
    seen.add((await site.clouds.access(held())).snapshot_key)
    pool = a_spec(A).node_pool
    for other in (
        replace(pool, cluster_id="other"),
        replace(pool, project_id="1" * 32),
        replace(pool, region="cn-east-3"),
    ):
        seen.add((await site.clouds.access(an_object(replace(a_spec(A), node_pool=other)))).snapshot_key)
    assert len(seen) == 5


def wanted(freshness: Freshness, pool: NodePoolRef | None = None) -> ReadCluster:
    return ReadCluster(("cce-system", "gpu-workers"), pool or held().spec.node_pool, freshness, NOW)


async def looked(site: Site, look: ReadCluster) -> ClusterView:
    """What is seen once it is there."""
    access = await site.clouds.access(held())
    assert isinstance(site.clouds.look(access, look), Awaited)
    assert not site.clouds.is_at_hand(access, look)
    async with asyncio.timeout(5):
        await site.there.wait()
    site.there.clear()
    assert site.clouds.is_at_hand(access, look)
    view = site.clouds.look(access, look)
    assert isinstance(view, ClusterView)
    return view


async def test_a_recent_look_tells_how_far_our_clock_is_off_as_well(site: Site) -> None:
    """The removal delay is counted from a look that needs no fresh one (rule P21)."""
    date = format_datetime(NOW + timedelta(hours=1), usegmt=True)
    site.answer = httpx.Response(200, json=SOUND, headers={"Date": date})
    view = await looked(site, wanted(Freshness.RECENT))
    seen = Observation(NOW, listing=view.listing, clock_offset_seconds=view.clock_offset_seconds)
    assert (seen.clock_offset_seconds, seen.is_fresh, seen.is_skewed) == (3600.0, False, True)


async def test_what_is_seen_of_a_pool_was_read_with_the_credentials_of_who_sees_it(site: Site) -> None:
    """It proves that a membership may claim servers in other namespaces, also one that is suspended (rule P16)."""
    site.answer = httpx.Response(200, json=SOUND)
    view = await looked(site, wanted(Freshness.RECENT))
    assert (view.pool.phase, view.cluster.phase) == ("Available", "Available")
    other = wanted(Freshness.RECENT, replace(held().spec.node_pool, node_pool_id="another"))
    assert isinstance(site.clouds.look(await site.clouds.access(held()), other), Awaited)


async def test_who_waited_is_told_why_there_is_nothing_to_be_seen(site: Site) -> None:
    site.answer = httpx.Response(403, json={"error_code": "CCE.01403001", "error_msg": "no"})
    with pytest.raises(TroubleError) as caught:
        await looked(site, wanted(Freshness.AFTER_READ))
    assert (caught.value.trouble.reason, "the node pool" in str(caught.value)) == (Reason.FORBIDDEN, True)
