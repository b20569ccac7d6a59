"""Nothing is called before a person has said yes, what an approval covers, and what voids it (P29).

Not for: who is named in a call; test_core_eligibility.
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.names import RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Approval, DriftPolicy, RemovalPolicy, Spec
from nodepool_membership.api.status import Plan, Status
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import JobPhase, NamespaceState, PoolReport
from nodepool_membership.core.preflight.facts import Template
from unit.core_builders import JOB, SETTINGS, Cloud, Run, a_job, a_spec, active, an_object, servers

ANNOTATION = "cce.nodepools.dev/approved-plan"
OTHER_JOB = "0ec9b78d-9368-46f3-8f29-d1a95622a568"
A, B, C, D = servers(4)


def manual(spec: Spec) -> Spec:
    return replace(spec, approval=Approval.MANUAL)


def a_run(
    *ids: str,
    status: Status | None = None,
    drift: DriftPolicy = DriftPolicy.REPORT,
    removal: RemovalPolicy = RemovalPolicy.RETAIN,
) -> Run:
    spec = manual(a_spec(*ids, batch_size=1, drift=drift, removal=removal))
    return Run(an_object(spec, status), Cloud(pool=PoolReport("", template=Template("one"))))


def waits(run: Run) -> Plan:
    """It waits for a word, and calls nothing meanwhile."""
    assert run.step(Accepted(JOB)).intent is None
    assert run.ready.reason is Reason.AWAITING_APPROVAL
    plan = run.status.plan
    assert plan is not None
    assert plan.id in run.ready.message
    return plan


def approve(run: Run, plan: Plan) -> None:
    run.annotate({ANNOTATION: plan.id})


def call(run: Run) -> tuple[str, ...]:
    intent = run.step(Accepted(JOB)).intent
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    return () if intent is None else intent.server_ids


def join(run: Run) -> None:
    run.cloud.nodes += active(i for batch in run.status.open_batches for i in batch.server_ids)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.wait(SETTINGS.poll_interval)


def test_nothing_is_called_before_the_plan_is_approved_and_all_of_it_afterwards() -> None:
    run = a_run(A, B, C)
    plan = waits(run)
    assert (plan.add, plan.calls, plan.adopt, plan.remove) == (3, 3, 0, 0)
    run.wait(SETTINGS.resync_interval)
    before = run.status
    assert waits(run) == plan
    assert run.status == before
    approve(run, plan)
    for server in (A, B, C):
        assert call(run) == (server,)
        assert run.status.plan is None
        join(run)
    run.step()
    assert run.ready.status == "True"


def test_an_edit_that_names_another_server_needs_another_word_and_one_that_does_not_needs_none() -> None:
    run = a_run(A, B)
    approve(run, waits(run))
    assert call(run) == (A,)
    run.edit(replace(run.membership.spec, join_timeout_seconds=7200))
    run.step()
    assert run.status.approved_plan is not None
    run.edit(replace(run.membership.spec, server_ids=frozenset({A, B, C})))
    join(run)
    plan = waits(run)
    assert plan.add == 2
    approve(run, plan)
    assert call(run) == (B,)


def test_a_server_that_leaves_the_list_voids_it_too() -> None:
    run = a_run(A, B, C)
    approve(run, waits(run))
    run.edit(replace(run.membership.spec, server_ids=frozenset({A, B})))
    assert waits(run).add == 2


def test_a_word_for_an_older_plan_or_for_another_object_counts_for_nothing() -> None:
    run, other = a_run(A), a_run(A)
    other.membership = replace(other.membership, metadata=replace(other.membership.metadata, uid="another"))
    first = waits(run)
    assert waits(other).id != first.id
    approve(run, waits(other))
    waits(run)
    run.edit(replace(run.membership.spec, server_ids=frozenset({A, B})))
    waits(run)
    approve(run, first)
    waits(run)
    assert "which is no plan that waits" in run.ready.message


@pytest.mark.parametrize("covered", [False, True])
def test_while_it_is_not_certain_what_there_is_to_be_done_that_is_told_and_no_word_is_asked_for(covered: bool) -> None:
    run = a_run(A, B)
    plan = waits(run)
    if covered:
        approve(run, plan)
        assert call(run) == (A,)
        join(run)
    pool, run.cloud.pool = run.cloud.pool, replace(run.cloud.pool, current_nodes=7)
    decision = run.step(Accepted(JOB))
    assert decision.intent is None
    assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE
    assert run.status.plan is None
    assert decision.schedule is Schedule.BACKOFF
    run.cloud.pool = pool
    if covered:
        assert call(run) == (B,)
    else:
        assert waits(run) == plan


@pytest.mark.parametrize("counted", [None, 2])
def test_a_member_that_a_look_or_two_do_not_show_asks_for_no_word_yet(counted: int | None) -> None:
    run = a_run(A, B, drift=DriftPolicy.REJOIN)
    run.cloud.nodes = active([A, B])
    run.cloud.pool = replace(run.cloud.pool, current_nodes=counted)
    run.step()
    run.cloud.nodes = active([B])
    for _ in range(2):
        run.wait(SETTINGS.resync_interval)
        run.step()
        assert run.ready.status == "True"
    run.cloud.pool = replace(run.cloud.pool, current_nodes=None)
    assert run.step_thrice().intent is None
    assert run.ready.reason is Reason.AWAITING_APPROVAL


def test_a_word_that_is_taken_back_stops_what_is_not_called_yet() -> None:
    run = a_run(A, B)
    plan = waits(run)
    approve(run, plan)
    assert call(run) == (A,)
    join(run)
    run.annotate({})
    rest = waits(run)
    assert (rest.add, rest.id != plan.id, run.status.approved_plan) == (1, True, None)


def test_another_template_needs_another_word() -> None:
    run = a_run(A)
    approve(run, waits(run))
    run.cloud.pool = PoolReport("", template=Template("two"))
    waits(run)


def test_it_never_covers_a_member() -> None:
    run = a_run(A, B, drift=DriftPolicy.REJOIN)
    run.cloud.nodes = active([A])
    approve(run, waits(run))
    assert call(run) == (B,)
    join(run)
    run.step()
    run.cloud.nodes = active([B])
    run.step_thrice()
    run.wait(SETTINGS.settle_window * 2)
    assert waits(run).add == 1


def test_it_covers_a_member_that_was_to_be_added_again_when_it_was_given_and_not_given_up_yet() -> None:
    run = a_run(A, B, status=Status(1, last_batch=1, members=(A,)), drift=DriftPolicy.REJOIN)
    plan = waits(run)
    assert plan.add == 2
    approve(run, plan)
    assert call(run) == (B,)
    join(run)
    run.step_thrice()
    run.wait(SETTINGS.settle_window)
    assert call(run) == (A,)


def test_it_never_covers_a_member_that_joined_while_nothing_was_certain() -> None:
    run = a_run(A, drift=DriftPolicy.REJOIN)
    approve(run, waits(run))
    assert call(run) == (A,)
    join(run)
    pool, run.cloud.pool = run.cloud.pool, replace(run.cloud.pool, current_nodes=7)
    run.step()
    assert run.status.members == (A,)
    run.cloud.pool, run.cloud.nodes = pool, []
    run.step_thrice()
    run.wait(SETTINGS.settle_window * 2)
    waits(run)


def test_it_never_covers_a_member_that_joined_before_all_memberships_were_read() -> None:
    run = a_run(A, drift=DriftPolicy.REJOIN)
    approve(run, waits(run))
    assert call(run) == (A,)
    join(run)
    run.rivals = None
    run.step()
    assert run.status.members == (A,)
    run.rivals, run.cloud.nodes = {}, []
    run.step_thrice()
    run.wait(SETTINGS.settle_window * 2)
    waits(run)


def test_no_word_is_asked_for_what_somebody_else_has_done_meanwhile() -> None:
    run = a_run(A, B)
    waits(run)
    run.cloud.nodes = active([A, B])
    run.wait(SETTINGS.resync_interval)
    run.step()
    assert (run.ready.status, run.status.plan) == ("True", None)


@pytest.mark.parametrize("drift", DriftPolicy)
def test_a_word_counts_once_also_where_all_whom_it_covered_are_to_be_added_again(drift: DriftPolicy) -> None:
    run = a_run(A, drift=drift)
    plan = waits(run)
    approve(run, plan)
    assert call(run) == (A,)
    join(run)
    run.step()
    run.cloud.nodes = []
    run.step_thrice()
    run.wait(SETTINGS.settle_window * 2)
    if drift is DriftPolicy.REPORT:
        run.annotate({ANNOTATION: plan.id, RESET_ANNOTATIONS[0]: "now"})
    assert waits(run).id != plan.id


def test_a_removal_waits_too_and_goes_with_its_word() -> None:
    status = Status(1, last_batch=1, members=(A, B))
    run = a_run(A, status=status, removal=RemovalPolicy.REMOVE)
    run.cloud.nodes = active([A, B])
    run.step()
    run.wait(SETTINGS.removal_delay * 2)
    plan = waits(run)
    assert (plan.add, plan.remove) == (0, 1)
    approve(run, plan)
    assert call(run) == (B,)


def with_an_open_removal() -> Run:
    """A stays a member; that B is removed was approved, and is under way."""
    status = Status(1, last_batch=1, members=(A, B))
    run = a_run(A, status=status, removal=RemovalPolicy.REMOVE)
    run.membership = replace(run.membership, spec=replace(run.membership.spec, max_parallel_jobs=2))
    run.cloud.nodes = active([A, B])
    run.step()
    run.wait(SETTINGS.removal_delay)
    approve(run, waits(run))
    assert call(run) == (B,)
    return run


def test_a_removal_that_failed_goes_on_by_the_word_for_it() -> None:
    run = with_an_open_removal()
    run.cloud.jobs = a_job(JobPhase.FAILED)
    run.wait(SETTINGS.poll_interval)
    run.step()
    run.wait(SETTINGS.resync_interval)
    assert call(run) == (B,)


def test_a_word_for_another_plan_does_not_cover_a_removal_that_was_under_way_then_and_failed() -> None:
    run = with_an_open_removal()
    run.edit(replace(run.membership.spec, server_ids=frozenset({A, C})))
    run.annotate({**run.membership.metadata.annotations, RECONCILE_ANNOTATIONS[0]: "now"})
    plan = waits(run)
    assert (plan.add, plan.remove) == (1, 0)
    approve(run, plan)
    run.step(Accepted(OTHER_JOB))
    assert run.newest.server_ids == (C,)
    run.cloud.jobs = a_job(JobPhase.FAILED)
    run.cloud.nodes += active([C])
    run.wait(SETTINGS.poll_interval)
    run.step()
    run.wait(SETTINGS.resync_interval)
    assert waits(run).remove == 1


def test_an_approved_removal_goes_on_while_an_add_waits_for_a_word() -> None:
    run = with_an_open_removal()
    run.cloud.nodes = active([B])
    for _ in range(3):
        run.annotate({**run.membership.metadata.annotations, RECONCILE_ANNOTATIONS[0]: str(run.now)})
        run.step()
        run.wait(SETTINGS.resync_interval)
    run.cloud.jobs = a_job(JobPhase.FAILED)
    run.step()
    run.wait(SETTINGS.resync_interval)
    run.annotate({**run.membership.metadata.annotations, RESET_ANNOTATIONS[0]: "now"})
    assert call(run) == (B,)
    assert run.status.plan is not None
    assert run.status.plan.add == 1


def test_an_approval_that_would_not_fit_is_not_taken_up_and_that_is_told() -> None:
    ids = servers(9_000)
    run = a_run(*ids)
    run.membership = replace(run.membership, wire_bytes=850_000)
    run.step()
    assert run.status.plan is not None
    approve(run, run.status.plan)
    assert run.step().intent is None
    assert (run.ready.reason, run.status.approved_plan) == (Reason.STATUS_FULL, None)
    run.membership = replace(run.membership, wire_bytes=450_000)
    assert len(call(run)) == 1


def test_a_word_that_is_given_while_it_is_suspended_holds_when_it_is_resumed() -> None:
    run = a_run(A)
    run.edit(replace(run.membership.spec, suspend=True))
    run.step()
    assert run.status.plan is not None
    approve(run, run.status.plan)
    run.step()
    run.edit(replace(run.membership.spec, suspend=False))
    assert call(run) == (A,)


def test_a_plan_to_remove_those_who_were_let_go_of_is_none() -> None:
    """A deletion with its namespace keeps all servers, whatever was asked for."""
    status = Status(1, last_batch=1, members=(A, B))
    run = a_run(A, B, status=status)
    run.cloud.nodes = active([A, B])
    spec = replace(run.membership.spec, deletion_policy=RemovalPolicy.REMOVE)
    run.membership = replace(run.membership, spec=spec)
    run.delete()
    run.step()
    run.wait(SETTINGS.removal_delay * 2)
    assert run.step().intent is None
    assert [plan.remove for plan in (run.status.plan,) if plan is not None] == [2]
    run.cloud.namespace_state = NamespaceState("the namespace is being deleted, too")
    run.step()
    assert (run.status.surplus, run.status.plan) == (0, None)
