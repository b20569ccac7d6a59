"""Which members are removed, and when (rule P18, promise 5).

Not for: what becomes of a removal, or deletion (`test_core_removals`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.names import RECONCILE_ANNOTATIONS
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import RemovalPolicy, Spec
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    NodeTable,
    Observation,
    PoolReport,
    Query,
    Trouble,
)
from nodepool_membership.core.planning.removing import due
from nodepool_membership.core.state.state import State
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    Cloud,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
)
from unit.removal_builders import (
    DELAY,
    FRESH,
    HOME,
    RECENT,
    WRITE,
    A,
    B,
    C,
    D,
    members,
    owing,
    removal,
    removing_spec,
)

# When


def test_a_member_that_leaves_the_list_is_released_at_once_under_retain() -> None:
    run = members(A, D, spec=a_spec(A, D))
    run.edit(a_spec(D))
    run.step()
    assert (run.status.members, run.status.surplus, run.status.surplus_since) == ((D,), 0, None)
    run.edit(removing_spec(D))
    run.wait(2 * DELAY)
    assert removal(run) == ()


def test_a_member_that_leaves_the_list_is_owed_and_removed_after_the_delay_by_its_nodes_uid() -> None:
    run = owing(A)
    assert (run.status.members, run.status.surplus, run.status.surplus_since) == ((A, D), 1, NOW)
    assert (run.ready.status, run.ready.reason) == ("False", Reason.PROGRESSING)
    assert f"1 member to be removed and REINSTALLED ({A}) from 2026-01-02T03:02:00Z on; back on" in run.ready.message
    run.wait(DELAY - SECOND)
    assert run.step().delay == 1.0
    run.wait(SECOND)
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert (intent.operation, intent.server_ids, intent.node_ids) == (Operation.REMOVE, (A,), (f"node-of-{A}",))
    assert (intent.batch, intent.attempt, intent.submit_time) == (2, 1, run.now)
    assert run.looks == [FRESH, HOME, WRITE]
    assert (run.status.members, run.status.surplus) == ((D,), 0)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([D])
    run.step()
    assert (run.newest.phase, run.newest.server_ids, run.newest.node_ids) == (Phase.SUCCEEDED, (), ())
    assert (run.ready.status, run.ready.reason, run.status.surplus_since) == ("True", Reason.SUCCEEDED, None)


def test_no_delay_removes_at_once_but_not_before_the_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.core_builders.SETTINGS", replace(SETTINGS, removal_delay=timedelta(0)))
    run = members(A, D)
    run.edit(removing_spec(D))
    assert removal(run) == (A,)


def test_who_comes_back_before_the_call_is_a_member_as_before() -> None:
    run = owing(A)
    run.wait(DELAY - SECOND)
    run.edit(removing_spec(A, D))
    run.step()
    run.wait(DELAY)
    assert removal(run) == ()
    assert (run.status.members, run.status.surplus, run.status.joined) == ((A, D), 0, 2)
    assert (run.ready.status, run.status.surplus_since) == ("True", None)


def test_the_wait_begins_anew_when_more_become_owed_and_when_one_takes_anothers_place() -> None:
    run = members(A, B, D)
    run.edit(removing_spec(B, D))
    run.step()
    run.wait(DELAY - SECOND)
    run.edit(removing_spec(A, D))
    assert removal(run) == ()
    assert run.status.surplus_since == run.now
    run.wait(DELAY - SECOND)
    assert removal(run) == ()
    run.wait(SECOND)
    assert removal(run) == (B,)


def test_a_restart_neither_shortens_nor_lengthens_the_wait() -> None:
    run = owing(A)
    run.wait(DELAY - SECOND)
    run = Run(run.membership, run.cloud, run.now)
    assert removal(run) == ()
    run.wait(SECOND)
    assert removal(run) == (A,)


def test_a_time_in_the_future_counts_as_now() -> None:
    run = owing(A)
    run.store(replace(run.status, surplus_since=NOW + timedelta(days=1)))
    run.wait(10 * DELAY)
    assert run.step().delay == DELAY.total_seconds()


@pytest.mark.parametrize("spec", [a_spec(D), removing_spec(D, suspend=True)], ids=["Retain", "suspended"])
def test_retain_and_suspend_stop_a_removal_that_was_not_called_yet(spec: Spec) -> None:
    run = owing(A)
    run.wait(DELAY)
    run.edit(spec)
    assert removal(run) == ()
    run.wait(2 * DELAY)
    assert removal(run) == ()
    assert run.status.members == ((A, D) if spec.suspend else (D,))
    if spec.suspend:
        assert "would remove 1" in run.ready.message
        run.edit(removing_spec(D))
        run.step()
        run.wait(DELAY)
        assert removal(run) == (A,)


# Whom


def test_only_recorded_members_are_removed() -> None:
    run = owing(A)
    run.cloud.nodes += active([B, C])
    run.wait(DELAY)
    assert removal(run) == (A,)


@pytest.mark.parametrize("phase", ["Installing", "Deleting", "Upgrading"])
def test_a_node_that_is_on_its_way_is_waited_for(phase: str) -> None:
    run = owing(A)
    run.cloud.nodes[0] = a_node(A, phase)
    run.wait(DELAY)
    assert removal(run) == ()
    assert run.status.surplus == 1
    run.cloud.nodes[0] = a_node(A, "Abnormal")
    assert removal(run) == (A,)


def test_a_node_in_another_pool_is_no_longer_ours() -> None:
    run = owing(A)
    run.cloud.nodes[0] = a_node(A, pool=ELSEWHERE)
    run.wait(DELAY)
    assert removal(run) == ()
    assert (run.status.members, run.status.surplus, run.ready.status) == ((D,), 0, "True")


def test_an_owed_member_without_a_node_is_dropped_by_the_rule_of_drift() -> None:
    run = owing(A)
    run.cloud.nodes = active([D])
    run.wait(DELAY)
    run.step()
    assert run.status.surplus == 1
    run.step_thrice()
    assert (run.status.members, run.status.surplus, run.ready.status) == ((D,), 0, "True")


def test_failures_of_adds_off_the_list_stay_known_and_owe_nothing() -> None:
    status = Status(1, last_batch=1, members=(D,), failures=(a_failure(FailureReason.REFUSED, A, attempts=2),))
    run = Run(an_object(removing_spec(D), status), Cloud(active([D])))
    run.wait(DELAY)
    assert removal(run) == ()
    assert (run.causes, run.status.surplus) == ({A: (FailureReason.REFUSED, 2)}, 0)
    run.cloud.nodes = active([A, D])
    run.wait(DELAY)
    assert removal(run) == ()
    assert (run.causes, run.status.surplus) == ({}, 0)


def test_a_mass_disappearance_of_members_removes_nobody() -> None:
    run = members(A, B, C, D)
    run.cloud.nodes = []
    run.step_thrice()
    assert run.ready.reason is FailureReason.LISTING_IMPLAUSIBLE
    run.wait(10 * DELAY)
    assert removal(run) == ()
    assert (run.status.members, run.status.surplus) == ((A, B, C, D), 0)


def test_a_listing_begun_before_the_object_was_read_removes_nobody() -> None:
    run = owing(A)
    run.wait(DELAY)
    run.decide()
    assert FRESH in run.looks
    assert RECENT not in run.looks


def test_batches_hold_batch_size_servers_and_share_the_places_for_jobs_with_adds() -> None:
    run = owing(A, B, C, batch_size=2)
    run.wait(DELAY)
    assert removal(run, Accepted(JOB)) == (A, B)
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    assert removal(run) == ()
    assert (run.status.surplus, run.looks) == (1, [Query(jobs=(JOB,))])


def test_adds_come_first() -> None:
    run = members(A, D)
    run.edit(removing_spec(B, D))
    run.cloud.write_wait = 1.0
    run.step()
    run.wait(DELAY)
    run.cloud.write_wait = 0.0
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert (intent.operation, intent.server_ids) == (Operation.ADD, (B,))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B, D])
    assert removal(run) == (A,)


@pytest.mark.parametrize(
    "cloud",
    [{"write_wait": 7.0}, {"pool": PoolReport("", current_nodes=9)}, {"trouble": Trouble(Reason.THROTTLED, "no")}],
)
def test_what_is_in_the_way_of_adds_is_in_the_way_of_removals(cloud: dict[str, object]) -> None:
    run = owing(A)
    run.wait(DELAY)
    for name, value in cloud.items():
        setattr(run.cloud, name, value)
    assert removal(run) == ()
    assert run.status.surplus == 1


# Ids in an open removal


def test_who_comes_back_during_the_removal_is_pending_and_added_only_when_the_node_is_gone() -> None:
    run = owing(A)
    run.wait(DELAY)
    assert removal(run, Accepted(JOB)) == (A,)
    run.edit(removing_spec(A, D))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    assert run.step().intent is None
    assert (run.status.members, run.status.pending, run.status.joined, run.status.desired) == ((D,), 1, 1, 2)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), [a_node(A, "Deleting"), *active([D])]
    assert run.step().intent is None
    run.cloud.nodes = active([D])
    intent = run.step().intent
    assert intent is not None
    assert (intent.operation, intent.server_ids) == (Operation.ADD, (A,))


def test_who_comes_back_and_keeps_the_node_is_a_member_again() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.edit(removing_spec(A, D))
    run.cloud.jobs = a_job(JobPhase.FAILED, "no")
    run.step()
    assert (run.status.members, run.status.joined, run.status.failures) == ((A, D), 2, ())
    assert run.ready.status == "True"


def test_a_server_that_is_a_node_anew_is_not_the_one_that_was_removed() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.cloud.nodes[0] = replace(a_node(A), uid="another")
    run.step()
    assert (run.newest.phase, run.status.members) == (Phase.SUCCEEDED, (D,))


def test_who_comes_back_during_the_removal_is_not_adopted_by_the_node_that_is_still_there() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.edit(removing_spec(A, D))
    run.annotate({RECONCILE_ANNOTATIONS[0]: "1"})
    run.step()
    assert FRESH in run.looks
    assert (run.status.members, run.status.pending) == ((D,), 1)


def test_who_comes_back_is_not_added_while_the_removal_is_open_though_its_node_is_gone() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.RUNNING), active([D])
    run.edit(replace(removing_spec(A, B, D), max_parallel_jobs=2))
    intent = run.step().intent
    assert intent is not None
    assert (intent.operation, intent.server_ids) == (Operation.ADD, (B,))


# What `due` says by itself, whatever was sorted out before it


def what_is_due(run: Run, seen: Observation, *batches: Batch) -> set[str]:
    state = State.of(run.status)
    state = replace(state, members=frozenset({D}), surplus=frozenset({A}), batches=batches)
    return set(due(run.membership, state, seen, run.now, SETTINGS))


def test_what_is_due_and_what_is_not() -> None:
    run = owing(A)
    run.wait(DELAY)
    table = NodeTable(run.now, run.cloud.nodes)
    seen = Observation(run.now, listing=table, pool=PoolReport(""), cluster=ClusterReport("Available"))
    assert what_is_due(run, seen) == {A}
    assert what_is_due(run, replace(seen, listing=NodeTable(run.now - SECOND, run.cloud.nodes))) == set()
    assert what_is_due(run, replace(seen, listing=NodeTable(run.now, [a_node(A, pool=ELSEWHERE)]))) == set()
    assert what_is_due(run, replace(seen, listing=NodeTable(run.now, [replace(a_node(A), uid="")]))) == set()
    assert what_is_due(run, replace(seen, listing=None)) == set()
    assert what_is_due(run, seen, a_batch(Phase.RUNNING, A)) == set()
    assert what_is_due(run, seen, a_batch(Phase.QUEUED, A)) == set()
    run.wait(-SECOND)
    assert what_is_due(run, replace(seen, read_at=run.now)) == set()


@pytest.mark.parametrize("edits", [1, 2])
def test_who_left_under_retain_is_not_owed_when_remove_is_seen_together_with_it(edits: int) -> None:
    run = members(A, D, spec=a_spec(A, D))
    if edits > 1:
        run.edit(a_spec(D))
    run.edit(removing_spec(D))
    run.step()
    run.wait(2 * DELAY)
    assert removal(run) == ()
    assert (run.status.members, run.status.surplus) == ((D,), 0)


def test_who_may_have_left_under_retain_between_two_edits_that_are_seen_at_once_is_not_owed() -> None:
    run = members(A, D, spec=removing_spec(A, D))
    run.edit(a_spec(A, D))
    run.edit(a_spec(D))
    run.edit(removing_spec(D))
    run.step()
    run.wait(2 * DELAY)
    assert removal(run) == ()
    assert (run.status.members, run.status.surplus) == ((D,), 0)


def test_an_edit_and_a_deletion_that_are_seen_at_once_still_remove_who_left() -> None:
    run = members(A, D, spec=removing_spec(A, D))
    run.edit(replace(removing_spec(D), deletion_policy=RemovalPolicy.REMOVE))
    run.delete()
    run.step()
    run.wait(2 * DELAY)
    assert removal(run) == (A, D)
