"""NEXT: empty where nothing is planned or no time is known, and otherwise the time at which something happens."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from nodepool_membership.api.membership import FieldsOwner
from nodepool_membership.api.names import APPROVED_PLAN_ANNOTATION, PAUSED_ANNOTATION
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import Approval, RemovalPolicy
from nodepool_membership.api.status import Batch, Halt, Hold, Phase, Recovery, Status
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import Accepted, NotNow, Refused, Unknown
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase, JobReport, NamespaceState, Trouble
from nodepool_membership.core.observed.rivals import Rival
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    running,
    servers,
)

A, B, C = servers(3)


def refused_for_the_moment() -> Run:
    run = Run(an_object(a_spec(A, B)))
    run.step(NotNow(Reason.LOCKED, "another task is under way", 60.0))
    return run


def test_nothing_is_planned_while_a_job_runs_and_when_all_is_done() -> None:
    run = running(A)
    assert run.status.next_time is None
    run.step()
    assert run.status.next_time is None
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    run.step()
    assert (run.ready.status, run.status.next_time) == ("True", None)


def test_the_next_add_is_when_its_wait_is_over_and_then_it_is_made() -> None:
    run = refused_for_the_moment()
    assert run.status.next_time == run.status.waits[0].until == NOW + timedelta(seconds=60)
    run.wait(timedelta(seconds=59))
    assert run.step().intent is None
    assert run.status.next_time == NOW + timedelta(seconds=60)
    run.wait(SECOND)
    assert run.step(Accepted(JOB)).intent is not None
    assert run.status.next_time is None


def test_the_next_attempt_of_a_failed_server_is_one_and_what_is_used_up_is_none() -> None:
    retry = NOW + timedelta(minutes=1)
    batch = a_batch(Phase.FAILED, finished=NOW)
    failures = (
        a_failure(FailureReason.NEVER_APPEARED, A, retry=retry),
        a_failure(FailureReason.NEVER_APPEARED, B, attempts=3),
    )
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, jobs=(batch,), failures=failures)))
    run.step()
    assert run.status.next_time == retry


def test_a_settle_window_ends_at_a_known_time() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(Unknown("no answer"))
    assert run.status.next_time == NOW + WINDOW
    run = running(A)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.wait(SECOND)
    run.step()
    assert run.status.next_time == NOW + SECOND + WINDOW


def test_servers_whose_nodes_are_waited_for_count_as_failed_at_a_known_time() -> None:
    run = Run(an_object(a_spec(A, B)))
    run.cloud.nodes = [a_node(A), a_node(B, "Installing", created=NOW)]
    run.step()
    assert run.status.next_time == NOW + timedelta(hours=1)


def owing() -> Run:
    spec = a_spec(A, B, removal=RemovalPolicy.REMOVE)
    run = Run(an_object(spec, Status(1, last_batch=1, members=(A, B))))
    run.cloud.nodes = active([A, B])
    run.step()
    run.wait(SECOND)
    run.edit(replace(spec, server_ids=frozenset({A})))
    run.step()
    return run


def test_a_removal_begins_after_its_delay() -> None:
    run = owing()
    assert run.status.next_time == NOW + SECOND + SETTINGS.removal_delay
    run.wait(SETTINGS.removal_delay)
    assert run.step(Accepted(JOB)).intent is not None
    assert run.status.next_time is None


@pytest.mark.parametrize("run", [refused_for_the_moment(), owing()], ids=["add", "removal"])
def test_whoever_pauses_sees_that_nothing_is_planned_any_more(run: Run) -> None:
    run.annotate({PAUSED_ANNOTATION: "incident 42"})
    run.step()
    assert run.ready.reason is Reason.PAUSED
    assert run.status.next_time is None
    assert "incident 42" in run.ready.message


def test_a_removal_waits_for_the_end_of_the_wait_after_a_lost_status_and_that_is_told() -> None:
    run = owing()
    end = NOW + WINDOW
    run.store(replace(run.status, recovery=Recovery(NOW, end)))
    for _ in range(2):
        run.step()
        assert (run.ready.reason, run.status.next_time) == (Reason.STATUS_LOST, end)
        run.wait(SETTINGS.removal_delay)
    run.now = end
    assert run.step(Accepted(JOB)).intent is not None


def test_a_removal_waits_for_the_job_of_its_server_to_end_and_that_is_told() -> None:
    spec = a_spec(A, B, removal=RemovalPolicy.REMOVE)
    run = Run(an_object(spec))
    run.step(Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.RUNNING), active([A, B])
    run.wait(timedelta(hours=2))
    run.step()
    run.edit(replace(spec, server_ids=frozenset({A})))
    for _ in range(2):
        run.step()
        assert (run.ready.reason, run.status.surplus, run.status.next_time) == (Reason.JOB_OVERDUE, 1, None)
        run.wait(SETTINGS.removal_delay)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    assert run.step(Accepted(JOB)).intent is not None


def test_what_waits_for_a_running_job_to_make_room_has_no_time() -> None:
    spec = replace(a_spec(A, B, removal=RemovalPolicy.REMOVE), max_parallel_jobs=1)
    run = Run(an_object(spec))
    run.step(Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B])
    run.step()
    run.edit(replace(spec, server_ids=frozenset({A, C})))
    run.step(Accepted("second"))
    run.cloud.jobs = {"second": JobReport("second", JobPhase.RUNNING)}
    run.step()
    assert (run.status.surplus, len(run.status.open_batches), run.status.next_time) == (1, 1, None)
    run.edit(replace(run.membership.spec, max_parallel_jobs=2))
    run.step()
    assert run.status.surplus_since is not None
    assert run.status.next_time == run.status.surplus_since + SETTINGS.removal_delay


@pytest.mark.parametrize("namespace", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_a_paused_removal_is_told_from_no_moment_on_and_that_it_is_paused_before_its_delay_is_over(
    *, gone: bool, namespace: bool
) -> None:
    run = owing()
    if gone:
        run.edit(replace(run.membership.spec, server_ids=frozenset({A, B}), deletion_policy=RemovalPolicy.REMOVE))
        run.delete()
    if namespace:
        run.cloud.namespace_state = NamespaceState(paused="incident 42")
    else:
        run.annotate({PAUSED_ANNOTATION: "incident 42"})
    run.step()
    assert run.status.surplus
    assert run.status.next_time is None
    assert "incident 42" in run.ready.message
    assert " from 2" not in run.ready.message
    run.cloud.namespace_state = NamespaceState()
    run.annotate({})
    run.step()
    assert run.status.next_time == NOW + SECOND + SETTINGS.removal_delay


def test_a_paused_object_is_not_worked_before_it_changes_or_the_resync_is_due() -> None:
    run = Run(an_object(a_spec(A)))
    run.annotate({PAUSED_ANNOTATION: "incident 42"})
    assert run.step().schedule is Schedule.RESYNC
    run.rivals = {A: Rival("team/other", better=True)}
    assert run.step().schedule is Schedule.RESYNC


def test_a_paused_namespace_plans_nothing() -> None:
    run = Run(an_object(a_spec(A)))
    run.cloud.namespace_state = NamespaceState(paused="incident 42")
    run.step()
    assert (run.ready.reason, run.status.next_time) == (Reason.PAUSED, None)


def test_a_suspended_or_halted_one_plans_nothing() -> None:
    run = refused_for_the_moment()
    run.store(replace(run.status, halt=Halt(Reason.TOO_MANY_FAILURES, "3 of 10", NOW)))
    run.step()
    assert run.status.next_time is None
    run = refused_for_the_moment()
    run.membership = replace(run.membership, spec=replace(run.membership.spec, suspend=True))
    run.step()
    assert run.status.next_time is None


def test_what_only_a_person_ends_plans_nothing() -> None:
    run = refused_for_the_moment()
    run.cloud.trouble = Trouble(Reason.ENDPOINT_NOT_ALLOWED, "not on the allow list")
    for _ in range(3):
        run.step()
    assert run.status.next_time is None


def test_what_no_approval_covers_has_no_time() -> None:
    manual = replace(a_spec(A, B, removal=RemovalPolicy.REMOVE), approval=Approval.MANUAL)
    retry = NOW + timedelta(minutes=1)
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, retry=retry),)
    run = Run(an_object(manual, Status(1, last_batch=1, failures=failures)))
    run.step()
    assert (run.ready.reason, run.status.next_time) == (Reason.AWAITING_APPROVAL, None)
    assert run.status.plan is not None
    run.annotate({APPROVED_PLAN_ANNOTATION: run.status.plan.id})
    run.cloud.write_wait = 300.0
    run.step()
    assert run.status.approved_plan is not None
    run.store(replace(run.status, members=(B,)))
    run.cloud.nodes = active([B])
    run.step()
    assert run.status.next_time == retry
    run = owing()
    run.edit(replace(manual, server_ids=frozenset({A})))
    run.step()
    assert (run.status.surplus, run.status.next_time) == (1, None)
    assert "from 2" not in run.ready.message


def test_a_refused_removal_has_the_time_of_its_wait_and_one_without_an_attempt_left_has_none() -> None:
    run = owing()
    run.wait(SETTINGS.removal_delay)
    run.step(Refused(refusal(403, "CCE.01403001"), "no right"))
    (wait,) = run.status.waits
    assert run.status.next_time == wait.until
    run = owing()
    run.edit(replace(run.membership.spec, max_attempts=1))
    run.step()
    run.wait(SETTINGS.removal_delay)
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.FAILED)
    run.wait(SECOND)
    run.step()
    assert (run.ready.reason, run.status.next_time) == (FailureReason.REMOVAL_FAILED, None)
    assert "attempt" not in run.ready.message.split("; ")[-1]


def test_no_attempt_is_told_of_that_is_not_made() -> None:
    """A limit that was lowered, a server that is another's, and a time that is over."""
    retry = NOW + timedelta(minutes=1)
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, attempts=2, retry=retry),)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, failures=failures, members=(B,))))
    run.cloud.nodes = active([B])
    run.step()
    assert "; attempt 3 of 3 at 2026-01-02T03:01:00Z" in run.ready.message
    run.rivals = {A: Rival("team/other", better=True)}
    run.step()
    assert (run.ready.reason, run.status.next_time) == (Reason.CONFLICT, None)
    assert "attempt" not in run.ready.message
    run.rivals = {}
    run.edit(replace(run.membership.spec, max_attempts=2))
    run.step()
    assert (run.status.failed, run.status.next_time) == (1, None)
    assert "attempt" not in run.ready.message


def test_a_place_in_the_write_budget_is_told_once_not_at_each_look() -> None:
    run = Run(an_object(a_spec(A)))
    run.cloud.write_wait = 40.4
    run.step()
    told = run.status.next_time
    assert told is not None
    assert timedelta(seconds=40) < told - NOW < timedelta(seconds=42)
    run.wait(10 * SECOND)
    run.cloud.write_wait = 30.9
    before = run.status
    run.step()
    assert run.status == before
    run.cloud.write_wait = 5.0
    run.wait(25 * SECOND)
    run.step()
    assert run.status == before, "what was told stays until it is over, or is not so any more"
    run.cloud.write_wait = 12.0
    run.step()
    assert run.status.next_time is None, "who waits for seconds need not be told"


def calls(*times: datetime, **more: object) -> tuple[Batch, ...]:
    """Finished ones, by when they were sent."""
    made = [a_batch(Phase.SUCCEEDED, number=n, submitted=t, finished=t) for n, t in enumerate(times, 1)]
    return tuple(replace(batch, **more) for batch in made)  # type: ignore[arg-type]


def waiting_for_a_place(status: Status, edited: datetime | None = NOW, **spec: int) -> str:
    """The message about the write budget of one with five servers to add, two a call."""
    mine = an_object(a_spec(*servers(5), batch_size=spec.get("batch_size", 2)), status)
    if edited is not None:
        owner = FieldsOwner("kubectl", edited, fields_v1={"f:spec": {}})
        mine = replace(mine, metadata=replace(mine.metadata, managed_fields=(owner,)))
    run = Run(mine)
    run.cloud.write_wait = 20.4
    run.step()
    return run.ready.message.partition("; ")[2]


@pytest.mark.parametrize(
    ("made", "last", "told"),
    [
        ((), 0, "call 1 of 3"),
        (calls(NOW), 1, "call 2 of 4"),
        (calls(NOW, NOW), 2, "call 3 of 5"),
        (calls(NOW - SECOND, NOW), 2, "call 2 of 4"),
        (calls(NOW, phase=Phase.REFUSED), 1, "call 1 of 3"),
        (calls(NOW - SECOND, NOW - SECOND)[1:], 2, "call 1 of 3"),
        (calls(NOW, NOW)[1:], 2, "the next of 3 more calls"),
        ((), 2, "the next of 3 more calls"),
    ],
)
def test_which_call_comes_next_is_told_as_of_those_since_the_last_edit(
    made: tuple[Batch, ...], last: int, told: str
) -> None:
    """Where older ones are not stored any more, only those that are still to be made are counted."""
    text = waiting_for_a_place(Status(1, last_batch=last, jobs=made))
    assert text == f"{told} at 2026-01-02T03:00:21Z: the write budget has no place before"


def test_which_call_comes_next_is_told_without_a_known_edit_and_of_one() -> None:
    one = Status(1, last_batch=1, jobs=calls(NOW))
    assert waiting_for_a_place(one, None).startswith("the next of 3 more calls at")
    assert waiting_for_a_place(one, None, batch_size=5).startswith("1 more call at")
    assert waiting_for_a_place(one, batch_size=5).startswith("call 2 of 2 at")


def test_a_removal_that_waits_for_a_place_is_told_with_its_number() -> None:
    run = owing()
    run.wait(SETTINGS.removal_delay)
    run.cloud.write_wait = 20.4
    run.step()
    assert "; 1 more removal call at 2026-01-02T03:02:22Z: the write budget has no place before" in run.ready.message


@pytest.mark.parametrize("earlier", [9, 2])
def test_a_place_in_the_write_budget_is_told_only_while_nothing_comes_before_it(earlier: int) -> None:
    """Or nearly at the same time: the next look would not know it again."""
    run = Run(an_object(a_spec(A, B)))
    run.cloud.write_wait = 20.4
    run.step()
    told = run.status.next_time
    assert told is not None
    assert "call 1 of 1 at" in run.ready.message
    run.wait(10 * SECOND)
    run.cloud.write_wait = 10.4
    until = told - earlier * SECOND
    waited_for = a_failure(FailureReason.INSTALLING, B, attempts=0, retry=until)
    run.store(replace(run.status, failures=(waited_for,), holds=(Hold((B,)),)))
    run.step()
    before = run.status
    assert before.next_time == until
    assert "write budget" not in run.ready.message
    run.step()
    assert run.status == before
