"""What people ask for beside ids: reconcile and reset requests, edits, suspension, deletion; and a lost status (P2)."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta

import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Hold, Phase, Status
from nodepool_membership.core.decision.decide import Schedule, acknowledge
from nodepool_membership.core.decision.record import Accepted, NotNow
from nodepool_membership.core.observed.observation import Freshness, JobPhase, Query, Trouble
from nodepool_membership.core.state.requests import MAX_TOKEN, reconcile_requested
from told import condition_of
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Cloud,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    next_attempt,
    servers,
    used_up,
)

A, B, C = servers(3)
# Spelled out here: people and tools write these names.
FLUX, OURS = "reconcile.fluxcd.io/requestedAt", "cce.nodepools.dev/reconcile-requested-at"
ONLY, PAUSED = "cce.nodepools.dev/reset-only", "cce.nodepools.dev/paused"
FLUX_RESET, OUR_RESET = "reconcile.fluxcd.io/resetAt", "cce.nodepools.dev/reset-requested-at"
LIMIT = WINDOW + timedelta(seconds=3600)


def done() -> Run:
    run = Run(an_object(a_spec(A)), Cloud(active([A])))
    run.step()
    return run


def lost() -> Run:
    """The finalizer is there, the status is gone."""
    run = Run(an_object(a_spec(A), finalizers=(FINALIZER,)))
    run.store(acknowledge(run.membership, run.now, SETTINGS))
    return run


@pytest.mark.parametrize("name", [FLUX, OURS])
def test_a_request_is_answered_once_by_looking(name: str) -> None:
    run = done()
    run.annotate({name: "one"})
    assert reconcile_requested(run.membership) == "one"
    assert acknowledge(run.membership, NOW, SETTINGS).last_handled_reconcile_at is None
    run.step()
    assert run.looks == [Query(listing=Freshness.AFTER_READ)]
    assert (run.status.last_handled_reconcile_at, reconcile_requested(run.membership)) == ("one", None)
    run.step()
    assert run.looks == [Query(listing=Freshness.RECENT)]


def test_flux_is_asked_first() -> None:
    run = done()
    run.annotate({OURS: "ours", FLUX: "flux", OUR_RESET: "ours", FLUX_RESET: "flux"})
    run.step()
    assert (run.status.last_handled_reconcile_at, run.status.last_handled_reset_at) == ("flux", "flux")


@pytest.mark.parametrize("annotations", [{}, {FLUX: ""}, {FLUX: "one"}])
def test_removing_or_keeping_an_annotation_is_no_request(annotations: Mapping[str, str]) -> None:
    run = done()
    run.annotate({FLUX: "one", FLUX_RESET: "one"})
    run.step()
    before = run.status
    run.annotate(annotations)
    assert reconcile_requested(run.membership) is None
    assert run.step().status == before


@pytest.mark.parametrize(("length", "hashed"), [(MAX_TOKEN, False), (MAX_TOKEN + 1, True)])
def test_a_long_token_is_answered_by_its_hash(length: int, hashed: bool) -> None:
    run = used_up()
    token = "x" * length
    run.annotate({OURS: token, OUR_RESET: token})
    run.step()
    answer = "sha256:" + hashlib.sha256(token.encode()).hexdigest() if hashed else token
    assert (run.status.last_handled_reconcile_at, run.status.last_handled_reset_at) == (answer, answer)
    assert len(answer) <= MAX_TOKEN
    assert reconcile_requested(run.membership) is None


def test_a_request_is_not_answered_by_a_look_that_failed() -> None:
    run = done()
    run.annotate({FLUX: "one"})
    run.cloud.trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no connection")
    for _ in range(4):
        run.step()
    assert run.status.last_handled_reconcile_at is None


def test_a_request_during_a_job_lists_the_nodes() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.annotate({FLUX: "one"})
    run.step()
    assert run.looks == [Query(jobs=(JOB,)), Query(listing=Freshness.AFTER_READ)]
    assert run.status.last_handled_reconcile_at == "one"


def test_a_reset_does_not_send_a_server_that_has_a_node() -> None:
    run = Run(an_object(a_spec(A)), Cloud([a_node(A, pool=ELSEWHERE)]))
    run.step()
    run.annotate({FLUX: "one", FLUX_RESET: "one"})
    assert run.step().intent is None
    assert run.causes == {A: (FailureReason.OTHER_POOL, 0)}


def test_a_reset_does_not_shorten_the_window_of_an_unknown_outcome() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.VERIFYING, A),))
    run = Run(an_object(a_spec(A), status, annotations={FLUX: "one", FLUX_RESET: "one"}))
    run.wait(WINDOW - SECOND)
    assert run.step().intent is None
    assert run.newest.phase is Phase.VERIFYING


def test_a_wait_is_kept_over_looks_without_writes() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(NotNow(Reason.THROTTLED, "too many calls", 100.0))
    run.step()
    before = run.status
    assert next_attempt(before) == NOW + timedelta(seconds=100)
    for _ in range(3):
        run.wait(timedelta(seconds=30))
        decision = run.step()
        assert (decision.intent, decision.status) == (None, before)
        moment = next_attempt(before)
        assert moment is not None
        assert decision.delay == (moment - run.now).total_seconds()
    assert run.ready.reason is Reason.THROTTLED
    run.now = NOW + timedelta(seconds=100)
    assert run.step().intent is not None


def test_an_edit_ends_a_wait() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(NotNow(Reason.THROTTLED, "too many calls", 100.0))
    run.edit(a_spec(A, B))
    assert next_attempt(acknowledge(run.membership, NOW, SETTINGS)) is None
    assert run.step().intent is not None


def test_a_request_ends_a_wait() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(NotNow(Reason.THROTTLED, "too many calls", 100.0))
    run.annotate({FLUX: "one"})
    assert run.step().intent is not None


def test_an_edit_is_acknowledged_from_what_is_recorded() -> None:
    run = done()
    run.edit(a_spec(B, C))
    status = acknowledge(run.membership, run.now, SETTINGS)
    assert (status.observed_generation, status.desired, status.joined, status.pending) == (2, 2, 0, 2)
    assert status.members == ()
    assert condition_of(status, "Reconciling") is not None


@pytest.mark.parametrize(
    ("membership", "reason"),
    [(an_object(a_spec(A, suspend=True)), Reason.SUSPENDED), (an_object(a_spec(A), deleted=NOW), Reason.DELETING)],
    ids=["suspended", "deleted"],
)
def test_suspension_and_deletion_are_acknowledged_as_such(membership: Membership, reason: Reason) -> None:
    ready = condition_of(acknowledge(membership, NOW, SETTINGS), "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", reason)


def test_suspension_previews_the_adds_the_calls_and_the_adoptions() -> None:
    ids = servers(450)
    run = Run(an_object(a_spec(*ids, suspend=True)), Cloud(active(ids[:20])))
    decision = run.step()
    assert (decision.intent, decision.schedule, decision.keeps_finalizer) == (None, Schedule.RESYNC, False)
    assert run.ready.message == "suspended; would add 430 in 3 calls, which WIPES them, adopt 20"
    assert (run.status.members, run.status.failures, run.status.pending) == ((), (), 450)


def test_suspension_says_what_is_open_and_failed_and_follows_open_batches() -> None:
    status = Status(
        1,
        last_batch=1,
        jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),),
        failures=(a_failure(FailureReason.REFUSED, B, attempts=3),),
    )
    run = Run(an_object(a_spec(A, B, C, suspend=True), status), Cloud(jobs=a_job(JobPhase.RUNNING)))
    decision = run.step()
    assert run.ready.message == (
        "suspended; would add 1 in 1 call, which WIPES it, adopt 0; 1 joining in 1 batch; 1 failed"
    )
    assert (decision.schedule, decision.keeps_finalizer) == (Schedule.POLL, True)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    assert run.step().intent is None
    assert (run.newest.phase, run.status.members) == (Phase.SUCCEEDED, (A,))


def test_what_the_preview_said_stays_said_while_a_job_is_asked() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(an_object(a_spec(A, suspend=True), status), Cloud(jobs=a_job(JobPhase.RUNNING)))
    run.annotate({FLUX: "one"})
    run.step()
    said = run.ready.message
    assert "would add 0" in said
    run.step()
    assert run.looks == [Query(jobs=(JOB,))]
    assert run.ready.message == said


def test_a_suspended_object_that_was_not_looked_at_says_so() -> None:
    ready = condition_of(acknowledge(an_object(a_spec(A, suspend=True)), NOW, SETTINGS), "Ready")
    assert ready is not None
    assert ready.message == "suspended; 0 of 1 server joined, 1 pending; the cloud was not looked at yet"


def test_a_lost_status_is_waited_out_by_time() -> None:
    run = lost()
    assert (run.ready.reason, next_attempt(run.status)) == (Reason.STATUS_LOST, NOW + WINDOW)
    for wait in (timedelta(minutes=5), WINDOW - timedelta(minutes=5) - SECOND):
        run.wait(wait)
        assert run.step().intent is None
        assert (run.ready.reason, next_attempt(run.status)) == (Reason.STATUS_LOST, NOW + WINDOW)
    run.wait(SECOND)
    assert run.step().intent is not None


def test_a_lost_status_is_waited_out_also_without_an_acknowledgement() -> None:
    run = Run(an_object(a_spec(A), finalizers=(FINALIZER,)))
    assert run.step().intent is None
    assert (run.ready.reason, next_attempt(run.status)) == (Reason.STATUS_LOST, NOW + WINDOW)


def test_a_reset_ends_the_wait_of_a_lost_status() -> None:
    run = lost()
    run.annotate({FLUX: "one", FLUX_RESET: "one"})
    assert run.step().intent is not None


def test_a_reset_that_is_older_than_the_discovery_of_the_loss_does_not_end_it() -> None:
    run = Run(an_object(a_spec(A), finalizers=(FINALIZER,), annotations={FLUX: "one", FLUX_RESET: "one"}))
    run.store(acknowledge(run.membership, run.now, SETTINGS))
    assert run.step().intent is None
    assert run.ready.reason is Reason.STATUS_LOST
    run.annotate({FLUX: "two", FLUX_RESET: "two"})
    assert run.step().intent is not None


def test_nothing_else_ends_the_wait_of_a_lost_status() -> None:
    run = lost()
    run.annotate({FLUX: "one"})
    assert run.step().intent is None
    run.edit(a_spec(A, B))
    assert run.step().intent is None
    run.edit(a_spec(A, B, suspend=True))
    run.step()
    run.edit(a_spec(A, B))
    assert run.step().intent is None
    run.cloud.trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no connection")
    run.step()
    assert run.ready.reason is Reason.STATUS_LOST
    run.cloud.trouble = None
    run.edit(a_spec(A, B, C))
    assert next_attempt(acknowledge(run.membership, run.now, SETTINGS)) == NOW + WINDOW
    assert run.step().intent is None
    assert (run.ready.reason, next_attempt(run.status)) == (Reason.STATUS_LOST, NOW + WINDOW)


def test_nodes_are_adopted_while_a_lost_status_is_waited_out() -> None:
    run = lost()
    run.cloud.nodes = active([A])
    run.step()
    assert (run.status.members, run.ready.status) == ((A,), "True")
    run.edit(a_spec(A, B))
    assert run.step().intent is None


def test_a_counter_or_no_finalizer_is_no_loss() -> None:
    assert Run(an_object(a_spec(A))).step().intent is not None
    kept = an_object(a_spec(A), Status(1, last_batch=0), finalizers=(FINALIZER,))
    assert Run(kept).step().intent is not None


def test_deletion_adds_nothing() -> None:
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1), deleted=NOW, finalizers=(FINALIZER,)))
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer, run.looks) == (None, False, [])
    assert run.ready.reason is Reason.DELETING


@pytest.mark.parametrize(("since", "holds"), [(LIMIT - SECOND, True), (LIMIT, False)])
@pytest.mark.parametrize("trouble", [None, Trouble(Reason.CLOUD_UNREACHABLE, "no connection")])
def test_the_finalizer_is_held_while_a_batch_is_open_up_to_the_deadline(
    since: timedelta, holds: bool, trouble: Trouble | None
) -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(an_object(a_spec(A), status, deleted=NOW, finalizers=(FINALIZER,)), Cloud(jobs=a_job(JobPhase.RUNNING)))
    run.cloud.trouble = trouble
    run.wait(since)
    assert run.decide().keeps_finalizer is holds


def test_the_finalizer_is_released_when_the_last_batch_of_a_deleted_object_ends() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(
        an_object(a_spec(A, B), status, deleted=NOW, finalizers=(FINALIZER,)), Cloud(jobs=a_job(JobPhase.RUNNING))
    )
    assert run.step().keeps_finalizer
    assert run.ready.message.startswith(f"waiting for batch 1 (job {JOB}) to end; at the latest 2026-01-02T0")
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    decision = run.step()
    assert (decision.keeps_finalizer, decision.intent, run.newest.phase) == (False, None, Phase.SUCCEEDED)


def test_a_failed_look_at_a_ready_object_keeps_the_finalizer_of_an_open_batch() -> None:
    """Suspended and done can be True while servers that left the list are still joining."""
    status = Status(1, last_batch=1, members=(B,), jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(an_object(a_spec(B, suspend=True), status), Cloud(active([B]), a_job(JobPhase.RUNNING)))
    run.annotate({FLUX: "one"})
    assert run.step().keeps_finalizer
    run.cloud.trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no connection")
    assert run.step().keeps_finalizer


def test_a_reset_beside_a_deletion_owes_no_removal_to_a_member_that_vanished() -> None:
    gone = a_failure(FailureReason.MEMBER_MISSING, A, attempts=0)
    holds = (Hold((A,), NOW),)
    stored = Status(1, last_batch=1, members=(A, B), joined=1, failed=1, desired=2, failures=(gone,), holds=holds)
    run = Run(an_object(a_spec(A, B, deletion=RemovalPolicy.REMOVE), stored, annotations={OURS: "x", OUR_RESET: "x"}))
    run.delete()
    status = acknowledge(run.membership, NOW, SETTINGS)
    assert (status.members, status.joined, status.pending, status.surplus) == ((B,), 1, 1, 1)
