"""The brake: many failures after acceptance in one batch, whenever it ends, and no further add is made.

Not for: refusals (`test_core_narrowing`). Rule P26.
"""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from nodepool_membership.api.reasons import EventReason, FailureReason, Reason
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.conditions import events
from nodepool_membership.core.decision.record import Accepted, Unknown, record
from nodepool_membership.core.observed.observation import JobPhase
from nodepool_membership.core.servers.batches import must_brake
from nodepool_membership.core.state.state import KEPT_FINISHED, State
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Cloud,
    Run,
    a_batch,
    a_job,
    a_node,
    a_spec,
    an_object,
    servers,
)


@pytest.mark.parametrize(("failed", "of", "brakes"), [(3, 14, True), (3, 15, False), (2, 5, False), (5, 5, True)])
def test_many_failures_after_acceptance_pull_the_brake(failed: int, of: int, brakes: bool) -> None:
    ids = servers(of + 1)
    batch = Batch(1, Operation.ADD, 1, Phase.RUNNING, of, JOB, ids[:of], submit_time=a_batch(Phase.RUNNING).submit_time)
    nodes = [a_node(i, "Error" if n < failed else "Active") for n, i in enumerate(ids[:of])]
    run = Run(an_object(a_spec(*ids), Status(1, last_batch=1, jobs=(batch,))), Cloud(nodes, a_job(JobPhase.FAILED)))
    decision = run.step()
    assert (decision.intent is None) == brakes
    assert run.status.jobs[0].failed == failed
    assert (run.ready.reason is Reason.TOO_MANY_FAILURES) == brakes
    if brakes:
        assert run.step().intent is None
        run.edit(a_spec(*ids, parallel=2))
        assert run.step().intent is not None, "a spec change releases the brake"


@pytest.mark.parametrize("looked", [True, False], ids=["looked between", "both at once"])
def test_to_suspend_and_to_go_on_releases_no_brake(looked: bool) -> None:
    ids = servers(5)
    batch = replace(a_batch(Phase.RUNNING, *ids[:3]), servers=3, job_id=JOB)
    nodes = [a_node(i, "Error") for i in ids[:3]]
    run = Run(an_object(a_spec(*ids), Status(1, last_batch=1, jobs=(batch,))), Cloud(nodes, a_job(JobPhase.FAILED)))
    run.step()
    assert run.status.halt is not None
    run.edit(a_spec(*ids, suspend=True))
    if looked:
        run.step()
    run.edit(a_spec(*ids))
    assert run.step().intent is None
    assert run.ready.reason is Reason.TOO_MANY_FAILURES
    run.edit(a_spec(*ids, batch_size=1))
    assert run.step().intent is not None


def test_failures_before_a_suspension_count_with_those_after_it() -> None:
    ids = servers(7)
    first = replace(a_batch(Phase.RUNNING, *ids[:2]), servers=2, job_id=JOB)
    spec = a_spec(*ids, batch_size=2, attempts=1)
    run = Run(
        an_object(spec, Status(1, last_batch=1, jobs=(first,))),
        Cloud([a_node(i, "Error") for i in ids[:2]], a_job(JobPhase.FAILED)),
    )
    run.step(Accepted(JOB))
    run.edit(replace(spec, suspend=True))
    run.step()
    run.edit(spec)
    run.cloud.nodes = [a_node(i, "Error") for i in ids[:4]]
    assert run.step().intent is None
    assert run.ready.reason is Reason.TOO_MANY_FAILURES


def test_who_was_answered_for_before_it_failed_takes_nothing_off_later_failures() -> None:
    small = [replace(a_batch(Phase.PARTLY_FAILED, number=n, job_id=JOB), servers=2, failed=1) for n in (1, 2, 3)]
    canary = replace(a_batch(Phase.PARTLY_FAILED, number=4, job_id=JOB), servers=5, failed=1, pardoned=5)
    assert must_brake(State.of(Status(jobs=(*small, canary)))) == (3, 6)


def test_a_call_that_never_arrived_wiped_nothing_and_pulls_no_brake() -> None:
    ids = servers(3)
    run = Run(an_object(a_spec(*ids), Status(1, last_batch=0)))
    run.step(Unknown("no answer"))
    run.wait(SETTINGS.settle_window)
    run.step()
    assert (run.status.jobs[0].phase, run.status.jobs[0].failed) == (Phase.FAILED, None)
    assert run.ready.reason is not Reason.TOO_MANY_FAILURES
    assert set(run.causes.values()) == {(FailureReason.NEVER_APPEARED, 1)}


def ended_since(count: int, first: int) -> tuple[Batch, ...]:
    """Batches that ended after the window of an earlier one began, and before it passed."""
    ended = (NOW + timedelta(minutes=1) + number * SECOND for number in range(count))
    return tuple(
        a_batch(Phase.SUCCEEDED, number=first + n, job_id=f"job-{n}", finished=moment) for n, moment in enumerate(ended)
    )


def ends_late(watched: int) -> Run:
    """Batches whose servers never appeared, with as many newer ones finished as are kept."""
    ids = servers(5 * watched + 1)
    verifying = tuple(
        a_batch(Phase.VERIFYING, *ids[5 * n : 5 * n + 5], number=n + 1, job_id=f"late-{n}", finished=NOW)
        for n in range(watched)
    )
    # Of several that end in one look only the first one has failures enough.
    batches = (verifying[0], *(replace(b, servers=50) for b in verifying[1:]), *ended_since(KEPT_FINISHED, watched + 1))
    run = Run(an_object(a_spec(*ids), Status(1, last_batch=len(batches), jobs=batches)))
    run.wait(WINDOW)
    return run


@pytest.mark.parametrize("watched", [1, KEPT_FINISHED + 1])
def test_a_batch_that_ends_after_ten_newer_ones_pulls_the_brake(watched: int) -> None:
    run = ends_late(watched)
    decision = run.step()
    assert (decision.intent, run.ready.reason) == (None, Reason.TOO_MANY_FAILURES)
    assert len(run.status.jobs) == KEPT_FINISHED


def test_a_batch_that_ends_after_ten_newer_ones_is_kept_and_told() -> None:
    run = ends_late(1)
    before = run.status
    run.step()
    assert [b.batch for b in run.status.jobs] == [1, *range(3, KEPT_FINISHED + 2)]
    assert EventReason.BATCH_FAILED in {note.reason for note in events.events_between(before, run.status)}


@pytest.mark.parametrize(("ended", "comes_back"), [(NOW - SECOND, True), (NOW + SECOND, False)])
def test_a_batch_that_the_newest_finished_ones_have_displaced_is_not_recorded_again(
    ended: datetime, *, comes_back: bool
) -> None:
    """One with a lower number may be among those that are kept, since it ended late."""
    later = (replace(a_batch(Phase.SUCCEEDED), batch=n, finish_time=ended) for n in (1, *range(3, KEPT_FINISHED + 2)))
    run = Run(an_object(a_spec(*servers(1)), Status(1, last_batch=KEPT_FINISHED + 1, jobs=tuple(later))))
    intent = a_batch(Phase.SUBMITTING, *servers(1), number=2, submitted=NOW)
    kept = record(run.membership, intent, Accepted(JOB), NOW + timedelta(minutes=1), SETTINGS)
    assert any(batch.batch == intent.batch for batch in kept.jobs) == comes_back


@pytest.mark.parametrize("phase", [JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.LOST])
def test_servers_that_may_still_appear_pull_the_brake_only_when_their_window_has_passed(phase: JobPhase) -> None:
    """The job explains, it does not decide: nodes may show minutes after its end, also of one that failed."""
    ids = servers(3)
    run = Run(an_object(a_spec(*ids), Status(1, last_batch=0)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(phase, "one of them has a broken disk")
    run.step()
    assert (run.newest.phase, run.ready.reason) == (Phase.VERIFYING, Reason.PROGRESSING)
    run.wait(WINDOW)
    run.step()
    assert run.ready.reason is Reason.TOO_MANY_FAILURES
