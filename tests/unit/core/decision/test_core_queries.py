"""What is looked at before a decision: cheap looks first, and a listing as new as its use needs (P1, P13)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.names import MAX_OBJECT_BYTES
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.decide import Decision, Schedule, decide
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    Freshness,
    JobPhase,
    NamespaceState,
    NodeTable,
    Observation,
    PoolReport,
    Query,
    Trouble,
)
from nodepool_membership.core.planning import eligibility
from nodepool_membership.core.preflight import findings
from nodepool_membership.core.state.failures import MAX_GROUPS
from nodepool_membership.core.state.state import BYTES_PER_ID, State
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    Cloud,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    a_wait,
    active,
    an_object,
    servers,
    well,
)

A, B, C = servers(3)
RECENT, FRESH = Query(listing=Freshness.RECENT), Query(listing=Freshness.AFTER_READ)
JOBS, HOME, WRITE = Query(jobs=(JOB,)), Query(namespace_state=True), Query(write=True)
KEPT_FREE = eligibility.KEPT_FOR_REMOVALS + findings.BYTES
ROOM = MAX_OBJECT_BYTES - MAX_GROUPS * eligibility.BYTES_PER_OUTCOME


def running(*ids: str, parallel: int = 1) -> Run:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    return Run(an_object(a_spec(*ids, parallel=parallel), status), Cloud(jobs=a_job(JobPhase.RUNNING)))


def test_a_settled_object_needs_one_shared_listing() -> None:
    run = Run(an_object(a_spec(A)), Cloud(active([A])))
    decision = run.step()
    assert run.looks == [RECENT]
    assert (decision.schedule, decision.delay, decision.keeps_finalizer) == (Schedule.RESYNC, None, False)


def test_an_add_needs_a_listing_of_its_own_then_the_pool_then_a_place_in_the_budget() -> None:
    run = Run(an_object(a_spec(A)))
    assert run.step().intent is not None
    assert run.looks == [RECENT, FRESH, HOME, WRITE, Query(servers=frozenset({A}))]


def test_a_listing_begun_before_the_object_was_read_plans_nothing() -> None:
    membership = an_object(a_spec(A))
    old = Observation(
        NOW,
        listing=NodeTable(NOW - SECOND, []),
        pool=PoolReport(""),
        cluster=ClusterReport("Available"),
        write_wait=0.0,
        namespace_state=NamespaceState(),
        inspection=well([A]),
    )
    assert decide(membership, old, NOW, SETTINGS) == FRESH
    new = decide(membership, replace(old, listing=NodeTable(NOW, [])), NOW, SETTINGS)
    assert isinstance(new, Decision)
    assert new.intent is not None


def test_a_member_is_not_called_missing_by_an_old_listing() -> None:
    membership = an_object(a_spec(A), Status(1, last_batch=1, members=(A,)))
    assert decide(membership, Observation(NOW, listing=NodeTable(NOW - SECOND, [])), NOW, SETTINGS) == FRESH


def test_while_a_job_runs_only_the_job_is_asked() -> None:
    run = running(A)
    decision = run.step()
    assert (run.looks, decision.schedule) == ([JOBS], Schedule.POLL)


def test_while_a_job_runs_and_there_is_no_room_nothing_is_listed() -> None:
    run = running(A, B)
    run.step()
    assert run.looks == [JOBS]


def test_while_a_job_runs_and_a_wait_is_on_nothing_is_listed() -> None:
    run = running(A, B, parallel=2)
    run.store(replace(run.status, waits=(a_wait(NOW + SECOND),)))
    run.step()
    assert run.looks == [JOBS]


def test_while_a_job_runs_and_there_is_room_the_next_is_planned() -> None:
    run = running(A, B, parallel=2)
    intent = run.step(Accepted("other-job")).intent
    assert intent is not None
    assert intent.server_ids == (B,)
    assert run.looks == [JOBS, RECENT, FRESH, HOME, WRITE, Query(servers=frozenset({B}))]


def test_a_job_that_is_over_needs_a_listing_of_its_own() -> None:
    run = running(A)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    run.step()
    assert run.looks == [JOBS, FRESH]


def test_a_batch_without_a_job_is_looked_for_in_the_nodes() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.VERIFYING, A),))
    run = Run(an_object(a_spec(A), status))
    decision = run.step()
    assert (run.looks, decision.schedule) == ([FRESH], Schedule.WATCH)


def test_a_suspended_object_is_previewed_from_a_shared_listing() -> None:
    run = Run(an_object(a_spec(A, suspend=True)))
    run.step()
    assert run.looks == [RECENT]


@pytest.mark.parametrize("phase", ["Deleting", "Error"])
def test_a_pool_that_refuses_is_not_called(phase: str) -> None:
    run = Run(an_object(a_spec(A)), Cloud(pool=PoolReport(phase)))
    decision = run.step()
    assert (decision.intent, decision.schedule, run.looks[-1]) == (None, Schedule.BACKOFF, FRESH)
    assert (run.ready.reason, phase in run.ready.message) == (Reason.POOL_NOT_READY, True)


@pytest.mark.parametrize("phase", ["", "Upgrading", "Hibernation", "Error"])
def test_a_cluster_that_is_not_available_is_not_called(phase: str) -> None:
    run = Run(an_object(a_spec(A)), Cloud(cluster=ClusterReport(phase)))
    assert run.step().intent is None
    assert (run.ready.reason, run.looks[-1]) == (Reason.CLUSTER_NOT_READY, FRESH)
    run.cloud.cluster = ClusterReport("Available")
    assert run.step().intent is not None


def test_a_full_write_budget_is_waited_for_without_a_word() -> None:
    run = Run(an_object(a_spec(A)), Cloud(write_wait=4.5))
    decision = run.step()
    assert (decision.intent, decision.delay, decision.status.last_batch) == (None, 4.5, 0)
    assert run.ready.reason is Reason.PROGRESSING


@pytest.mark.parametrize(
    "size", [0, ROOM - 2 * BYTES_PER_ID - eligibility.BYTES_PER_OUTCOME - KEPT_FREE, MAX_OBJECT_BYTES]
)
def test_an_intent_is_made_only_if_its_worst_outcome_fits(size: int) -> None:
    run = Run(replace(an_object(a_spec(A)), wire_bytes=size))
    decision = run.step()
    if size < MAX_OBJECT_BYTES:
        assert decision.intent is not None
        return
    assert (decision.intent, decision.schedule, WRITE in run.looks) == (None, Schedule.RESYNC, False)
    stalled = run.condition("Stalled")
    assert stalled is not None
    assert stalled.reason is Reason.STATUS_FULL
    assert "split spec.serverIDs" in stalled.message
    run.membership = replace(run.membership, wire_bytes=1_000)
    assert run.step().intent is not None


def test_every_open_batch_is_counted_into_what_must_fit() -> None:
    """With its text, and its server once more: it may stand among the failures before it leaves the batch."""
    room = ROOM - 400 * BYTES_PER_ID
    none, one = State.of(Status()), State.of(Status(jobs=(a_batch(Phase.RUNNING, A),)))
    for state, outcomes in ((none, 1), (one, 2)):
        limit = room - outcomes * eligibility.BYTES_PER_OUTCOME - (outcomes - 1) * BYTES_PER_ID
        assert eligibility.fits(limit, state, 200)
        assert not eligibility.fits(limit + 1, state, 200)


def test_a_trouble_says_when_to_come_back() -> None:
    run = Run(an_object(a_spec(A)), Cloud(trouble=Trouble(Reason.THROTTLED, "too many calls", 17.0)))
    decision = run.step()
    assert (decision.schedule, decision.delay, decision.intent) == (Schedule.BACKOFF, 17.0, None)


def test_a_trouble_loses_nothing_that_is_recorded() -> None:
    run = running(A, B)
    jobs = run.status.jobs
    run.cloud.trouble = Trouble(Reason.UNAUTHENTICATED, "the key is refused")
    decision = run.step()
    assert (run.status.jobs, run.status.joining, decision.keeps_finalizer) == (jobs, 1, True)


def test_a_retry_is_announced_with_its_moment() -> None:
    batch = a_batch(Phase.FAILED, finished=NOW)
    moment = NOW + timedelta(seconds=33)
    failures = (a_failure(FailureReason.REFUSED, A, retry=moment),)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,), failures=failures)))
    decision = run.step()
    assert decision.delay == 33.0
    assert "; attempt 2 of 3 at 2026-01-02T03:00:33Z" in run.ready.message
    run.now = moment
    assert run.step().intent is not None


def test_the_counts_add_up_with_every_kind_of_server() -> None:
    ids = servers(7)
    status = Status(
        1,
        last_batch=3,
        members=ids[:2],
        jobs=(a_batch(Phase.RUNNING, ids[2], job_id=JOB),),
        failures=(a_failure(FailureReason.REFUSED, ids[3], attempts=3), a_failure(FailureReason.REFUSED, ids[4])),
    )
    run = Run(an_object(a_spec(*ids, parallel=2), status), Cloud(active(ids[:1]), a_job(JobPhase.RUNNING)))
    run.cloud.nodes.append(a_node(ids[5], "Installing", created=NOW))
    run.cloud.write_wait = 1.0
    run.step()
    got = run.status
    assert (got.desired, got.joined, got.joining, got.failed, got.pending) == (7, 2, 1, 1, 3)
