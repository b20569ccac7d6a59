"""The call and its record when things go wrong around them: a status broken meanwhile, a pool that is in doubt.

Not for: what an answer means (`test_core_records`). Memory stands for the API server: it keeps what it is given.
"""

import asyncio
import logging
from dataclasses import replace
from datetime import datetime

import httpx
import pytest

from nodepool_membership.api.membership import Membership, Metadata, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.status import Batch, Operation, Phase, Recovery, Status
from nodepool_membership.cce.budget import Budgets
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.snapshots import SnapshotKey
from nodepool_membership.core.decision.record import Accepted, Answer
from nodepool_membership.core.program.calling import call_and_record, record_answer
from nodepool_membership.core.program.effects import Connect, Program
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import StaleError, UnansweredError
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.claims.initial_sync import InitialSync
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.cloud.clouds import Access, Clouds
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.reconcile.memory import Memories
from nodepool_membership.runtime.reconcile.reconcile import Parts, Run
from nodepool_membership.runtime.reconcile.send import Sender
from nodepool_membership.runtime.reconcile.store import Store
from unit.core_builders import (
    JOB,
    NOW,
    POOL,
    SECOND,
    SETTINGS,
    WINDOW,
    a_batch,
    a_spec,
    an_object,
    servers,
)

A, B = servers(2)


class Memory(Memberships):
    """One object; `broken` says what cannot be understood in its status."""

    def __init__(self, membership: Membership) -> None:
        super().__init__(KubeApi.__new__(KubeApi))
        self.stored = membership
        self.broken: str | None = None
        self.lost_answers = 0
        self.writes = 0

    async def read(self, namespace: str, name: str) -> Membership | UnreadableStatus | None:
        assert (namespace, name) == (self.stored.metadata.namespace, self.stored.metadata.name)
        if self.broken is not None:
            return UnreadableStatus(self.stored.metadata, self.stored.spec, self.broken)
        return self.stored

    async def write_status(self, metadata: Metadata, old: Status, new: Status) -> str:
        if metadata.resource_version != self.stored.metadata.resource_version:
            raise StaleError("changed")
        if self.broken is not None:
            assert old == Status(), "a patch against something that cannot be understood"
        self.writes += 1
        version = str(int(metadata.resource_version) + 1)
        self.stored = replace(self.stored, metadata=replace(metadata, resource_version=version), status=new)
        self.broken = None
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnansweredError("no answer")
        return version

    def edit(self, broken: str | None = None) -> None:
        """Somebody else writes."""
        meta = self.stored.metadata
        version = str(int(meta.resource_version) + 1)
        self.stored = replace(self.stored, metadata=replace(meta, resource_version=version))
        self.broken = broken


def an_intent(number: int = 4) -> Batch:
    return a_batch(Phase.SUBMITTING, A, B, number=number)


def intended() -> Membership:
    status = Status(1, last_batch=4, jobs=(an_intent(),))
    return an_object(a_spec(A, B), status, finalizers=(FINALIZER,))


class OneCloud(Clouds):
    """Gives one access to whoever asks."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def access(self, membership: Membership, *, fresh_secret: bool = False) -> Access:
        assert membership.metadata.uid or fresh_secret
        return self._access

    def answered(self, _membership: Membership, _access: Access, _answer: Answer) -> None:
        return None

    def forget(self, _uid: str) -> None:
        return None


class Process:
    """What runs programs over one object."""

    def __init__(self, memory: Memory, access: Access | None = None, *, late: int = 0) -> None:
        self._memory = memory
        clouds = OneCloud(access or refusing())

        def now() -> datetime:
            return NOW + late * SECOND

        claims = Claims(lambda _: None, WINDOW, now=now)
        initial_sync = InitialSync(memory, (), lambda _: None)
        metrics = Metrics()
        events = Events(KubeApi.__new__(KubeApi), instance="test")
        self.sender = Sender(now=now, monotonic=lambda: 0.0, may_call=lambda: True)
        self.parts = Parts(
            memberships=memory,
            store=Store(memory, events, metrics, claims, clouds, SETTINGS),
            sender=self.sender,
            clouds=clouds,
            memories=Memories(claims, initial_sync, clouds, metrics, now=now),
            claims=claims,
            initial_sync=initial_sync,
            now=now,
            may_call=lambda: True,
            unread=Unread(),
            sleep=no_sleep,
        )

    async def record(self, membership: Membership, intent: Batch, answer: Answer) -> None:
        await self._run(record_answer(membership, intent, answer, SETTINGS))

    async def send(self, intent: Batch) -> None:
        await self._run(self._connect_and_send(intent))

    def _connect_and_send(self, intent: Batch) -> Program[None]:
        yield from Connect(self._memory.stored, fresh=False)
        yield from call_and_record(self._memory.stored, intent, SETTINGS)

    async def _run(self, program: Program[None]) -> None:
        async with Run(self.parts) as run:
            run.found = self._memory.stored
            await run.to_the_end(program)


async def no_sleep(_seconds: float) -> None:
    return None


async def test_the_answer_is_kept_also_if_the_status_became_unreadable_meanwhile() -> None:
    """It is as good as lost: the job is recorded, and rule P2's wait begins (rules P9, P24)."""
    before = intended()
    memory = Memory(before)
    memory.edit(broken="status.jobs.0.phase: unknown")
    await Process(memory).record(before, an_intent(), Accepted(JOB))
    status = memory.stored.status
    assert [(job.batch, job.phase, job.job_id, job.server_ids) for job in status.jobs] == [
        (4, Phase.RUNNING, JOB, (A, B))
    ]
    assert status.recovery == Recovery(NOW, NOW + WINDOW)


async def test_a_record_whose_write_was_not_answered_is_made_once() -> None:
    memory = Memory(intended())
    memory.lost_answers = 1
    await Process(memory).record(memory.stored, an_intent(), Accepted(JOB))
    assert memory.writes == 1
    assert [job.phase for job in memory.stored.status.jobs] == [Phase.RUNNING]


def refusing(status: int = 400, code: str = "CCE.01400001", text: str = "a server is bad") -> Access:
    names = ("error_code", "error_msg") if code.startswith("APIGW") else ("errorCode", "errorMessage")
    refusal = dict(zip(names, (code, text), strict=True))
    return an_access(httpx.MockTransport(lambda _: httpx.Response(status, json=refusal)))


def an_access(transport: httpx.MockTransport) -> Access:
    http = httpx.AsyncClient(transport=transport)
    key = AccessKey("AK", "SK")
    client = CloudClient(http, "https://a", "p", key, now=lambda: NOW, timeout_seconds=5)
    budgets = Budgets(10, random=lambda: 0.0, clock=lambda: 0.0)
    return Access(client, SnapshotKey("https://a", "p", "c", "k"), key, budgets)


@pytest.mark.parametrize("doubted", [False, True])
async def test_a_refusal_is_unknown_once_the_pool_was_seen_to_carry_out_a_refused_call(*, doubted: bool) -> None:
    """Rule P15: its refusals are not atomic, so the parts of the batch must not be sent."""
    memory = Memory(intended())
    process = Process(memory)
    if doubted:
        process.sender.doubt(memory.stored)
    await process.send(an_intent())
    phases = [job.phase for job in memory.stored.status.jobs]
    assert phases == ([Phase.VERIFYING] if doubted else [Phase.REFUSED, Phase.QUEUED, Phase.QUEUED])


@pytest.mark.parametrize(
    ("status", "code", "text", "believed"),
    [
        (400, "CCE.01400023", "the node pool is being changed", False),
        (429, "CCE.01429002", "the cluster is locked", False),
        (429, "CCE.02429001", "too many requests", False),
        (403, "CCE.01403001", "the node pool is scaling", False),
        (403, "CCE.01403003", "the state forbids it", False),
        (429, "APIGW.0308", "too many requests", True),
    ],
)
@pytest.mark.parametrize("operation", Operation)
async def test_so_is_one_for_a_passing_reason_unless_the_gateway_gave_it(
    operation: Operation, status: int, code: str, text: str, *, believed: bool
) -> None:
    """The backoff is much shorter than what an accepted server may take to show (rules P1, P15)."""
    memory = Memory(intended())
    intent = replace(an_intent(), operation=operation, node_ids=(A, B))
    memory.stored = replace(memory.stored, status=replace(memory.stored.status, jobs=(intent,)))
    process = Process(memory, refusing(status, code, text))
    await process.send(intent)
    assert memory.stored.status.jobs[0].phase is Phase.REFUSED
    memory.stored = replace(memory.stored, status=replace(memory.stored.status, jobs=(intent,)))
    process.sender.doubt(memory.stored)
    await process.send(intent)
    assert memory.stored.status.jobs[0].phase is (Phase.REFUSED if believed else Phase.VERIFYING)


@pytest.mark.parametrize(("late", "sent"), [(60, True), (61, False), (-60, True), (-61, False)])
async def test_nothing_is_sent_long_after_its_signature_or_with_one_of_the_future(late: int, *, sent: bool) -> None:
    """Rules P5, P21: the settle window counts on a signature that ends 15 minutes after the call at the latest."""
    memory = Memory(intended())
    await Process(memory, late=late).send(an_intent())
    phase = memory.stored.status.jobs[0].phase
    assert phase is (Phase.REFUSED if sent else Phase.WITHDRAWN)


async def test_the_doubt_is_about_one_pool() -> None:
    memory = Memory(intended())
    process = Process(memory)
    pool = replace(memory.stored.spec.node_pool, node_pool_id=POOL.replace("0", "9"))
    process.sender.doubt(replace(memory.stored, spec=replace(memory.stored.spec, node_pool=pool)))
    await process.send(an_intent())
    assert memory.stored.status.jobs[0].phase is Phase.REFUSED
    assert memory.stored.status.failures == ()


async def test_an_end_that_cannot_wait_names_the_call_that_is_under_way(caplog: pytest.LogCaptureFixture) -> None:
    called, never = asyncio.Event(), asyncio.Event()

    async def hang(_request: httpx.Request) -> httpx.Response:
        called.set()
        await never.wait()
        return httpx.Response(200)

    memory = Memory(intended())
    process = Process(memory, an_access(httpx.MockTransport(hang)))
    sending = asyncio.create_task(process.send(an_intent()))
    await called.wait()
    closing = asyncio.create_task(process.sender.close())
    await asyncio.sleep(0)
    assert not closing.done()
    closing.cancel()
    await asyncio.wait([closing, sending])
    assert closing.cancelled()
    assert memory.writes == 0
    (said,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "call under way" in said.getMessage()
    assert (getattr(said, "batch", None), getattr(said, "object", None)) == (4, "cce-system/gpu-workers")


async def test_whoever_is_cancelled_with_a_call_under_way_does_not_end_its_record() -> None:
    called, goes_on = asyncio.Event(), asyncio.Event()

    async def wait(_request: httpx.Request) -> httpx.Response:
        called.set()
        await goes_on.wait()
        return httpx.Response(200, json={"jobid": JOB})

    memory = Memory(intended())
    process = Process(memory, an_access(httpx.MockTransport(wait)))
    sending = asyncio.create_task(process.send(an_intent()))
    await called.wait()
    sending.cancel()
    await asyncio.wait([sending])
    assert sending.cancelled()
    goes_on.set()
    await process.sender.close()
    assert [job.job_id for job in memory.stored.status.jobs] == [JOB]
