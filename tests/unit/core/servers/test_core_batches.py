"""The life of an add batch, from the intent to a verdict for each server (protocol P8, P10, P11)."""

from datetime import datetime, timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.decide import Decision, Schedule, decide
from nodepool_membership.core.decision.record import Accepted, Answer, Unknown
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    JobReport,
    NodeTable,
    Observation,
    PoolReport,
    Query,
)
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    TIMEOUT,
    WINDOW,
    Cloud,
    Run,
    a_batch,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    next_attempt,
    running,
    server,
    servers,
)

A, B, C = servers(3)


def unknown(*ids: str) -> Run:
    """A membership whose first call had no usable answer."""
    run = Run(an_object(a_spec(*ids)))
    run.step(Unknown("the answer was lost"))
    return run


def test_an_intent_names_the_servers_before_anything_is_sent() -> None:
    run = Run(an_object(a_spec(B, A, C, batch_size=2)))
    decision = run.step()
    assert decision.intent is not None
    assert decision.intent == decision.status.jobs[-1]
    assert (decision.intent.phase, decision.intent.server_ids) == (Phase.SUBMITTING, (A, B))
    assert (decision.intent.batch, decision.intent.attempt, decision.intent.servers) == (1, 1, 2)
    assert decision.intent.submit_time == NOW
    assert (decision.status.last_batch, decision.status.joining, decision.status.pending) == (1, 2, 1)
    assert decision.keeps_finalizer


def test_a_batch_that_goes_well_takes_intent_record_and_outcome() -> None:
    run = running(A, B)
    assert (run.newest.phase, run.newest.job_id, run.status.last_job_id) == (Phase.RUNNING, JOB, JOB)
    before = run.status
    run.wait(timedelta(seconds=15))
    assert run.step().status == before
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B])
    run.wait(timedelta(minutes=5))
    decision = run.step()
    assert run.newest.phase is Phase.SUCCEEDED
    assert (run.newest.server_ids, run.newest.message, run.newest.finish_time) == ((), None, run.now)
    assert run.status.members == (A, B)
    assert not decision.keeps_finalizer
    assert run.ready.status == "True"


@pytest.mark.parametrize("phase", [JobPhase.FAILED, JobPhase.LOST])
def test_the_nodes_decide_whatever_the_job_says(phase: JobPhase) -> None:
    run = running(A, B)
    run.cloud.jobs, run.cloud.nodes = a_job(phase, "all is lost"), active([A, B])
    run.step()
    assert (run.newest.phase, run.status.members, run.status.failures) == (Phase.SUCCEEDED, (A, B), ())


def test_a_job_that_succeeded_without_nodes_is_no_success() -> None:
    run = running(A, B)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    run.step()
    assert (run.newest.phase, run.newest.server_ids, run.newest.settling_since) == (Phase.VERIFYING, (B,), run.now)
    assert (run.status.members, run.status.joining) == ((A,), 1)


def test_a_lost_job_without_nodes_is_watched_not_failed() -> None:
    run = running(A)
    run.cloud.jobs = a_job(JobPhase.LOST)
    run.step()
    assert (run.newest.phase, run.status.failures) == (Phase.VERIFYING, ())


def test_a_job_in_an_unknown_phase_is_still_running() -> None:
    run = running(A)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.UNRECOGNISED), [a_node(A, "Error")]
    before = run.status
    decision = run.step()
    assert decision.status == before
    assert run.looks == [Query(jobs=(JOB,))]
    assert decision.schedule is Schedule.POLL


def test_a_job_that_is_over_waits_for_nodes_on_their_way() -> None:
    run = running(A, B)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.cloud.nodes = [a_node(A), a_node(B, "Installing", created=run.now)]
    before = run.status
    assert run.step().status == before
    run.cloud.nodes = active([A, B])
    run.step()
    assert run.newest.phase is Phase.SUCCEEDED


@pytest.mark.parametrize(("moment", "phase"), [(WINDOW - SECOND, Phase.VERIFYING), (WINDOW, Phase.FAILED)])
def test_absent_servers_are_looked_for_exactly_one_settle_window(moment: timedelta, phase: Phase) -> None:
    run = running(A)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.step()
    run.wait(moment)
    run.step()
    assert run.newest.phase is phase
    assert run.status.joining == (1 if phase is Phase.VERIFYING else 0)


def test_the_settle_window_begins_when_the_job_ends_not_when_it_was_submitted() -> None:
    run = running(A)
    run.wait(timedelta(minutes=50))
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.step()
    run.wait(WINDOW - SECOND)
    run.step()
    assert run.newest.phase is Phase.VERIFYING


def test_a_listing_begun_before_the_end_of_the_window_does_not_end_it() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.VERIFYING, A, job_id=JOB, finished=NOW),))
    end = NOW + WINDOW
    for begun, phase in ((end - SECOND, Phase.VERIFYING), (end, Phase.FAILED)):
        pool, cluster = PoolReport("", 0), ClusterReport("Available")
        lost = {JOB: JobReport(JOB, JobPhase.LOST)}
        seen = Observation(begun - SECOND, listing=NodeTable(begun, []), jobs=lost, pool=pool, cluster=cluster)
        decision = decide(an_object(a_spec(A), status), seen, end + 5 * SECOND, SETTINGS)
        assert isinstance(decision, Decision)
        assert decision.status.jobs[-1].phase is phase


def test_absent_then_never_appeared_then_planned_again_as_attempt_two() -> None:
    run = running(A)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.step()
    run.wait(WINDOW)
    decision = run.step()
    assert run.causes == {A: (FailureReason.NEVER_APPEARED, 1)}
    assert (run.newest.phase, run.status.failed, run.status.pending) == (Phase.FAILED, 0, 1)
    assert decision.intent is None
    moment = next_attempt(run.status)
    assert moment is not None
    assert run.ready.reason is FailureReason.NEVER_APPEARED
    run.now = moment - SECOND
    assert run.step().intent is None
    run.wait(SECOND)
    again = run.step().intent
    assert again is not None
    assert (again.batch, again.attempt, again.server_ids) == (2, 2, (A,))


def test_a_late_server_joins_within_the_window() -> None:
    run = running(A, B)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.FAILED), active([A])
    run.step()
    run.wait(timedelta(minutes=9))
    run.cloud.nodes = active([A, B])
    run.step()
    assert (run.newest.phase, run.status.members) == (Phase.SUCCEEDED, (A, B))


def test_an_unknown_outcome_is_watched_then_running_then_joined() -> None:
    run = unknown(A, B)
    assert (run.newest.phase, run.newest.job_id, run.newest.message) == (Phase.VERIFYING, None, "the answer was lost")
    run.wait(timedelta(minutes=1))
    decision = run.step()
    assert (run.newest.phase, decision.schedule, decision.intent) == (Phase.VERIFYING, Schedule.WATCH, None)
    run.cloud.nodes = [a_node(A, "Installing", created=run.now)]
    run.step()
    assert (run.newest.phase, run.newest.message, run.newest.server_ids) == (Phase.RUNNING, None, (A, B))
    run.wait(timedelta(minutes=3))
    run.cloud.nodes = active([A, B])
    run.step()
    assert (run.newest.phase, run.status.members, run.newest.message) == (Phase.SUCCEEDED, (A, B), None)


def test_an_unknown_outcome_costs_an_attempt_and_a_whole_window() -> None:
    run = unknown(A)
    run.wait(WINDOW - SECOND)
    run.step()
    assert run.newest.phase is Phase.VERIFYING
    run.wait(SECOND)
    run.step()
    assert (run.newest.phase, run.causes) == (Phase.FAILED, {A: (FailureReason.NEVER_APPEARED, 1)})
    assert run.newest.message == "failed: 1 NeverAppeared"


def test_an_intent_without_an_answer_is_an_unknown_outcome() -> None:
    run = Run(an_object(a_spec(A)))
    assert run.step().intent == run.newest
    run.wait(SECOND)
    decision = run.step()
    assert decision.intent is None
    assert run.newest.phase is Phase.VERIFYING
    assert run.newest.message is not None
    assert "the operator stopped" in run.newest.message


def test_first_sight_of_one_leaves_the_others_a_whole_window_from_the_call() -> None:
    run = unknown(A, B)
    run.wait(timedelta(minutes=2))
    run.cloud.nodes = active([A])
    run.step()
    assert (run.newest.phase, run.newest.server_ids, run.status.members) == (Phase.VERIFYING, (B,), (A,))
    run.now = NOW + WINDOW - SECOND
    run.step()
    assert run.newest.phase is Phase.VERIFYING
    run.wait(SECOND)
    run.step()
    assert (run.newest.phase, run.causes) == (Phase.PARTLY_FAILED, {B: (FailureReason.NEVER_APPEARED, 1)})


def test_an_unknown_outcome_keeps_its_servers_while_another_still_installs() -> None:
    run = unknown(A, B)
    run.cloud.nodes = [a_node(A, "Installing", created=NOW)]
    run.now = NOW + WINDOW + SECOND
    run.step()
    assert (run.newest.phase, run.status.joining) == (Phase.RUNNING, 2)


@pytest.mark.parametrize("answer", [Unknown("the answer was lost"), Accepted(JOB)])
def test_a_server_that_was_on_its_way_is_looked_for_a_whole_window_since_it_is_gone(answer: Answer) -> None:
    """Of an unknown call as of a lost job: what installs it may go on, and there is nobody to ask."""
    run = Run(an_object(a_spec(A)))
    run.step(answer)
    run.wait(timedelta(minutes=1))
    run.step()
    assert run.newest.phase is Phase.VERIFYING
    run.cloud.nodes = [a_node(A, "Installing", created=run.now)]
    for _ in range(2):
        run.step()
        assert (run.newest.is_open, run.newest.settling_since) == (True, None)
        run.wait(WINDOW)
    run.cloud.nodes = []
    run.step()
    assert (run.newest.phase, run.newest.settling_since) == (Phase.VERIFYING, run.now)
    run.wait(WINDOW - SECOND)
    run.step()
    assert (run.newest.phase, run.status.joining) == (Phase.VERIFYING, 1)
    run.wait(SECOND)
    run.step()
    assert (run.newest.phase, run.causes) == (Phase.FAILED, {A: (FailureReason.NEVER_APPEARED, 1)})


@pytest.mark.parametrize("answer", [Unknown("the answer was lost"), Accepted(JOB)])
@pytest.mark.parametrize("created", [NOW, None])
def test_a_batch_ends_although_the_listing_shows_its_node_every_other_time(
    answer: Answer, created: datetime | None
) -> None:
    run = Run(an_object(a_spec(A)))
    run.step(answer)
    while run.newest.is_open and run.now < NOW + 2 * TIMEOUT:
        run.wait(timedelta(minutes=1))
        run.cloud.nodes = [] if run.cloud.nodes else [a_node(A, "Installing", created=created)]
        assert run.step().intent is None
    assert (run.newest.phase, run.causes) == (Phase.FAILED, {A: (FailureReason.JOIN_TIMEOUT, 1)})
    assert run.now <= NOW + TIMEOUT + timedelta(minutes=2)


def test_parallel_jobs_are_bounded_and_never_share_a_server() -> None:
    ids = servers(5)
    run = Run(an_object(a_spec(*ids, batch_size=2, parallel=2)))
    run.cloud.jobs = {job: JobReport(job, JobPhase.RUNNING) for job in (JOB, "other-job")}
    first, second = run.step(Accepted(JOB)).intent, run.step(Accepted("other-job")).intent
    assert first is not None
    assert second is not None
    assert (first.server_ids, second.server_ids) == (ids[:2], ids[2:4])
    decision = run.step()
    assert decision.intent is None
    assert decision.schedule is Schedule.POLL
    assert run.looks == [Query(jobs=(JOB, "other-job"))]


def test_a_batch_that_is_only_watched_leaves_room_for_the_next() -> None:
    run = running(A, B, batch_size=1)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    decision = run.step(Accepted("other-job"))
    assert decision.intent is not None
    assert decision.intent.server_ids == (B,)
    assert [b.phase for b in run.status.jobs] == [Phase.VERIFYING, Phase.RUNNING]


def test_an_unknown_outcome_leaves_no_room_for_the_next() -> None:
    run = Run(an_object(a_spec(A, B, batch_size=1)))
    run.step(Unknown("the answer was lost"))
    run.wait(timedelta(minutes=1))
    assert run.step().intent is None


def test_no_server_of_an_open_batch_is_named_again_after_it_left_and_entered_the_list() -> None:
    run = running(A, B)
    run.edit(a_spec(B))
    run.step()
    run.edit(a_spec(A, B))
    assert run.step().intent is None
    assert run.status.joining == 2


def test_a_server_that_joined_after_it_left_the_list_is_no_member() -> None:
    run = running(A, B)
    run.edit(a_spec(B))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B])
    run.step()
    assert (run.newest.phase, run.status.members, run.status.desired) == (Phase.SUCCEEDED, (B,), 1)


def test_the_newest_ten_finished_batches_are_kept() -> None:
    ids = servers(12)
    run = Run(an_object(a_spec(*ids, batch_size=1)))
    for number in range(12):
        run.step(Accepted(JOB))
        run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active(ids[: number + 1])
        if number < 11:
            # The next intent is in the same write as the outcome.
            decision = run.decide()
            assert decision.intent is not None
    run.step()
    assert [b.batch for b in run.status.jobs] == list(range(3, 13))
    assert (run.status.last_batch, run.ready.status) == (12, "True")


def test_a_submit_time_in_the_future_counts_as_now() -> None:
    ahead = NOW + timedelta(days=400)
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.VERIFYING, A, submitted=ahead),))
    run = Run(an_object(a_spec(A), status), Cloud(nodes=active([A])))
    run.step()
    assert (run.newest.phase, run.status.members) == (Phase.SUCCEEDED, (A,))


def test_partly_failed_tells_the_causes_by_number_and_names_no_server() -> None:
    run = running(A, B, C)
    run.cloud.jobs = a_job(JobPhase.FAILED, "it failed", {A: "InstallFailed: disk A"})
    run.cloud.nodes = [a_node(A, "Error"), a_node(B, pool=ELSEWHERE), a_node(C)]
    run.step()
    assert (run.newest.phase, run.newest.message) == (Phase.PARTLY_FAILED, "failed: 1 InstallFailed, 1 OtherPool")
    assert run.status.members == (C,)
    assert server(1) not in str(run.newest.message)
    assert (run.newest.server_ids, run.newest.called_ids) == ((), (A, B, C))
