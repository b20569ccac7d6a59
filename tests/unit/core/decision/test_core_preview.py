"""What a preview tells of each server, and what it says is in the way.

Not for: that it comes true (`property.test_preview`), or how it is printed (`test_plugin_plan`).
"""

from dataclasses import replace
from datetime import timedelta

from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.spec import (
    Approval,
    DriftPolicy,
    Preflight,
    PreflightMode,
    RemovalPolicy,
    RequiredTag,
    Rollout,
)
from nodepool_membership.api.status import Halt, Operation, Phase, Status
from nodepool_membership.core.decision.preview import Preview
from nodepool_membership.core.decision.record import Accepted, Refused
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    NamespaceState,
    NodeTable,
    PoolReport,
    Trouble,
)
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.core.preflight.facts import ReadFailure, Server, Template
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    POOL,
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
)

A, B, C, D = servers(4)


def told(run: Run) -> Preview:
    found = run.preview()
    assert isinstance(found, Preview), found
    return found


def stops(run: Run) -> list[Reason]:
    return [stop.reason for stop in told(run).stops]


def test_a_server_without_a_node_would_be_added_and_one_with_an_active_one_adopted() -> None:
    run = Run(an_object(a_spec(A, B, C, batch_size=1)))
    run.cloud.nodes = [*active([A]), a_node(C, pool=ELSEWHERE)]
    found = told(run)
    assert (found.add, found.adopt, found.remove, found.stops) == ((B,), (A,), (), ())
    assert (found.plan.add, found.plan.calls, found.plan.adopt, found.plan.remove) == (1, 1, 1, 0)
    run.step()
    assert run.newest.server_ids == (B,)


def test_it_looks_once_at_the_cluster_and_asks_for_no_place_to_write() -> None:
    run = Run(an_object(a_spec(A)))
    told(run)
    asked = [(look.listing is not None, look.namespace_state, bool(look.servers)) for look in run.looks]
    assert asked == [(True, False, False), (False, True, False), (False, False, True)]
    assert not any(look.write for look in run.looks)


def test_a_member_off_the_list_would_be_removed_unless_its_node_is_gone_or_its_attempts_are() -> None:
    failed = a_failure(FailureReason.REMOVAL_FAILED, C, attempts=3)
    status = Status(1, last_batch=1, members=(A, B, C, D), failures=(failed,))
    run = Run(an_object(a_spec(A, removal=RemovalPolicy.REMOVE), status))
    run.cloud.nodes = active([A, B, C])
    found = told(run)
    assert (found.remove, found.plan.remove) == ((B,), 1)
    assert [(left.reason, left.server_ids) for left in found.left] == [(FailureReason.REMOVAL_FAILED, (C,))]


def test_what_comes_later_by_itself_is_told_with_its_time() -> None:
    later = NOW + timedelta(minutes=5)
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, retry=later), a_failure(FailureReason.NEVER_APPEARED, B))
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, failures=failures)))
    assert [stop.message for stop in told(run).stops] == [
        "1 server to add waits for another attempt, until 2026-01-02T03:05:00Z at the earliest"
    ]
    owed = Status(1, last_batch=1, members=(A, C, D), surplus=2, surplus_since=NOW)
    run = Run(an_object(a_spec(A, removal=RemovalPolicy.REMOVE), owed))
    run.cloud.nodes = active([A, C, D])
    assert [stop.message for stop in told(run).stops] == ["2 removals from 2026-01-02T03:02:00Z on"]
    run.wait(timedelta(minutes=2))
    assert told(run).stops == ()
    waits = (a_wait(later, Reason.QUOTA_EXCEEDED, "no quota"),)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, waits=waits)))
    assert [stop.message for stop in told(run).stops] == ["no quota; until 2026-01-02T03:05:00Z"]


def test_who_would_not_be_sent_is_told_with_the_cause_and_what_stops_nothing_is_a_finding() -> None:
    run = Run(an_object(a_spec(A, B, C)))
    run.cloud.servers = {A: None, B: Server(B, "ACTIVE", os_type="Windows"), C: Server(C, "SHUTOFF")}
    found = told(run)
    assert found.add == (B,)
    assert {left.reason: left.server_ids for left in found.left} == {
        FailureReason.SERVER_NOT_FOUND: (A,),
        FailureReason.SERVER_NOT_RUNNING: (C,),
    }
    assert [finding.reason for finding in found.findings] == [FindingReason.WINDOWS_SERVER]


def test_the_mark_that_is_asked_for_counts_in_every_mode() -> None:
    for mode in PreflightMode:
        spec = replace(a_spec(A, B), preflight=Preflight(mode, RequiredTag("mark", "ours")))
        run = Run(an_object(spec))
        run.cloud.servers = {A: Server(A, "ACTIVE", tags={"mark": "ours"})}
        found = told(run)
        assert found.add == (A,)
        assert [(left.reason, left.server_ids) for left in found.left] == [(FailureReason.REQUIRED_TAG_MISSING, (B,))]


def test_servers_that_must_be_read_and_cannot_be_are_left() -> None:
    run = Run(an_object(replace(a_spec(A), preflight=Preflight(PreflightMode.ENFORCE))))
    run.cloud.unread = ReadFailure(Reason.FORBIDDEN, "no right")
    found = told(run)
    assert (found.add, [(left.reason, left.message) for left in found.left]) == ((), [(Reason.FORBIDDEN, "no right")])


def test_what_is_under_way_is_not_planned_again() -> None:
    run = Run(an_object(a_spec(A, B, batch_size=1)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    found = told(run)
    assert (found.add, found.called) == ((B,), 1)


def test_servers_whose_attempts_are_used_up_are_left_until_a_reset() -> None:
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, attempts=3),)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=3, failures=failures)))
    found = told(run)
    assert (found.add, [left.reason for left in found.left]) == ((B,), [FailureReason.NEVER_APPEARED])
    run.annotate({"cce.nodepools.dev/reset-requested-at": "now"})
    assert told(run).add == (A, B)


def test_servers_of_another_membership_are_left_to_it() -> None:
    run = Run(an_object(a_spec(A, B, C)))
    run.rivals = {A: Rival("cce-system/other", better=True), B: Rival("ns/secret", better=True, foreign=True)}
    found = told(run)
    assert found.add == (C,)
    assert {left.server_ids: left.message.split(": ")[1] for left in found.left} == {
        (A,): "cce-system/other",
        (B,): "another namespace",
    }


def test_members_that_are_gone_come_back_only_where_the_spec_says_so_and_not_in_numbers() -> None:
    status = Status(1, last_batch=1, members=(A, B))
    for drift, wanted in ((DriftPolicy.REPORT, ()), (DriftPolicy.REJOIN, (B,))):
        run = Run(an_object(a_spec(A, B, drift=drift), status))
        run.cloud.nodes = active([A])
        assert told(run).add == wanted
    many = servers(20)
    run = Run(an_object(a_spec(*many, drift=DriftPolicy.REJOIN), Status(1, last_batch=1, members=many)))
    run.cloud.nodes = active(many[5:])
    assert told(run).add == ()


def test_members_that_would_be_believed_to_be_gone_once_others_have_joined_are_foreseen() -> None:
    """3 of 28 are many at once, 3 of 38 are not: those who join meanwhile count, too."""
    ids = servers(38)
    members = ids[:28]
    spec = a_spec(*ids, drift=DriftPolicy.REJOIN)
    run = Run(an_object(spec, Status(1, last_batch=1, members=members)), Cloud(active(members)))
    run.step(Accepted(JOB))
    run.cloud.nodes, run.cloud.jobs = active(ids[3:28]), a_job(JobPhase.RUNNING)
    foreseen = told(run).add
    run.cloud.nodes, run.cloud.jobs = active(ids[3:]), a_job(JobPhase.SUCCEEDED)
    run.step_thrice()
    run.wait(WINDOW * 2)
    run.step(Accepted(JOB))
    assert foreseen == run.newest.server_ids == ids[:3]


def test_as_many_calls_as_a_refused_one_was_cut_into() -> None:
    run = Run(an_object(a_spec(*servers(5))))
    run.step(Refused(refusal(400, "CCE.01400001"), "a bad server"))
    assert [len(job.server_ids) for job in run.status.jobs] == [0, 2, 3]
    assert told(run).plan.calls == 2


def test_as_many_calls_as_attempts_ask_for() -> None:
    ids = servers(7)
    failures = (
        a_failure(FailureReason.NEVER_APPEARED, *ids[:2], attempts=1),
        a_failure(FailureReason.NEVER_APPEARED, ids[2], attempts=2),
    )
    run = Run(an_object(a_spec(*ids, batch_size=3), Status(1, last_batch=3, failures=failures)))
    assert told(run).plan.calls == 2 + 1 + 1


def test_everything_that_is_in_the_way_is_named() -> None:
    run = Run(an_object(a_spec(A, suspend=True)))
    assert stops(run) == [Reason.SUSPENDED]
    assert told(run).add == (A,)
    run = Run(an_object(a_spec(A), annotations={"cce.nodepools.dev/paused": "an audit"}))
    run.cloud.namespace_state = NamespaceState(paused="a freeze")
    run.cloud.cluster = ClusterReport("Upgrading")
    assert stops(run) == [Reason.PAUSED, Reason.PAUSED, Reason.CLUSTER_NOT_READY]
    wait = a_wait(NOW + WINDOW)
    halt = Halt(Reason.TOO_MANY_FAILURES, "3 of 3", NOW)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, waits=(wait,), halt=halt)))
    assert stops(run) == [Reason.TOO_MANY_FAILURES, wait.reason]
    assert wait.operation is Operation.ADD
    run = Run(an_object(a_spec(A)))
    run.cloud.pool = PoolReport("", NodeTable(NOW, active([B])).count_in(POOL))
    assert stops(run) == [Reason.LISTING_IMPLAUSIBLE]


def test_the_plan_that_waits_for_a_word_has_the_id_that_it_waits_for() -> None:
    run = Run(an_object(replace(a_spec(A, B), approval=Approval.MANUAL)))
    run.cloud.pool = PoolReport("", template=Template("one"))
    run.cloud.servers = {B: None}
    found = told(run)
    run.step()
    assert run.status.plan is not None
    assert (found.plan.id, found.plan.add) == (run.status.plan.id, 1)
    assert Reason.AWAITING_APPROVAL in stops(run)
    run.annotate({"cce.nodepools.dev/approved-plan": found.plan.id})
    assert stops(run) == []


def test_a_deletion_removes_what_its_policy_says_and_nothing_while_the_namespace_goes_too() -> None:
    status = Status(1, last_batch=1, members=(A,))
    deleted = an_object(a_spec(A, B, deletion=RemovalPolicy.REMOVE), status, deleted=NOW, finalizers=("x",))
    run = Run(deleted)
    run.cloud.nodes = active([A])
    assert (told(run).add, told(run).remove) == ((), (A,))
    run.cloud.namespace_state = NamespaceState("the namespace is being deleted, too")
    assert told(run).remove == ()


def test_a_cloud_that_cannot_be_looked_at_is_no_empty_plan() -> None:
    run = Run(an_object(a_spec(A)))
    run.cloud.trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no route")
    assert run.preview() == run.cloud.trouble


def test_while_a_call_is_under_way_a_suspended_object_tells_all_the_same_what_would_be_removed() -> None:
    status = Status(1, last_batch=1, members=(A,), jobs=(a_batch(Phase.RUNNING, B, job_id=JOB),))
    run = Run(
        an_object(a_spec(A, B, removal=RemovalPolicy.REMOVE), status), Cloud(active([A]), a_job(JobPhase.RUNNING))
    )
    run.edit(a_spec(B, removal=RemovalPolicy.REMOVE))
    run.step()
    run.edit(replace(run.membership.spec, suspend=True))
    run.step()
    assert run.status.plan is not None
    assert run.status.plan.remove == 1


def test_a_suspended_object_counts_the_canary_that_another_template_would_meet() -> None:
    status = Status(1, last_batch=1, proven_template="one")
    spec = replace(a_spec(A, B, C, suspend=True), rollout=Rollout(1))
    run = Run(an_object(spec, status), Cloud(pool=PoolReport("", template=Template("two"))))
    run.step()
    assert run.status.plan is not None
    assert (run.status.plan.add, run.status.plan.calls) == (3, 2)
