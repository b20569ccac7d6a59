"""When a deleted object is let go and whom it lets go of, and what a status that was given up waits for (P20, P24).

Not for: requests in general (`test_core_requests`).
"""

from datetime import timedelta

import pytest

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.decide import acknowledge
from nodepool_membership.core.decision.record import Accepted, NotNow
from nodepool_membership.core.observed.observation import ClusterReport, JobPhase, Trouble
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_job,
    a_spec,
    active,
    an_object,
    servers,
)
from unit.removal_builders import REMOVE, deleted, due, members, removal

A, B = servers(2)
OURS, OUR_RESET = "cce.nodepools.dev/reconcile-requested-at", "cce.nodepools.dev/reset-requested-at"
LIMIT = WINDOW + timedelta(seconds=3600)


@pytest.mark.parametrize("reason", [Reason.SECRET_NOT_FOUND, Reason.CREDENTIALS_INVALID])
def test_a_deleted_object_without_credentials_is_released_after_ten_minutes(reason: Reason) -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(an_object(a_spec(A), status, deleted=NOW, finalizers=(FINALIZER,)))
    run.cloud.trouble = Trouble(reason, "the Secret is gone")
    run.now = NOW + timedelta(minutes=10) - SECOND
    assert run.step().keeps_finalizer
    run.now = NOW + timedelta(minutes=10)
    assert not run.step().keeps_finalizer


def test_a_deleted_object_whose_cloud_is_away_is_held_for_longer() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(an_object(a_spec(A), status, deleted=NOW, finalizers=(FINALIZER,)))
    run.cloud.trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no connection")
    run.now = NOW + LIMIT - SECOND
    assert run.step().keeps_finalizer
    run.now = NOW + LIMIT
    assert not run.step().keeps_finalizer


def test_without_credentials_an_object_that_stays_keeps_its_finalizer() -> None:
    status = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = Run(an_object(a_spec(A), status, finalizers=(FINALIZER,)))
    run.cloud.trouble = Trouble(Reason.SECRET_NOT_FOUND, "the Secret is gone")
    run.now = NOW + timedelta(days=3)
    assert run.step().keeps_finalizer


def test_a_status_given_up_on_request_is_waited_out_whatever_stands_in_the_annotations() -> None:
    """Rule P24: the reset that gave it up does not end the wait; the next one does."""
    run = Run(an_object(a_spec(A), finalizers=(FINALIZER,), annotations={OURS: "one", OUR_RESET: "one"}))
    run.store(acknowledge(run.membership, run.now, SETTINGS))
    for _ in range(3):
        run.wait(timedelta(minutes=5))
        assert run.step().intent is None
        assert run.ready.reason is Reason.STATUS_LOST
    run.annotate({OURS: "two", OUR_RESET: "two"})
    assert run.step(Accepted(JOB)).intent is not None


@pytest.mark.parametrize(("removal_policy", "removed"), [(RemovalPolicy.RETAIN, (A,)), (REMOVE, (A,))])
def test_a_deletion_removes_nobody_whom_an_edit_before_it_released(
    removal_policy: RemovalPolicy, removed: tuple[str, ...]
) -> None:
    """Rule P18: the operator sees the edit and the deletion at once, as after a prune or while it was down.

    Also if the edit set Remove: whether B left before that or with it, nobody knows.
    """
    run = members(A, B, spec=a_spec(A, B, deletion=REMOVE))
    run.edit(a_spec(A, removal=removal_policy, deletion=REMOVE))
    run.delete()
    due(run)
    assert removal(run, Accepted(JOB)) == removed
    assert (run.status.members, run.status.surplus) == ((), 0)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active({A, B} - set(removed))
    assert not run.step().keeps_finalizer


def test_who_was_released_by_an_edit_holds_up_no_deletion() -> None:
    run = members(A, spec=a_spec(A, deletion=REMOVE))
    run.edit(a_spec(B, deletion=REMOVE))
    run.delete()
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer, run.status.members, run.status.surplus) == (None, False, (), 0)


def test_a_deletion_tells_why_the_removal_waits_and_tells_it_once() -> None:
    run = due(deleted(A))
    run.step(NotNow(Reason.LOCKED, "the cluster is busy"))
    assert (run.ready.status, run.ready.reason) == ("False", Reason.DELETING)
    (wait,) = run.status.waits
    assert run.ready.message == (
        f"1 member to be removed and REINSTALLED ({A}) from {rfc3339(wait.until)} on; spec.deletionPolicy: Retain stops"
        " it; at the latest"
        f" 2026-01-02T04:32:00Z; the cluster is busy; next attempt at {rfc3339(wait.until)}"
    )
    told = run.status
    assert run.step().intent is None
    assert run.status == told


def test_a_deletion_tells_what_is_in_the_way_of_a_removal() -> None:
    run = due(deleted(A))
    run.cloud.cluster = ClusterReport("Upgrading")
    run.step()
    assert run.ready.reason is Reason.DELETING
    assert "the cluster is in phase Upgrading" in run.ready.message
    run.cloud.cluster = ClusterReport("Available")
    run.step(Accepted(JOB))
    assert run.ready.message.startswith(f"waiting for batch 2 (job {JOB}) to end; at the latest 2026-01-02T04:32:00Z")


def test_a_deletion_waits_for_a_node_that_is_gone_as_long_as_an_earlier_call_may_act_on_its_server() -> None:
    run = members(A)
    run.cloud.nodes = []
    run.step_thrice()
    run.edit(a_spec(B))
    run.cloud.nodes = active([B])
    run.step()
    run.delete()
    gone = run.status.holds[0].since
    assert gone is not None
    run.now = gone + WINDOW - SECOND
    assert run.step().keeps_finalizer
    run.now = gone + WINDOW
    assert not run.step().keeps_finalizer
    assert not run.status.holds
