"""Jobs that do not end, or are not found for a while: what they may still do is not over (rules P8, P10).

Not for: what an ended job means for its servers (`test_core_batches`).
"""

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import DriftPolicy
from nodepool_membership.api.status import Phase
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import (
    Freshness,
    JobPhase,
    Query,
)
from nodepool_membership.core.state.settings import JOB_GRACE
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    TIMEOUT,
    WINDOW,
    Run,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    running,
    servers,
)

A, B, C = servers(3)


def test_an_overdue_job_stalls_and_recovers_when_it_ends() -> None:
    run = running(A, B)
    run.cloud.nodes = [a_node(A), a_node(B, "Installing", created=NOW)]
    run.now = NOW + TIMEOUT + JOB_GRACE
    run.step()
    assert run.ready.reason is Reason.PROGRESSING
    assert run.looks == [Query(jobs=(JOB,))]
    run.wait(SECOND)
    decision = run.step()
    assert decision.keeps_finalizer
    assert run.looks == [Query(jobs=(JOB,)), Query(listing=Freshness.AFTER_READ)]
    assert (run.ready.status, run.ready.reason) == ("False", Reason.JOB_OVERDUE)
    assert (run.condition("Stalled") is not None, run.condition("Reconciling")) == (True, None)
    assert (run.newest.phase, run.newest.server_ids) == (Phase.RUNNING, (A, B))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B])
    run.step()
    assert (run.newest.phase, run.ready.status) == (Phase.SUCCEEDED, "True")
    assert run.condition("Stalled") is None


def test_an_overdue_job_is_followed_to_its_end_though_all_its_servers_are_members() -> None:
    """What it may still do to them is not over: were one to vanish, it would not be named again meanwhile."""
    run = running(A, B)
    run.cloud.nodes = active([A, B])
    run.now = NOW + TIMEOUT + JOB_GRACE + SECOND
    run.step()
    assert (run.newest.phase, run.newest.server_ids) == (Phase.RUNNING, (A, B))
    assert (run.status.members, run.status.joining, run.ready.status) == ((A, B), 0, "True")
    run.edit(a_spec(A, B, drift=DriftPolicy.REJOIN))
    run.cloud.nodes = active([B])
    for _ in range(20):
        run.wait(SETTINGS.resync_interval)
        assert run.step().intent is None
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.step()
    assert not run.newest.is_open or run.newest.settling_since == run.now


def test_one_404_for_a_job_is_not_believed_when_it_runs_again() -> None:
    """The job of a call that was just accepted may not be found yet."""
    run = Run(an_object(a_spec(A)))
    run.step(Accepted(JOB))
    run.wait(SECOND)
    run.step()
    assert (run.newest.phase, run.newest.settling_since) == (Phase.VERIFYING, run.now)
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    for _ in range(4):
        run.wait(WINDOW / 2)
        assert run.step().intent is None
    assert (run.newest.phase, run.newest.settling_since, run.newest.server_ids) == (Phase.RUNNING, None, (A,))
    assert (run.newest.failed, run.status.halt) == (None, None)


def test_an_overdue_job_keeps_no_other_server_from_being_added() -> None:
    run = Run(an_object(a_spec(A, B, batch_size=1)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.now = NOW + TIMEOUT + JOB_GRACE + SECOND
    intent = run.step(Accepted("other-job")).intent
    assert intent is not None
    assert intent.server_ids == (B,)


def test_a_job_that_cannot_be_read_keeps_its_active_servers_from_nobody_and_frees_none() -> None:
    run = running(A, B)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.UNREADABLE), active([A])
    run.step()
    assert (run.status.members, run.status.joining) == ((A,), 1)
    for _ in range(3):
        run.wait(SETTINGS.settle_window)
        assert run.step().intent is None
    assert (run.newest.phase, run.newest.server_ids) == (Phase.RUNNING, (A, B))
