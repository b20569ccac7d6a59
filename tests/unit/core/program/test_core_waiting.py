"""Who cannot call does not look: what waits for its turn, a halt, a wait or a lock is asked about first (promise 12).

Not for: what is looked at by who can (`test_core_queries`), or the turns (`test_cce_budget`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Halt, Operation, Phase, Status
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import Accepted, NotNow
from nodepool_membership.core.observed.observation import Freshness, JobPhase, Query
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
from unit.removal_builders import DELAY, owing

A, B = servers(2)
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
    assert (run.looks, decision.delay, decision.waits_since) == ([JOBS], None, None)


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
