"""The conditions of docs/lifecycle.md, row by row, and the rules of kstatus and Flux that hold for every row."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.names import FINALIZER, RECONCILE_ANNOTATIONS
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import Approval, RemovalPolicy, Spec
from nodepool_membership.api.status import Condition, Operation, Phase, Status
from nodepool_membership.core.conditions import verdict
from nodepool_membership.core.conditions.verdict import Verdict
from nodepool_membership.core.decision.decide import acknowledge
from nodepool_membership.core.decision.record import Accepted, NotNow, Refused
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import ClusterReport, JobPhase, PoolReport, Trouble
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
    a_wait,
    active,
    an_object,
    servers,
    used_up,
)

A, B, C = servers(3)
UNREACHABLE = Trouble(Reason.CLOUD_UNREACHABLE, "connect: connection refused")


def new() -> Run:
    run = Run(an_object(a_spec(A, B)))
    run.store(acknowledge(run.membership, NOW, SETTINGS))
    return run


def joining() -> Run:
    run = Run(an_object(a_spec(A, B)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.step()
    return run


def secret_missing() -> Run:
    run = new()
    run.cloud.trouble = Trouble(Reason.SECRET_NOT_FOUND, "create the Secret cce-credentials")
    run.step()
    return run


def throttled() -> Run:
    run = Run(an_object(a_spec(A, B)))
    run.step(NotNow(Reason.THROTTLED, "too many calls", 7.0))
    run.step()
    return run


def waiting_to_retry() -> Run:
    batch = a_batch(Phase.FAILED, finished=NOW)
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, retry=NOW + SECOND),)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,), failures=failures)))
    run.step()
    return run


def pool_not_ready() -> Run:
    run = Run(an_object(a_spec(A)))
    run.cloud.pool = PoolReport("Error")
    run.step()
    return run


def cluster_not_ready() -> Run:
    run = Run(an_object(a_spec(A)))
    run.cloud.cluster = ClusterReport("Upgrading")
    run.step()
    return run


def drifted() -> Run:
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, members=(A,))))
    run.step_thrice()
    return run


def two_causes() -> Run:
    run = Run(an_object(a_spec(A, B)))
    run.cloud.nodes = [a_node(A, "Error"), a_node(B, pool=ELSEWHERE)]
    run.step()
    return run


def suspended() -> Run:
    run = Run(an_object(a_spec(A, suspend=True)))
    run.step()
    return run


def suspended_done() -> Run:
    run = Run(an_object(a_spec(A, suspend=True), Status(1, last_batch=1, members=(A,))))
    run.cloud.nodes = active([A])
    run.step()
    return run


def done() -> Run:
    run = Run(an_object(a_spec(A)))
    run.cloud.nodes = active([A])
    run.step()
    return run


def empty() -> Run:
    run = Run(an_object(a_spec()))
    run.step()
    return run


def unreachable() -> Run:
    run = done()
    run.cloud.trouble = UNREACHABLE
    for _ in range(3):
        run.step()
    return run


def locked_out() -> Run:
    run = unreachable()
    run.cloud.trouble = Trouble(Reason.UNAUTHENTICATED, "the cloud does not accept the key")
    run.step()
    return run


def deleting() -> Run:
    batch = a_batch(Phase.RUNNING, A, job_id=JOB)
    status = Status(1, last_batch=1, jobs=(batch,))
    run = Run(an_object(a_spec(A), status, deleted=NOW, finalizers=(FINALIZER,)))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.step()
    return run


ROWS = [
    (new, "False", Reason.PROGRESSING, "Reconciling", Reason.PROGRESSING),
    (joining, "False", Reason.PROGRESSING, "Reconciling", Reason.PROGRESSING),
    (secret_missing, "False", Reason.SECRET_NOT_FOUND, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (throttled, "False", Reason.THROTTLED, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (waiting_to_retry, "False", FailureReason.NEVER_APPEARED, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (pool_not_ready, "False", Reason.POOL_NOT_READY, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (cluster_not_ready, "False", Reason.CLUSTER_NOT_READY, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (used_up, "False", FailureReason.NEVER_APPEARED, "Stalled", FailureReason.NEVER_APPEARED),
    (drifted, "False", FailureReason.MEMBER_MISSING, "Stalled", FailureReason.MEMBER_MISSING),
    (two_causes, "False", Reason.SERVERS_FAILED, "Stalled", Reason.SERVERS_FAILED),
    (suspended, "False", Reason.SUSPENDED, None, None),
    (suspended_done, "True", Reason.SUSPENDED, None, None),
    (done, "True", Reason.SUCCEEDED, None, None),
    (empty, "True", Reason.SUCCEEDED, None, None),
    (unreachable, "Unknown", Reason.CLOUD_UNREACHABLE, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (locked_out, "Unknown", Reason.UNAUTHENTICATED, "Reconciling", Reason.PROGRESSING_WITH_RETRY),
    (deleting, "False", Reason.DELETING, "Reconciling", Reason.DELETING),
]
ROW_NAMES = [row[0].__name__ for row in ROWS]


def test_the_cause_is_told_with_the_refusal_and_stays_while_its_retry_waits() -> None:
    run = Run(an_object(a_spec(A)))
    busy = Refused(refusal(400, "CCE.01400001", "the server is busy"), "the server is busy", "the server is busy")
    run.step(busy)
    for _ in range(2):
        assert (run.ready.reason, run.status.pending) == (FailureReason.REFUSED, 1)
        assert f"attempt 2 of 3 at {rfc3339(run.status.next_time or NOW)}" in run.ready.message
        run.step()


@pytest.mark.parametrize(("state", "ready", "reason", "also", "also_reason"), ROWS, ids=ROW_NAMES)
def test_the_state_table(
    state: Callable[[], Run],
    ready: str,
    reason: Reason | FailureReason,
    also: str | None,
    also_reason: Reason | FailureReason | None,
) -> None:
    status = state().status
    told = [(c.type, c.status, c.reason) for c in status.conditions]
    assert told == [("Ready", ready, reason), *([(also, "True", also_reason)] if also else [])]


@pytest.mark.parametrize("state", [row[0] for row in ROWS], ids=ROW_NAMES)
def test_every_state_carries_the_generation_and_a_message_everywhere(state: Callable[[], Run]) -> None:
    run = state()
    assert run.status.observed_generation == 1
    assert {c.observed_generation for c in run.status.conditions} == {1}
    assert all(c.message and c.last_transition_time for c in run.status.conditions)


@pytest.mark.parametrize("state", [row[0] for row in ROWS if row[0] is not new], ids=ROW_NAMES[1:])
def test_a_second_look_at_an_unchanged_world_changes_nothing(state: Callable[[], Run]) -> None:
    run = state()
    decision = run.decide()
    assert decision.intent is None
    assert decision.status == run.status


def test_a_transition_time_changes_with_the_status_only() -> None:
    run = joining()
    run.wait(timedelta(minutes=1))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.FAILED), [a_node(A), a_node(B, "Error")]
    run.step()
    assert (run.ready.reason, run.ready.last_transition_time) == (FailureReason.NODE_ERROR, NOW)
    stalled = run.condition("Stalled")
    assert stalled is not None
    assert stalled.last_transition_time == run.now
    run.wait(timedelta(minutes=1))
    run.cloud.nodes = active([A, B])
    run.step()
    assert (run.ready.status, run.ready.last_transition_time) == ("True", run.now)


def test_a_condition_without_a_transition_time_gets_one() -> None:
    default = Status(conditions=(Condition("Ready", "Unknown", Reason.PENDING),))
    told = Verdict("Unknown", Reason.PENDING, "not looked at yet")
    (ready,) = verdict.conditions(default, told, 1, NOW)
    assert ready.last_transition_time == NOW


def test_ready_is_never_true_for_a_generation_that_was_not_looked_at() -> None:
    run = done()
    run.edit(a_spec(A, B))
    status = acknowledge(run.membership, run.now, SETTINGS)
    assert (status.observed_generation, status.desired, status.joined, status.pending) == (2, 2, 1, 1)
    assert [(c.type, c.status) for c in status.conditions] == [("Ready", "False"), ("Reconciling", "True")]
    run.cloud.trouble = UNREACHABLE
    run.step()
    assert (run.ready.status, run.ready.reason) == ("False", Reason.CLOUD_UNREACHABLE)


def test_true_goes_with_no_abnormal_condition() -> None:
    with pytest.raises(ValueError, match="Ready=True goes with neither"):
        Verdict("True", Reason.SUCCEEDED, "done", "Reconciling")


def test_a_message_is_one_line_and_what_the_cloud_said_in_it_has_no_ids() -> None:
    told = verdict.waiting(Reason.FORBIDDEN, f"no right\nfor {A}")
    (ready, also) = verdict.conditions(Status(), told, 1, NOW)
    assert ready.message == also.message == f"no right for {A}"
    run = new()
    run.cloud.trouble = Trouble(Reason.FORBIDDEN, f"no right\nfor {A} (request {'0f' * 16})")
    run.step()
    assert run.ready.message == "no right for <id> (request <id>)"


@pytest.mark.parametrize("looks", [1, 2])
def test_a_ready_object_stays_ready_while_fewer_than_three_looks_failed(looks: int) -> None:
    run = done()
    before = run.status
    run.cloud.trouble = UNREACHABLE
    for _ in range(looks):
        run.wait(SECOND)
        assert run.step().status == before


def test_an_unreachable_cloud_ends_with_the_next_look() -> None:
    run = unreachable()
    run.wait(timedelta(minutes=5))
    assert "connection refused" in run.ready.message
    run.cloud.trouble = None
    run.step()
    assert (run.ready.status, run.ready.reason) == ("True", Reason.SUCCEEDED)


def test_one_failed_read_changes_nothing_that_is_told_of_open_batches_and_the_third_does() -> None:
    run = joining()
    run.cloud.trouble = UNREACHABLE
    for reason in (Reason.PROGRESSING, Reason.PROGRESSING, Reason.CLOUD_UNREACHABLE, Reason.CLOUD_UNREACHABLE):
        run.step()
        assert (run.ready.status, run.ready.reason) == ("False", reason)


def test_one_failed_read_during_a_wait_leaves_its_cause_told() -> None:
    run = throttled()
    run.cloud.trouble = UNREACHABLE
    run.step()
    assert run.ready.reason is Reason.THROTTLED


def test_a_new_object_tells_of_the_first_failed_look() -> None:
    run = new()
    run.cloud.trouble = UNREACHABLE
    run.step()
    assert (run.ready.status, run.ready.reason) == ("False", Reason.CLOUD_UNREACHABLE)


def test_a_suspended_object_with_the_cloud_away_is_not_reconciling() -> None:
    run = suspended()
    run.cloud.trouble = UNREACHABLE
    for _ in range(4):
        run.step()
    assert [(c.type, c.status, c.reason) for c in run.status.conditions] == [("Ready", "False", Reason.SUSPENDED)]
    assert "connection refused" in run.ready.message


@pytest.mark.parametrize("operation", Operation)
def test_a_wait_is_told_with_its_time_while_a_job_runs_if_there_is_something_that_waits(operation: Operation) -> None:
    job, wait = a_batch(Phase.RUNNING, B, job_id=JOB), a_wait(NOW + WINDOW, operation=operation)
    status = Status(1, last_batch=1, members=(A,), jobs=(job,), waits=(wait,), surplus_since=NOW)
    run = Run(an_object(a_spec(A, B, removal=RemovalPolicy.REMOVE), status), Cloud(jobs=a_job(JobPhase.RUNNING)))
    run.step()
    assert run.ready.reason is Reason.PROGRESSING
    ids = {A, B, C} if operation is Operation.ADD else {B}
    run.membership = replace(run.membership, spec=replace(run.membership.spec, server_ids=frozenset(ids)))
    run.step()
    assert run.ready.message == "why; next attempt at 2026-01-02T03:30:00Z"


@pytest.mark.parametrize("minutes", [5, 30])
def test_of_a_wait_and_another_attempt_the_later_one_is_told(minutes: int) -> None:
    retry = NOW + timedelta(minutes=10)
    until = NOW + timedelta(minutes=minutes)
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, retry=retry),)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, failures=failures, waits=(a_wait(until),))))
    run.step()
    assert run.status.next_time == max(until, retry)
    assert rfc3339(run.status.next_time) in run.ready.message
    assert run.ready.reason is (FailureReason.NEVER_APPEARED if until < retry else Reason.LOCKED)


@pytest.mark.parametrize("spec", [a_spec(A, suspend=True), replace(a_spec(A), approval=Approval.MANUAL)])
def test_what_was_planned_for_another_list_is_told_no_more_though_the_cloud_is_away(spec: Spec) -> None:
    run = Run(an_object(spec))
    plans = []
    for ids, trouble in (({A}, None), ({A, B, C}, UNREACHABLE)):
        run.edit(replace(spec, server_ids=frozenset(ids)))
        run.cloud.trouble = trouble
        run.step()
        plans.append(None if run.status.plan is None else run.status.plan.add)
    assert plans == [1, None]
    assert "would add 1" not in run.ready.message


def test_suspended_while_a_removal_is_under_way_is_not_ready() -> None:
    batch = replace(a_batch(Phase.RUNNING, B, job_id=JOB), operation=Operation.REMOVE, node_ids=(f"node-of-{B}",))
    status = Status(1, last_batch=1, members=(A,), jobs=(batch,))
    run = Run(an_object(a_spec(A, removal=RemovalPolicy.REMOVE, suspend=True), status), Cloud(active([A, B])))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.annotate({RECONCILE_ANNOTATIONS[0]: "now"})
    run.step()
    assert run.ready.status == "False"
    assert run.ready.message == "suspended; would add 0, adopt 0; 1 being removed and REINSTALLED"


def test_suspended_with_members_gone_is_not_ready() -> None:
    run = suspended_done()
    run.cloud.nodes = []
    run.step()
    assert (run.ready.status, run.ready.reason) == ("False", Reason.SUSPENDED)


@pytest.mark.parametrize("reason", [Reason.REGION_UNKNOWN, Reason.ENDPOINT_NOT_ALLOWED])
def test_what_only_a_person_can_change_is_stalled(reason: Reason) -> None:
    run = new()
    run.cloud.trouble = Trouble(reason, "set spec.nodePool.endpoint")
    run.step()
    assert [(c.type, c.reason) for c in run.status.conditions] == [("Ready", reason), ("Stalled", reason)]


def test_messages_tell_the_story() -> None:
    assert joining().ready.message == "0 of 2 servers joined, 2 joining in 1 batch"
    assert done().ready.message == "1 of 1 server is an Active member of the pool"
    assert empty().ready.message == "0 of 0 servers: the list is empty"
    assert used_up().ready.message == f"0 of 1 server joined, 1 failed; 1 NeverAppeared ({A}): why"
    assert two_causes().ready.message.endswith("; 1 more cause in status.failures")
    assert "Upgrading" in cluster_not_ready().ready.message


def test_a_server_that_somebody_else_is_installing_is_waited_for() -> None:
    run = Run(an_object(a_spec(A, B)))
    run.cloud.nodes = [a_node(A), a_node(B, "Installing", created=NOW)]
    decision = run.step()
    assert (decision.intent, run.status.pending) == (None, 1)
    assert run.ready.reason is FailureReason.INSTALLING
    assert run.ready.message.startswith(f"1 of 2 servers joined, 1 pending; 1 Installing ({B}): its node is Installing")
    assert "; waited for until 2026-01-02T04:00:00Z" in run.ready.message
