"""Who cannot call does not look: what waits for its turn, a halt, a wait or a lock is asked about first (promise 12).

Not for: what is looked at by who can (`test_core_queries`), or the turns (`test_cce_budget`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.names import PAUSED_ANNOTATION
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Approval, Rollout
from nodepool_membership.api.status import Halt, Operation, Phase, Status
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import Accepted, NotNow
from nodepool_membership.core.observed.observation import ClusterReport, Freshness, JobPhase, NamespaceState, Query
from nodepool_membership.core.program import requeue
from nodepool_membership.core.program.memory import Memory
from nodepool_membership.core.program.requeue import Requeue
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    Cloud,
    Run,
    a_batch,
    a_job,
    a_spec,
    a_wait,
    active,
    an_object,
    servers,
)
from unit.removal_builders import DELAY, deleted, members, owing, removing_spec

A, B, C, D = servers(4)
RECENT, FRESH = Query(listing=Freshness.RECENT), Query(listing=Freshness.AFTER_READ)
JOBS, HOME, WRITE, TURN = Query(jobs=(JOB,)), Query(namespace_state=True), Query(write=True), Query(turn=True)
ALL = [RECENT, FRESH, HOME, WRITE]
INSPECTION = Query(servers=frozenset({A}))


def waiting(seconds: float = 40.0) -> Run:
    """One that has looked, and found the write budget full."""
    run = Run(an_object(a_spec(A)), Cloud(write_wait=seconds))
    run.step()
    assert run.looks == ALL
    return run


def beside_a_job() -> Run:
    """The same with a call under way beside the one that waits."""
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, B, job_id=JOB),))
    run = Run(an_object(a_spec(A, B, parallel=2), status), Cloud(jobs=a_job(JobPhase.RUNNING), write_wait=40.0))
    run.step()
    assert run.looks == [JOBS, *ALL]
    return run


def test_who_waits_for_the_write_budget_looks_when_its_turn_comes() -> None:
    run = waiting()
    run.wait(timedelta(seconds=30))
    run.cloud.write_wait = 5.0
    decision = run.step()
    assert (run.looks, decision.delay, decision.intent) == ([TURN], 5.0, None)
    run.wait(timedelta(seconds=5))
    run.cloud.write_wait = 0.0
    assert run.step().intent is not None
    assert run.looks == [TURN, *ALL, INSPECTION]


def test_not_to_look_tells_nothing_else() -> None:
    run = waiting()
    before = run.status
    run.step()
    assert run.looks == [TURN]
    assert run.status == before


def test_beside_a_call_that_is_under_way_only_its_job_is_asked() -> None:
    run = beside_a_job()
    run.wait(SETTINGS.poll_interval)
    decision = run.step()
    assert (run.looks, decision.schedule) == ([JOBS, TURN], Schedule.POLL)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([B])
    run.step()
    assert run.looks == [JOBS, FRESH, HOME, WRITE]
    assert run.status.members == (B,)


def test_a_halt_that_comes_meanwhile_ends_the_wait() -> None:
    run = beside_a_job()
    run.store(replace(run.status, halt=Halt(Reason.TOO_MANY_FAILURES, "why", NOW)))
    decision = run.step()
    assert (run.looks, decision.delay, decision.waiting) == ([JOBS], None, None)


def test_at_a_resync_it_looks_all_the_same() -> None:
    run = waiting()
    run.wait(SETTINGS.resync_interval / 2)
    run.step()
    assert run.looks == ALL


def test_by_a_clock_that_was_set_back_it_looks() -> None:
    run = waiting()
    run.wait(-SECOND)
    run.step()
    assert run.looks == ALL


def test_an_edit_is_looked_at_at_once() -> None:
    run = waiting()
    run.edit(a_spec(B))
    run.step()
    assert run.looks == ALL


def test_a_removal_that_waits_for_the_write_budget_looks_when_its_turn_comes() -> None:
    run = owing(A)
    run.wait(DELAY)
    run.cloud.write_wait = 40.0
    run.step()
    assert run.looks == [FRESH, HOME, WRITE]
    assert run.step().delay == 40.0
    assert run.looks == [TURN]
    run.cloud.write_wait = 0.0
    intent = run.step().intent
    assert run.looks == [TURN, FRESH, HOME, WRITE]
    assert intent is not None
    assert intent.operation is Operation.REMOVE


def test_a_halt_is_looked_at_by_the_resync() -> None:
    status = Status(1, last_batch=1, halt=Halt(Reason.TOO_MANY_FAILURES, "why", NOW))
    run = Run(an_object(a_spec(A), status))
    decision = run.step()
    assert requeue.after(run.membership, decision, Memory()) == Requeue(Schedule.RESYNC)


@pytest.mark.parametrize("reason", [Reason.QUOTA_EXCEEDED, Reason.LOCKED])
def test_who_was_refused_looks_when_its_wait_is_over(reason: Reason) -> None:
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, waits=(a_wait(NOW + timedelta(hours=1), reason),))))
    decision = run.step()
    wait = requeue.after(run.membership, decision, Memory())
    assert (wait.at_least, wait.by_resync) == (3600.0, True)


@pytest.mark.parametrize("reason", [Reason.LOCKED, Reason.THROTTLED])
def test_who_waits_because_another_was_refused_says_so_and_does_not_look(reason: Reason) -> None:
    run = Run(an_object(a_spec(A)), Cloud(write_wait=40.0, held_back=reason))
    run.step()
    assert run.ready.reason is reason
    before = run.status
    assert run.step().delay == 40.0
    assert (run.looks, run.status) == ([TURN], before)


def test_who_was_refused_while_the_cluster_was_locked_asks_only_for_its_job() -> None:
    run = Run(an_object(replace(a_spec(A, B, parallel=2), batch_size=1)), Cloud(jobs=a_job(JobPhase.RUNNING)))
    run.step(Accepted(JOB))
    run.step(NotNow(Reason.LOCKED, "busy"))
    decision = run.step()
    assert (run.looks, decision.schedule) == ([JOBS], Schedule.POLL)


def paused_at_home(run: Run, *, keeps: str | None = None) -> Run:
    """Its namespace is paused, and a look has found it so."""
    run.cloud.namespace_state = NamespaceState(keeps, paused="incident 42")
    run.step()
    return run


def test_in_a_paused_namespace_only_that_is_read_until_the_pause_is_taken_off() -> None:
    run = paused_at_home(Run(an_object(a_spec(A))))
    assert (run.looks, run.ready.reason) == (ALL[:-1], Reason.PAUSED)
    before = run.status
    run.wait(SETTINGS.poll_interval)
    decision = run.step()
    assert (run.looks, run.status, decision.schedule) == ([HOME], before, Schedule.BACKOFF)
    run.cloud.namespace_state = NamespaceState()
    run.wait(SETTINGS.poll_interval)
    assert run.step().intent is not None
    assert run.looks == [HOME, RECENT, FRESH, WRITE, INSPECTION]


def test_another_word_for_the_pause_is_told_without_a_look() -> None:
    run = paused_at_home(Run(an_object(a_spec(A))))
    run.cloud.namespace_state = NamespaceState(paused="incident 43")
    run.step()
    assert run.looks == [HOME]
    assert "incident 43" in run.ready.message


def test_a_deletion_in_a_paused_namespace_lets_go_once_the_namespace_goes() -> None:
    run = deleted(A)
    run.step()
    run.wait(DELAY)
    run = paused_at_home(run)
    message = run.ready.message
    assert "incident 42" in message
    run.step()
    assert (run.looks, run.ready.message) == ([HOME], message)
    run.cloud.namespace_state = NamespaceState("the namespace is being deleted, too", paused="incident 42")
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer) == (None, False)


def test_a_deletion_of_a_paused_object_says_that_it_is_paused_and_looks_at_its_resync() -> None:
    run = deleted(A)
    run.step()
    run.wait(DELAY)
    run.annotate({PAUSED_ANNOTATION: "incident 42"})
    decision = run.step()
    assert "incident 42" in run.ready.message
    assert decision.schedule is Schedule.RESYNC


def test_who_waits_for_the_end_of_its_canary_looks_when_its_job_is_over() -> None:
    status = Status(1, last_batch=1, jobs=(replace(a_batch(Phase.RUNNING, B, job_id=JOB), template="-"),))
    spec = replace(a_spec(A, B, parallel=2), rollout=Rollout(1))
    run = Run(an_object(spec, status), Cloud(jobs=a_job(JobPhase.RUNNING)))
    run.step()
    run.wait(SETTINGS.poll_interval)
    run.step()
    assert run.looks == [JOBS]
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([B])
    assert run.step().intent is not None


def beside_a_canary() -> Run:
    """One that is owed a removal, while its canary keeps it from adding."""
    run = members(A, B)
    job = replace(a_batch(Phase.RUNNING, C, job_id=JOB, number=2), template="-")
    run.store(replace(run.status, jobs=(job,), last_batch=2))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.edit(replace(removing_spec(B, C, D), rollout=Rollout(1), max_parallel_jobs=3))
    return run


def test_a_removal_that_comes_due_beside_a_canary_is_looked_for() -> None:
    run = beside_a_canary()
    run.step()
    run.step()
    assert run.looks == [JOBS]
    run.wait(DELAY)
    intent = run.step().intent
    assert intent is not None
    assert intent.operation is Operation.REMOVE


def test_a_removal_that_only_a_look_lets_go_on_looks_beside_a_canary() -> None:
    run = beside_a_canary()
    run.step()
    run.wait(DELAY)
    run.cloud.cluster = ClusterReport("Upgrading")
    for _ in range(2):
        run.step()
        assert FRESH in run.looks


def test_without_a_call_under_way_each_resync_is_a_look() -> None:
    run = Run(an_object(replace(a_spec(A), approval=Approval.MANUAL)))
    assert run.step().schedule is Schedule.RESYNC
    run.wait(SETTINGS.resync_interval / 4)
    run.step()
    assert run.looks == [RECENT, FRESH]
