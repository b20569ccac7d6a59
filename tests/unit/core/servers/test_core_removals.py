"""What becomes of removals, and of the members of a deleted object (rules P18, P19, P20).

Not for: which members are removed when (`test_core_removing`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.membership import UnreadableStatus, parse_membership
from nodepool_membership.api.names import FINALIZER, MAX_OBJECT_BYTES, RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Operation, Phase, Status
from nodepool_membership.core.conditions.finalizer import Finalizer
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import Accepted, Answer, NotNow, NotSent, Refused, Unknown
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase, Node, PoolReport, Trouble
from nodepool_membership.core.planning import eligibility
from nodepool_membership.core.state.failures import MAX_GROUPS
from nodepool_membership.core.state.state import BYTES_PER_ID
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    WINDOW,
    Cloud,
    Run,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
)
from unit.removal_builders import (
    DELAY,
    FRESH,
    REMOVE,
    A,
    B,
    C,
    D,
    owing,
    removal,
    removing_spec,
)

# Outcomes


@pytest.mark.parametrize("answer", [None, Unknown("502 from a gateway")], ids=["killed", "lost"])
def test_a_removal_of_unknown_outcome_is_watched_and_not_repeated(answer: Answer | None) -> None:
    run = owing(A)
    run.wait(DELAY)
    assert removal(run, answer) == (A,)
    run.wait(timedelta(minutes=5))
    run.cloud.nodes[0] = a_node(A, "Deleting")
    assert run.step().schedule is Schedule.WATCH
    assert (run.newest.phase, run.status.surplus) == (Phase.VERIFYING, 0)
    run.cloud.nodes = active([D])
    run.step()
    assert (run.newest.phase, run.newest.server_ids) == (Phase.VERIFYING, (A,)), "nothing proves that it is over"
    run.wait(WINDOW - timedelta(minutes=5))
    run.step()
    assert (run.newest.phase, run.ready.status) == (Phase.SUCCEEDED, "True")


@pytest.mark.parametrize("answer", [None, Unknown("502 from a gateway")], ids=["killed", "lost"])
def test_a_removal_that_was_not_carried_out_is_owed_again_after_the_settle_window(answer: Answer | None) -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, answer)
    run.wait(WINDOW - SECOND)
    run.step()
    assert run.status.surplus == 0
    run.wait(SECOND)
    assert removal(run) == ()
    assert (run.newest.phase, run.status.surplus, run.status.members) == (Phase.FAILED, 1, (A, D))
    assert run.causes == {A: (FailureReason.REMOVAL_FAILED, 1)}
    run.wait(timedelta(minutes=2))
    intent = run.step().intent
    assert intent is not None
    assert (intent.server_ids, intent.attempt) == ((A,), 2)


def test_nodes_that_an_ended_job_left_are_watched_for_the_settle_window() -> None:
    run = owing(A, B)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([B, D])
    run.step()
    assert (run.newest.phase, run.newest.server_ids, run.newest.node_ids) == (
        Phase.VERIFYING,
        (B,),
        (f"node-of-{B}",),
    )
    run.wait(WINDOW)
    run.step()
    assert (run.newest.phase, run.newest.failed, run.status.members) == (Phase.PARTLY_FAILED, 1, (B, D))


def test_a_failed_job_gives_its_servers_back_and_explains_itself() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.FAILED, "the node has pods that cannot be evicted")
    assert removal(run) == ()
    assert (run.newest.phase, run.status.surplus) == (Phase.FAILED, 1)
    (group,) = run.status.failures
    assert "cannot be evicted" in group.message
    assert "CCE console" in group.message


def test_after_max_attempts_it_stalls_until_a_reset() -> None:
    run = owing(A, attempts=2)
    run.wait(DELAY)
    for attempt in (1, 2):
        assert removal(run, Accepted(JOB)) == (A,)
        run.cloud.jobs = a_job(JobPhase.FAILED, "no")
        run.step()
        assert run.causes == {A: (FailureReason.REMOVAL_FAILED, attempt)}
        run.wait(timedelta(minutes=15))
    assert removal(run) == ()
    stalled = run.condition("Stalled")
    assert stalled is not None
    assert stalled.reason is FailureReason.REMOVAL_FAILED
    assert "removalPolicy" in stalled.message
    assert run.status.surplus == 1
    run.annotate({RECONCILE_ANNOTATIONS[0]: "1", RESET_ANNOTATIONS[0]: "1"})
    assert removal(run) == (A,)


def test_what_is_stalled_ends_when_somebody_removed_the_node() -> None:
    run = owing(A, attempts=1)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.FAILED, "no")
    run.step()
    run.step()
    assert run.condition("Stalled") is not None
    run.cloud.nodes = active([D])
    run.step_thrice()
    assert (run.status.surplus, run.status.failures, run.ready.status) == (0, (), "True")


def test_a_failing_removal_pulls_no_brake_on_adds() -> None:
    run = owing(A, B, C)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.FAILED, "no")
    run.step()
    assert run.newest.failed == 3
    assert run.ready.reason is not Reason.TOO_MANY_FAILURES


@pytest.mark.parametrize(
    "answer",
    [
        NotSent("connection refused"),
        NotNow(Reason.LOCKED, "busy"),
        NotNow(Reason.THROTTLED, "too many", 30.0),
        Refused(refusal(403, "CCE.01403006"), "nodes are installing"),
    ],
    ids=["not sent", "locked", "throttled", "installing"],
)
def test_a_removal_that_is_not_for_now_costs_no_attempt_and_is_tried_again_after_a_wait(answer: Answer) -> None:
    run = owing(A)
    run.wait(DELAY)
    for _ in range(4):
        assert removal(run, answer) == (A,)
        assert (run.status.members, run.status.surplus, run.status.failures) == ((A, D), 1, ())
        assert run.status.surplus_since == NOW
        (wait,) = run.status.waits
        assert wait.operation is Operation.REMOVE
        moment = wait.until
        run.now = moment - SECOND
        assert removal(run) == ()
        run.wait(SECOND)


def test_an_edit_during_that_wait_is_honoured() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, NotNow(Reason.LOCKED, "busy"))
    run.edit(removing_spec(A, D))
    run.step()
    run.wait(WINDOW)
    assert removal(run) == ()
    assert run.status.joined == 2


@pytest.mark.parametrize("separately", [True, False])
@pytest.mark.parametrize("ends", [JobPhase.FAILED, JobPhase.SUCCEEDED])
def test_who_was_released_while_its_removal_was_under_way_is_not_removed_again(
    ends: JobPhase, *, separately: bool
) -> None:
    """Retain, then Remove again: a new word is about those who leave the list after it."""
    run = owing(A, B)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.edit(a_spec(D))
    if separately:
        run.step()
    run.edit(removing_spec(D))
    run.step()
    run.cloud.jobs = a_job(ends, "no")
    for _ in range(3):
        run.wait(WINDOW + DELAY)
        assert removal(run) == ()
    assert (run.status.members, run.status.surplus, run.causes) == ((D,), 0, {})


def test_who_was_put_back_while_its_removal_was_under_way_and_left_again_is_owed() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    for spec in (a_spec(D), a_spec(A, D), removing_spec(A, D), removing_spec(D)):
        run.edit(spec)
        run.step()
    run.cloud.jobs = a_job(JobPhase.FAILED, "no")
    run.step()
    run.wait(WINDOW + DELAY)
    assert removal(run) == (A,)


def test_a_refused_removal_costs_an_attempt_and_blames_the_call_with_its_remedy() -> None:
    run = owing(A, B)
    run.wait(DELAY)
    removal(run, Refused(refusal(403, "CCE.01403001"), "forbidden"))
    assert run.causes == dict.fromkeys((A, B), (FailureReason.REMOVAL_FAILED, 1))
    assert run.ready.reason is Reason.FORBIDDEN
    assert "cce:node:remove" in run.ready.message
    assert not run.status.jobs[-1].is_open


def test_a_refusal_about_a_node_is_not_narrowed_down() -> None:
    run = owing(A, B)
    run.wait(DELAY)
    removal(run, Refused(refusal(400, "CCE.01400001"), f"node of {A} is bad", f"node of {A} is bad"))
    assert [b.phase for b in run.status.jobs] == [Phase.REFUSED]
    assert set(run.causes) == {A, B}


def test_an_overdue_job_is_followed_to_its_end_also_when_all_nodes_are_gone() -> None:
    run = owing(A, B)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.RUNNING), active([B, D])
    run.wait(timedelta(hours=3))
    run.step()
    assert (run.newest.phase, run.newest.server_ids, run.newest.finish_time) == (Phase.RUNNING, (A, B), None)
    assert run.ready.reason is Reason.JOB_OVERDUE
    run.cloud.nodes = active([D])
    run.step()
    assert run.newest.phase is Phase.RUNNING
    run.edit(removing_spec(A, D))
    assert run.step().intent is None, "a server that a removal may still act on is not added"
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.step()
    assert run.status.jobs[0].phase is Phase.SUCCEEDED


def test_no_next_attempt_is_told_of_a_removal_that_has_none_left() -> None:
    run = owing(A, attempts=1)
    run.wait(DELAY)
    run.step(Refused(refusal(400, ""), "no"))
    assert run.status.waits
    assert "next attempt" not in run.ready.message
    run.step()
    assert run.condition("Stalled") is not None
    assert run.ready.reason is FailureReason.REMOVAL_FAILED


def test_a_listing_that_disagrees_with_the_pools_count_proves_no_removal() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes, run.cloud.pool = a_job(JobPhase.SUCCEEDED), active([D]), PoolReport("", 2)
    run.step()
    assert (run.newest.phase, run.newest.server_ids) == (Phase.VERIFYING, (A,))
    run.cloud.pool = PoolReport("", 1)
    run.step()
    assert run.newest.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("suspend", [False, True])
def test_while_one_removal_is_looked_for_no_other_starts_without_a_place_or_while_suspended(suspend: bool) -> None:
    run = owing(A, B, batch_size=1)
    run.wait(DELAY)
    assert removal(run, Unknown("lost")) == (A,)
    if suspend:
        run.edit(replace(removing_spec(D, batch_size=1, suspend=True), max_parallel_jobs=2))
        run.step()
        run.wait(DELAY)
    assert removal(run) == ()
    assert FRESH in run.looks
    assert run.status.surplus == 1


def test_a_wait_is_kept_also_while_another_removal_is_looked_for() -> None:
    run = owing(A, B, batch_size=1)
    run.edit(replace(run.membership.spec, max_parallel_jobs=2))
    run.step()
    run.wait(DELAY)
    assert removal(run, Unknown("lost")) == (A,)
    assert removal(run, NotNow(Reason.LOCKED, "busy")) == (B,)
    assert removal(run) == ()
    assert FRESH in run.looks


def test_a_removal_whose_outcome_might_not_fit_is_not_called() -> None:
    run = owing(A)
    run.wait(DELAY)
    room = MAX_OBJECT_BYTES - (MAX_GROUPS + 1) * eligibility.BYTES_PER_OUTCOME - 2 * BYTES_PER_ID
    run.membership = replace(run.membership, wire_bytes=room + 1)
    assert removal(run) == ()
    assert run.ready.reason is Reason.STATUS_FULL
    run.membership = replace(run.membership, wire_bytes=room)
    assert removal(run) == (A,)


# Deletion


def test_under_deletion_policy_remove_the_finalizer_is_on_a_settled_object() -> None:
    for policy, held in ((REMOVE, (FINALIZER,)), (RemovalPolicy.RETAIN, ())):
        run = Run(an_object(a_spec(A, deletion=policy)), Cloud(active([A])))
        assert run.step().finalizer is (Finalizer.ON if held else Finalizer.OFF)
        assert run.membership.metadata.finalizers == held
        assert run.ready.status == "True"
        run.step()
        assert run.membership.metadata.finalizers == held


def test_a_look_that_fails_does_not_take_that_finalizer_off() -> None:
    run = Run(an_object(a_spec(A, deletion=REMOVE)), Cloud(active([A])))
    run.step()
    run.cloud.trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no route")
    assert run.step().keeps_finalizer


def test_a_lost_status_removes_nobody() -> None:
    run = owing(A)
    run.store(Status())
    run.membership = replace(run.membership, metadata=replace(run.membership.metadata, finalizers=(FINALIZER,)))
    run.wait(DELAY)
    for _ in range(5):
        assert removal(run) == ()
        run.wait(WINDOW)
    assert run.status.members == (D,)


def test_a_removal_whose_ids_do_not_match_its_nodes_is_a_status_that_cannot_be_understood() -> None:
    raw = (
        '{"metadata": {"name": "a", "namespace": "b", "uid": "c", "resourceVersion": "1", "generation": 1,'
        ' "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodePool": {"projectID": "p", "clusterID": "c",'
        ' "nodePoolID": "n"}, "credentialsRef": {"name": "s"}, "serverIDs": []}, "status": {"jobs": [{"batch": 1,'
        ' "operation": "Remove", "attempt": 1, "phase": "Running", "servers": 1, "serverIDs": ["a"]}]}}'
    )
    found = parse_membership(raw.encode())
    assert isinstance(found, UnreadableStatus)
    assert "as many nodeIDs as serverIDs" in found.problem


@pytest.mark.parametrize(
    ("node", "why"), [(a_node(A, "Upgrading"), "Upgrading"), (replace(a_node(A), uid=""), "several nodes")]
)
def test_why_a_member_is_not_removed_yet_is_told_as_long_as_that_is_so(node: Node, why: str) -> None:
    run = owing(A)
    run.cloud.nodes = [*active([D]), node]
    run.wait(DELAY)
    decision = run.step()
    assert (decision.intent, decision.schedule) == (None, Schedule.BACKOFF)
    assert f"1 member to be removed cannot be yet ({why})" in run.ready.message
    run.cloud.nodes = active([A, D])
    assert removal(run) == (A,)


def test_a_removal_waits_until_all_memberships_were_read_and_says_so() -> None:
    run = owing(A)
    run.rivals = None
    run.wait(DELAY)
    assert run.step().intent is None
    assert run.ready.reason is Reason.STARTING
