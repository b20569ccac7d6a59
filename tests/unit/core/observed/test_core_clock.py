"""Clocks that are wrong: ours against the cloud's, and moments stored by one that was ahead (rule P21)."""

from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.cce.errors import ForbiddenError, UnauthenticatedError
from nodepool_membership.core.decision.decide import Decision, Schedule, decide
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import NodeTable, Observation
from nodepool_membership.runtime.cloud import error_mapping
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Cloud,
    Run,
    a_batch,
    a_spec,
    a_wait,
    active,
    an_object,
    next_attempt,
    servers,
)

A, B = servers(2)


@pytest.mark.parametrize(("offset", "words"), [(301.0, "5 minutes behind"), (-7200.4, "120 minutes ahead of")])
def test_nothing_is_added_while_our_clock_is_off(offset: float, words: str) -> None:
    run = Run(an_object(a_spec(A)))
    run.cloud.clock_offset = offset
    decision = run.step()
    assert (decision.intent, decision.schedule) == (None, Schedule.BACKOFF)
    assert (run.ready.status, run.ready.reason) == ("False", Reason.CLOCK_SKEW)
    assert words in run.ready.message
    assert "NTP" in run.ready.message
    again = run.status
    run.cloud.clock_offset = offset + 1
    run.step()
    assert run.status == again, "a clock that drifts by a second is no news"
    run.cloud.clock_offset = 2.0
    assert run.step(Accepted(JOB)).intent is not None


@pytest.mark.parametrize("offset", [None, 0.0, 300.0, -300.0])
def test_a_few_minutes_do_no_harm(offset: float | None) -> None:
    run = Run(an_object(a_spec(A)))
    run.cloud.clock_offset = offset
    assert run.step().intent is not None


def test_a_clock_that_is_off_keeps_nothing_else_from_being_seen() -> None:
    run = Run(an_object(a_spec(A)), Cloud(active([A])))
    run.cloud.clock_offset = 3600.0
    run.step()
    assert (run.ready.status, run.status.joined) == ("True", 1)


def test_a_signature_that_expired_because_of_our_clock_says_so() -> None:
    error = UnauthenticatedError("signature expired, signature date: x", status=401, code="APIGW.0301")
    skewed = error_mapping.of_read(error, "the node list", 1200.0)
    assert skewed.reason is Reason.CLOCK_SKEW
    assert "signature expired" in skewed.message
    assert "20 minutes behind" in skewed.message
    assert error_mapping.of_read(error, "the node list", 10.0).reason is Reason.UNAUTHENTICATED
    assert error_mapping.of_read(ForbiddenError("no", status=403), "the node list", 1200.0).reason is Reason.FORBIDDEN


def test_a_wait_stored_by_a_clock_that_was_ahead_is_cut_once_and_ends() -> None:
    stored = Status(1, last_batch=3, waits=(a_wait(NOW + timedelta(days=400)),))
    run = Run(an_object(a_spec(A), stored))
    assert run.step().intent is None
    moment = next_attempt(run.status)
    assert moment is not None
    assert moment <= NOW + timedelta(minutes=72)
    run.wait(timedelta(minutes=1))
    run.step()
    assert next_attempt(run.status) == moment
    run.now = moment
    assert run.step().intent is not None


def test_no_wait_that_we_store_is_cut() -> None:
    longest = NOW + max(WINDOW, timedelta(hours=1.2))
    run = Run(an_object(a_spec(A), Status(1, last_batch=3, waits=(a_wait(longest),))))
    run.step()
    assert next_attempt(run.status) == longest


def test_a_call_stored_by_a_clock_that_was_ahead_is_watched_for_a_settle_window_from_now() -> None:
    batch = a_batch(Phase.VERIFYING, A, submitted=NOW + timedelta(days=400))
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,))))
    run.step()
    assert [(job.phase, job.submit_time) for job in run.status.jobs] == [(Phase.VERIFYING, NOW)]
    run.wait(WINDOW)
    run.step()
    assert [job.phase for job in run.status.jobs] == [Phase.FAILED]


@pytest.mark.parametrize("trusted", [False, True])
def test_what_looks_like_the_future_is_stored_anew_only_by_a_clock_that_was_compared(*, trusted: bool) -> None:
    """Else a clock that is behind for a while makes a call look long past when it is right again: a double add."""
    batch = a_batch(Phase.VERIFYING, A, submitted=NOW, finished=NOW)
    until = NOW + timedelta(minutes=20)
    status = Status(1, last_batch=1, jobs=(batch,), waits=(a_wait(until),))
    run = Run(an_object(a_spec(A), status), Cloud(clock_offset=0.0 if trusted else 5000.0))
    run.now -= timedelta(seconds=5000)
    assert run.step().intent is None
    [job] = run.status.jobs
    assert (job.submit_time == NOW, job.settling_since == NOW) == (not trusted, not trusted)
    assert (next_attempt(run.status) == until) is (not trusted)


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(days=1)])
def test_the_removal_delay_is_not_measured_by_a_clock_that_is_off(off: timedelta) -> None:
    """One that is behind would make it pass at once, one that is ahead would make it last for days."""
    run = Run(an_object(a_spec(A, B, removal=RemovalPolicy.REMOVE)), Cloud(active([A, B])))
    run.step()
    run.edit(a_spec(A, removal=RemovalPolicy.REMOVE))
    run.now, run.cloud.clock_offset = NOW + off, -off.total_seconds()
    run.step()
    assert run.status.surplus_since == NOW
    run.now, run.cloud.clock_offset = NOW + SECOND, 0.0
    assert run.step().intent is None
    run.wait(SETTINGS.removal_delay)
    decision = run.step()
    assert decision.intent is not None
    assert decision.intent.server_ids == (B,)


def test_a_removal_that_is_owed_since_the_future_is_owed_since_now() -> None:
    status = Status(1, last_batch=0, members=(A, B), surplus=1, surplus_since=NOW + timedelta(days=400))
    run = Run(an_object(a_spec(A, removal=RemovalPolicy.REMOVE), status), Cloud(active([A, B])))
    run.step()
    assert run.status.surplus_since == NOW


def test_a_look_during_which_the_clock_was_set_back_decides_nothing() -> None:
    batch = a_batch(Phase.VERIFYING, A, submitted=NOW)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, jobs=(batch,))), Cloud(active([A])))
    run.wait(timedelta(minutes=1))
    table = NodeTable(run.now, run.cloud.nodes)
    seen = Observation(run.now, listing=table, pool=run.cloud.pool, cluster=run.cloud.cluster)
    decision = decide(run.membership, seen, run.now - timedelta(seconds=1), SETTINGS)
    assert isinstance(decision, Decision)
    assert (decision.intent, decision.status.jobs, decision.schedule) == (None, (batch,), Schedule.BACKOFF)


def test_servers_of_a_call_from_the_future_are_seen_to_have_joined() -> None:
    batch = a_batch(Phase.VERIFYING, A, submitted=NOW + timedelta(days=400), finished=NOW + timedelta(days=400))
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,))), Cloud(active([A])))
    run.step()
    assert [job.phase for job in run.status.jobs] == [Phase.SUCCEEDED]


@pytest.mark.parametrize("job_id", [None, JOB])
def test_no_batch_is_judged_by_a_clock_that_is_off(job_id: str | None) -> None:
    phase = Phase.VERIFYING if job_id is None else Phase.RUNNING
    batch = a_batch(phase, A, submitted=NOW, job_id=job_id)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,))), Cloud(clock_offset=-3600.0))
    run.wait(timedelta(hours=1))
    run.step()
    assert run.status.jobs == (batch,)
    assert run.ready.reason is Reason.CLOCK_SKEW
    run.cloud.clock_offset = 0.0
    run.step()
    assert run.status.jobs != (batch,)


def test_a_wait_is_not_over_because_a_clock_that_is_off_says_so() -> None:
    until = NOW + WINDOW
    run = Run(an_object(a_spec(A), Status(1, last_batch=0, waits=(a_wait(until),))), Cloud(clock_offset=-3600.0))
    run.wait(timedelta(hours=1))
    assert run.step().intent is None
    assert next_attempt(run.status) == until


def test_a_deleted_object_is_held_while_a_clock_that_is_off_calls_it_old() -> None:
    batch = a_batch(Phase.VERIFYING, A, submitted=NOW)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,))))
    run.delete()
    run.wait(timedelta(days=1))
    run.cloud.clock_offset = -86400.0
    assert run.decide().keeps_finalizer
    run.cloud.clock_offset = 0.0
    assert not run.decide().keeps_finalizer
