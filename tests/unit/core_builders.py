"""Small builders for tests of `core`: objects, nodes, and a run of decisions against a cloud that is plain data.

Not for: the rules. `Run` answers every look truthfully and stores what was decided, as `core.program` does.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

from nodepool_membership.api.membership import Membership, Metadata
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import HOLDS_NODE, FailureReason, Reason
from nodepool_membership.api.spec import DriftPolicy, NodePoolRef, RemovalPolicy, SecretRef, Spec
from nodepool_membership.api.status import OPEN_PHASES, Batch, Condition, Failure, Hold, Operation, Phase, Status, Wait
from nodepool_membership.core.decision.decide import Decision, decide
from nodepool_membership.core.decision.preview import Preview, preview
from nodepool_membership.core.decision.record import Accepted, Answer, record
from nodepool_membership.core.observed.drift import LISTINGS_WITHOUT, Absences
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    Freshness,
    JobPhase,
    JobReport,
    NamespaceState,
    Node,
    NodeTable,
    Observation,
    PoolReport,
    Query,
    Trouble,
)
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.observed.waiting import Waiting
from nodepool_membership.core.preflight.facts import Inspection, ReadFailure, Server
from nodepool_membership.core.state.edits import spec_digest
from nodepool_membership.core.state.settings import Settings
from told import condition_of

T = TypeVar("T")
NOW: Final = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
SETTINGS: Final = Settings()
WINDOW: Final = SETTINGS.settle_window
POOL: Final = "66666666-7777-8888-9999-000000000000"
ELSEWHERE: Final = "66666666-7777-8888-9999-111111111111"
TIMEOUT: Final = timedelta(seconds=3600)
"""The default of `spec.joinTimeoutSeconds`."""
JOB: Final = "2ec9b78d-9368-46f3-8f29-d1a95622a568"


def server(number: int) -> str:
    """The id of a server; ids sort as their numbers do."""
    return f"{number:08x}-1111-4222-8333-444444444444"


def servers(count: int, first: int = 1) -> tuple[str, ...]:
    return tuple(server(n) for n in range(first, first + count))


def a_spec(
    *ids: str,
    batch_size: int = 200,
    parallel: int = 1,
    attempts: int = 3,
    suspend: bool = False,
    drift: DriftPolicy = DriftPolicy.REPORT,
    removal: RemovalPolicy = RemovalPolicy.RETAIN,
    deletion: RemovalPolicy = RemovalPolicy.RETAIN,
) -> Spec:
    return Spec(
        node_pool=NodePoolRef("0" * 32, "11111111-2222-3333-4444-555555555555", POOL, region="cn-north-4"),
        credentials_ref=SecretRef("cce-credentials"),
        server_ids=frozenset(ids),
        batch_size=batch_size,
        max_parallel_jobs=parallel,
        max_attempts=attempts,
        suspend=suspend,
        removal_policy=removal,
        deletion_policy=deletion,
        drift_policy=drift,
    )


def an_object(
    spec: Spec,
    status: Status | None = None,
    *,
    generation: int = 1,
    annotations: Mapping[str, str] | None = None,
    finalizers: tuple[str, ...] = (),
    deleted: datetime | None = None,
) -> Membership:
    if status is not None and status.last_batch is not None and status.observed_removal_policy is None:
        status = replace(status, observed_removal_policy=spec.removal_policy)
        if status.observed_generation == generation:
            status = replace(status, observed_spec=spec_digest(spec))
    meta = Metadata(
        name="gpu-workers",
        namespace="cce-system",
        uid="f0000000-0000-4000-8000-000000000000",
        resource_version="7",
        generation=generation,
        creation_timestamp=NOW - timedelta(days=1),
        deletion_timestamp=deleted,
        finalizers=finalizers,
        annotations=dict(annotations or {}),
    )
    return Membership(meta, spec, status or Status(), wire_bytes=2_000)


def a_batch(
    phase: Phase,
    *ids: str,
    number: int = 1,
    attempt: int = 1,
    job_id: str | None = None,
    submitted: datetime = NOW,
    finished: datetime | None = None,
    message: str | None = None,
) -> Batch:
    return Batch(
        batch=number,
        operation=Operation.ADD,
        attempt=attempt,
        phase=phase,
        servers=len(ids) or 1,
        job_id=job_id,
        server_ids=tuple(sorted(ids)),
        submit_time=submitted,
        settling_since=finished if phase in OPEN_PHASES else None,
        finish_time=None if phase in OPEN_PHASES else finished,
        message=message,
    )


def a_failure(
    reason: FailureReason, *ids: str, attempts: int = 1, message: str = "why", retry: datetime | None = None
) -> Failure:
    return Failure(reason, message, attempts, len(ids), tuple(sorted(ids)), retry)


def a_wait(
    until: datetime, reason: Reason = Reason.LOCKED, message: str = "why", operation: Operation = Operation.ADD
) -> Wait:
    return Wait(operation, reason, message, until)


def next_attempt(status: Status) -> datetime | None:
    """When the next add is tried, as far as that is stored."""
    if status.recovery is not None:
        return status.recovery.until
    waits = [wait.until for wait in status.waits if wait.operation is Operation.ADD]
    retries = [group.retry_time for group in status.failures if group.retry_time is not None]
    return max(waits, default=min(retries, default=None))


def a_node(
    server_id: str, phase: str = "Active", pool: str = POOL, created: datetime | None = None, job_id: str = ""
) -> Node:
    return Node(server_id, f"node-of-{server_id}", pool, phase, created, job_id)


def active(ids: Iterable[str]) -> list[Node]:
    return [a_node(i) for i in ids]


def well(ids: Iterable[str], began: datetime = NOW) -> Inspection:
    """What was read of servers of which nothing is to be told."""
    found = {i: Server(i, "ACTIVE") for i in ids}
    return Inspection(began, frozenset(found), found)


def a_job(phase: JobPhase, reason: str = "", explanations: Mapping[str, str] | None = None) -> dict[str, JobReport]:
    return {JOB: JobReport(JOB, phase, reason, dict(explanations or {}))}


@dataclass(slots=True)
class Cloud:
    """What the cloud holds; the test changes it between steps."""

    nodes: list[Node] = field(default_factory=list)
    jobs: dict[str, JobReport] = field(default_factory=dict)
    pool: PoolReport = field(default_factory=lambda: PoolReport(""))
    cluster: ClusterReport = field(default_factory=lambda: ClusterReport("Available"))
    write_wait: float = 0.0
    held_back: Reason | None = None
    clock_offset: float | None = None
    trouble: Trouble | None = None
    namespace_state: NamespaceState = field(default_factory=NamespaceState)
    servers: dict[str, Server | None] = field(default_factory=dict)
    """Those that are not as any other; None: there is no such server."""
    unread: ReadFailure | None = None
    """Why no server can be read."""

    def inspection(self, ids: frozenset[str], began: datetime) -> Inspection:
        if self.unread is not None:
            return Inspection(began, ids, unread=ids, why=self.unread)
        found = {i: self.servers.get(i, Server(i, "ACTIVE")) for i in ids}
        return Inspection(began, ids, {i: server for i, server in found.items() if server is not None})


@dataclass(slots=True)
class Run:
    """One membership through many reconciles. `looks` are those of the last one."""

    membership: Membership
    cloud: Cloud = field(default_factory=Cloud)
    now: datetime = NOW
    looks: list[Query] = field(default_factory=list)
    failed_reads: int = 0
    absences: Absences = field(default_factory=dict)
    rivals: Rivals | None = field(default_factory=dict)
    refused: Mapping[str, datetime] = field(default_factory=dict)
    waiting: Waiting | None = None

    @property
    def status(self) -> Status:
        return self.membership.status

    def condition(self, kind: Literal["Ready", "Reconciling", "Stalled"]) -> Condition | None:
        return condition_of(self.status, kind)

    @property
    def ready(self) -> Condition:
        found = self.condition("Ready")
        assert found is not None
        return found

    @property
    def newest(self) -> Batch:
        return self.status.jobs[-1]

    @property
    def causes(self) -> dict[str, tuple[FailureReason, int]]:
        """Reason and attempts of every failed server."""
        return {i: (group.reason, group.attempts) for group in self.status.failures for i in group.server_ids}

    def decide(self) -> Decision:
        """Look at what is asked for until there is a decision; nothing is stored."""
        self.failed_reads = self.failed_reads + 1 if self.cloud.trouble else 0
        decision = self._known(decide)
        self.absences, self.refused, self.waiting = decision.absences, decision.refused, decision.waiting
        return decision

    def preview(self) -> Preview | Trouble:
        """What would be done; nothing is changed."""

        def ask(
            membership: Membership, seen: Observation, now: datetime, settings: Settings
        ) -> tuple[Preview | Trouble] | Query:
            found = preview(membership, seen, now, settings)
            return found if isinstance(found, Query) else (found,)

        return self._known(ask)[0]

    def _known(self, ask: Callable[[Membership, Observation, datetime, Settings], T | Query]) -> T:
        self.looks = []
        seen = Observation(self.now, self.membership.wire_bytes, absences=self.absences, rivals=self.rivals)
        seen = replace(seen, refused=self.refused, waiting=self.waiting)
        while True:
            found = ask(self.membership, seen, self.now, SETTINGS)
            if not isinstance(found, Query):
                return found
            assert found not in self.looks, f"asked twice: {found}"
            self.looks.append(found)
            seen = self._answer(found, seen)

    def _answer(self, look: Query, seen: Observation) -> Observation:  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
        if self.cloud.trouble is not None:
            return replace(seen, trouble=self.cloud.trouble, failed_reads=self.failed_reads)
        if look.listing is not None:
            seen = replace(seen, clock_offset_seconds=self.cloud.clock_offset)
            if look.listing is Freshness.RECENT:
                return replace(seen, listing=NodeTable(self.now - SECOND, self.cloud.nodes))
            table = NodeTable(self.now, self.cloud.nodes)
            return replace(seen, listing=table, pool=self.cloud.pool, cluster=self.cloud.cluster)
        if look.turn:
            return replace(seen, turn=self.cloud.write_wait, held_back=self.cloud.held_back)
        if look.write:
            return replace(seen, write_wait=self.cloud.write_wait, held_back=self.cloud.held_back)
        if look.namespace_state:
            return replace(seen, namespace_state=self.cloud.namespace_state)
        if look.servers:
            found = self.cloud.inspection(look.servers, self.now)
            return replace(seen, inspection=found.merged(seen.inspection))
        lost = {job: JobReport(job, JobPhase.LOST) for job in look.jobs}
        return replace(seen, jobs={**seen.jobs, **lost, **{j: r for j, r in self.cloud.jobs.items() if j in look.jobs}})

    def step_thrice(self) -> Decision:
        """As many looks, a resync interval apart, as it takes to believe that something is gone (rule P13)."""
        for _ in range(LISTINGS_WITHOUT - 1):
            self.step()
            self.wait(SETTINGS.resync_interval)
        return self.step()

    def step(self, answer: Answer | None = None) -> Decision:
        """Decide and store; an intent gets `answer`, or stays without one as after a crash."""
        decision = self.decide()
        held = decision.keeps_finalizer or decision.intent
        meta = replace(self.membership.metadata, finalizers=(FINALIZER,) if held else ())
        self.membership = replace(self.membership, metadata=meta, status=decision.status)
        if decision.intent is not None and answer is not None:
            self.store(record(self.membership, decision.intent, answer, self.now, SETTINGS))
        return decision

    def store(self, status: Status) -> None:
        self.membership = replace(self.membership, status=status)

    def wait(self, duration: timedelta) -> None:
        self.now += duration

    def edit(self, spec: Spec) -> None:
        """A user changes the spec."""
        meta = self.membership.metadata
        self._change(replace(meta, generation=meta.generation + 1), spec)

    def delete(self) -> None:
        """A user deletes the object; the API server counts that as a change of it."""
        meta = self.membership.metadata
        self._change(replace(meta, generation=meta.generation + 1, deletion_timestamp=self.now))

    def annotate(self, annotations: Mapping[str, str]) -> None:
        self._change(replace(self.membership.metadata, annotations=dict(annotations)))

    def _change(self, meta: Metadata, spec: Spec | None = None) -> None:
        """The object is another one than the process knows of."""
        self.membership = replace(self.membership, metadata=meta, spec=spec or self.membership.spec)
        self.waiting = None


def known(*failures: FailureReason, attempts: int = 1, nodes: Iterable[Node] = ()) -> Run:
    """One server with a failure from a batch that ended now; held, if the failure is that of a node."""
    first = server(1)
    groups = tuple(a_failure(reason, first, attempts=attempts) for reason in failures)
    holds = (Hold((first,)),) if HOLDS_NODE.intersection(failures) else ()
    batch = a_batch(Phase.FAILED, finished=NOW)
    status = Status(1, last_batch=1, jobs=(batch,), failures=groups, holds=holds)
    return Run(an_object(a_spec(first), status), Cloud(list(nodes)))


def running(*ids: str, parallel: int = 1, batch_size: int = 200) -> Run:
    """A membership whose first batch has just been accepted; its job runs."""
    run = Run(an_object(a_spec(*ids, parallel=parallel, batch_size=batch_size)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    return run


def used_up() -> Run:
    """One server without an attempt left."""
    failures = (a_failure(FailureReason.NEVER_APPEARED, server(1), attempts=3),)
    run = Run(an_object(a_spec(server(1)), Status(1, last_batch=3, failures=failures)))
    run.step()
    assert run.condition("Stalled") is not None
    return run
