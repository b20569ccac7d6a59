"""What a membership does about servers that another one claims: rule P16 and the rows of the state table for it."""

import pytest

from nodepool_membership.api.names import FINALIZER, PAUSED_ANNOTATION
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Hold, Phase, Status
from nodepool_membership.core.conditions import texts
from nodepool_membership.core.conditions.events import events_between
from nodepool_membership.core.decision.preview import Preview
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import JobPhase
from nodepool_membership.core.observed.rivals import Rival, Rivals
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    WINDOW,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    server,
    servers,
)

A, B, C = servers(3)
HELD = Rival("other/owner", better=True, holds=True)
THEIRS = Rival("other/owner", better=True)
OURS = Rival("other/younger", better=False)


def a_run(*ids: str, rivals: Rivals | None, status: Status | None = None, suspend: bool = False) -> Run:
    return Run(an_object(a_spec(*ids, suspend=suspend), status), rivals=rivals)


def counts(run: Run) -> tuple[int, int, int, int, int]:
    status = run.status
    return status.desired, status.joined, status.joining, status.failed, status.pending


def stalled(run: Run) -> bool:
    condition = run.condition("Stalled")
    return condition is not None and condition.reason is Reason.CONFLICT


def test_servers_of_another_are_not_sent_and_the_rest_goes_on() -> None:
    run = a_run(A, B, C, rivals={A: THEIRS, B: OURS})
    run.step(Accepted(JOB))
    assert run.newest.server_ids == (B, C)
    assert run.ready.reason is Reason.PROGRESSING
    assert counts(run) == (3, 0, 2, 0, 1)


def test_a_conflict_with_nothing_else_to_do_is_stalled_and_names_the_owner() -> None:
    run = a_run(A, B, rivals={A: THEIRS})
    run.cloud.nodes = active([B])
    old = run.status
    decision = run.step()
    assert decision.intent is None
    assert stalled(run)
    assert (run.ready.status, run.ready.reason) == ("False", Reason.CONFLICT)
    assert f"1 server of other/owner ({A})" in run.ready.message
    assert counts(run) == (2, 1, 0, 0, 1)
    assert [note.reason for note in events_between(old, run.status)] == [Reason.CONFLICT]
    before = run.status
    run.step()
    assert run.status == before


def test_a_conflict_holds_no_finalizer() -> None:
    run = a_run(A, rivals={A: THEIRS})
    run.step()
    assert FINALIZER not in run.membership.metadata.finalizers


def test_it_takes_over_when_the_owner_lets_go() -> None:
    run = a_run(A, rivals={A: THEIRS})
    run.step()
    run.rivals = {}
    decision = run.step(Accepted(JOB))
    assert decision.intent is not None
    assert decision.intent.server_ids == (A,)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    run.step()
    assert run.ready.status == "True"


def test_a_node_of_our_pool_that_another_has_the_right_to_is_not_adopted() -> None:
    run = a_run(A, B, rivals={A: THEIRS, B: OURS})
    run.cloud.nodes = active([A, B])
    run.step()
    assert run.status.members == (B,)
    assert stalled(run)


@pytest.mark.parametrize("pool", [ELSEWHERE, ""])
def test_a_node_in_the_pool_of_its_owner_is_no_failure_of_ours(pool: str) -> None:
    run = a_run(A, rivals={})
    run.cloud.nodes = [a_node(A, pool=pool)]
    run.step()
    assert run.causes == {A: (FailureReason.OTHER_POOL, 0)}
    run.rivals = {A: THEIRS}
    run.step()
    assert run.causes == {}
    assert stalled(run)


@pytest.mark.parametrize("reason", [FailureReason.JOIN_TIMEOUT, FailureReason.NODE_VANISHED])
def test_a_server_that_may_have_a_node_is_not_sent_at_once_when_the_owner_lets_go(
    reason: FailureReason,
) -> None:
    """Also without an attempt: a reset takes the count, not what the add may still do (rules P1, P8)."""
    batch = a_batch(Phase.FAILED, finished=NOW)
    failures, holds = (a_failure(reason, A, attempts=0),), (Hold((A,)),)
    status = Status(last_batch=1, jobs=(batch,), failures=failures, holds=holds)
    run = a_run(A, rivals={A: THEIRS}, status=status)
    run.step()
    assert run.status.live_ids == {A}
    run.rivals = {}
    assert run.step().intent is None


def test_a_server_that_another_holds_is_not_added_but_recorded_where_it_is_active() -> None:
    run = a_run(A, B, rivals={A: HELD, B: HELD})
    run.cloud.nodes = active([B])
    assert run.step().intent is None
    assert run.status.members == (B,)


def test_what_no_add_has_left_behind_is_forgotten() -> None:
    status = Status(last_batch=1, failures=(a_failure(FailureReason.REFUSED, A, attempts=0),))
    run = a_run(A, rivals={A: THEIRS}, status=status)
    run.step()
    assert run.causes == {}
    assert stalled(run)


def test_attempts_that_a_server_has_cost_stay_known() -> None:
    status = Status(last_batch=1, failures=(a_failure(FailureReason.NODE_ERROR, A, attempts=2),))
    run = a_run(A, rivals={A: THEIRS}, status=status)
    run.step()
    assert run.causes == {A: (FailureReason.NODE_ERROR, 2)}
    assert counts(run) == (1, 0, 0, 1, 0)


@pytest.mark.parametrize(("recorded", "kept"), [(True, ()), (False, (A,))])
def test_a_record_yields_to_an_older_record_only(*, recorded: bool, kept: tuple[str, ...]) -> None:
    rival = Rival("other/owner", better=True, recorded=recorded)
    run = a_run(A, rivals={A: rival}, status=Status(last_batch=1, members=(A,)))
    run.cloud.nodes = active([A])
    run.step()
    assert run.status.members == kept


def test_an_open_batch_is_followed_to_its_end_whoever_else_claims_its_servers() -> None:
    status = Status(last_batch=1, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    run = a_run(A, rivals={A: OURS}, status=status)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    run.step()
    assert run.status.members == (A,)


def test_failures_are_told_beside_a_conflict() -> None:
    run = a_run(A, B, rivals={A: THEIRS})
    run.cloud.nodes = [a_node(B, pool=ELSEWHERE)]
    run.step()
    assert stalled(run)
    assert "other/owner" in run.ready.message
    assert "1 OtherPool" in run.ready.message
    assert counts(run) == (2, 0, 0, 1, 1)


def test_a_server_of_ours_that_waits_for_a_retry_is_no_conflict() -> None:
    batch = a_batch(Phase.FAILED, finished=NOW)
    status = Status(last_batch=1, jobs=(batch,), failures=(a_failure(FailureReason.REFUSED, B, retry=NOW + WINDOW),))
    run = a_run(A, B, rivals={A: THEIRS, B: OURS}, status=status)
    run.step()
    assert not stalled(run)
    also = run.condition("Reconciling")
    assert also is not None
    assert also.reason is Reason.PROGRESSING_WITH_RETRY
    assert "1 server of other/owner" in run.ready.message


def test_a_part_of_a_refused_batch_that_another_has_the_right_to_is_not_sent() -> None:
    parts = (a_batch(Phase.QUEUED, A, number=2), a_batch(Phase.QUEUED, B, C, number=3))
    run = a_run(A, B, C, rivals={A: THEIRS, B: THEIRS}, status=Status(last_batch=3, jobs=parts))
    run.step(Accepted(JOB))
    assert run.newest.server_ids == (C,)
    assert [batch.phase for batch in run.status.jobs] == [Phase.RUNNING]


def test_the_preview_leaves_out_what_is_anothers_and_says_so() -> None:
    run = a_run(A, B, C, rivals={A: THEIRS}, suspend=True)
    run.cloud.nodes = active([C])
    run.step()
    assert run.ready.reason is Reason.SUSPENDED
    assert "would add 1 in 1 call, which WIPES it, adopt 1" in run.ready.message
    assert f"1 server of other/owner ({A})" in run.ready.message


def test_nothing_is_added_or_adopted_before_all_memberships_were_read() -> None:
    run = a_run(A, B, rivals=None)
    run.cloud.nodes = active([B])
    decision = run.step()
    assert decision.intent is None
    assert set(run.status.members) == set()
    assert run.ready.reason is Reason.STARTING
    also = run.condition("Reconciling")
    assert also is not None
    assert also.reason is Reason.PROGRESSING_WITH_RETRY
    run.rivals = {}
    decision = run.step()
    assert decision.intent is not None
    assert decision.intent.server_ids == (A,)
    assert run.status.members == (B,)


def test_who_has_all_its_servers_does_not_wait_for_the_others() -> None:
    run = a_run(A, rivals=None, status=Status(last_batch=1, members=(A,)))
    run.cloud.nodes = active([A])
    run.step()
    assert run.ready.status == "True"


def test_what_has_become_of_members_is_told_before_all_memberships_were_read() -> None:
    run = a_run(A, B, rivals=None, status=Status(last_batch=1, members=(A, B)))
    run.cloud.nodes = [a_node(A, "Error")]
    run.step_thrice()
    assert run.ready.status == "False"
    assert run.causes == {A: (FailureReason.MEMBER_NOT_ACTIVE, 0), B: (FailureReason.MEMBER_MISSING, 0)}


def test_a_batch_is_followed_before_all_memberships_were_read() -> None:
    status = Status(last_batch=2, jobs=(a_batch(Phase.RUNNING, A, job_id=JOB), a_batch(Phase.QUEUED, B, number=2)))
    run = a_run(A, B, rivals=None, status=status)
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    run.step()
    assert run.status.members == (A,)
    assert [batch.phase for batch in run.status.jobs] == [Phase.SUCCEEDED, Phase.QUEUED]
    assert run.now == NOW


def test_a_few_owners_are_named_and_the_rest_counted() -> None:
    text = texts.conflict({A: Rival("secret/name", better=True, foreign=True)}, "team/mine")
    assert text.startswith(f"1 server of another namespace ({A}) is on the list of team/mine, too")
    assert "secret" not in text
    rivals = {server(n): Rival(f"ns/m{min(n, 6)}", better=True) for n in range(10)}
    text = texts.conflict(rivals, "team/mine")
    assert text.startswith(
        f"4 servers of ns/m6 ({server(6)}, {server(7)}, {server(8)} and 1 more in both lists), 1 server"
    )
    assert " and 4 more in the other lists are on the list of team/mine, too: take them off one of the lists" in text


def test_a_server_that_joined_for_another_did_not_fail_here() -> None:
    failed = (a_failure(FailureReason.NEVER_APPEARED, A, B, attempts=1),)
    run = a_run(A, B, rivals={A: THEIRS, B: THEIRS}, status=Status(1, last_batch=1, failures=failed))
    run.cloud.nodes = active([A])
    run.step()
    assert run.causes == {B: (FailureReason.NEVER_APPEARED, 1)}
    assert counts(run) == (2, 0, 0, 0, 2)


def test_who_is_paused_and_waits_for_another_is_told_of_the_conflict() -> None:
    run = a_run(A, B, rivals={A: THEIRS, B: THEIRS})
    run.annotate({PAUSED_ANNOTATION: "incident 42"})
    run.step()
    assert stalled(run)
    run.rivals = {A: THEIRS}
    run.step()
    assert run.ready.reason is Reason.PAUSED


def test_who_waits_for_an_earlier_call_of_nobody_is_told_until_when_and_not_to_change_a_list() -> None:
    """A membership that was deleted by force and made again under its name."""
    run = Run(an_object(a_spec(A)))
    run.rivals = {A: Rival("cce-system/gpu-workers", better=True, until=NOW + WINDOW)}
    run.step()
    assert (run.ready.reason, run.condition("Stalled")) == (Reason.CONFLICT, None)
    assert run.ready.message.endswith("not added before 2026-01-02T03:30:00Z")
    assert "lists" not in run.ready.message
    found = run.preview()
    assert isinstance(found, Preview)
    assert "until 2026-01-02T03:30:00Z" in found.left[0].message


def test_a_recorded_member_that_is_not_well_is_told_of_also_while_another_has_the_better_right() -> None:
    """As long as the status of the other cannot be understood, for one."""
    status = Status(1, last_batch=1, members=(A,))
    run = a_run(A, rivals={A: THEIRS}, status=status)
    run.cloud.nodes = [a_node(A, "Error")]
    run.step()
    assert (run.ready.reason, run.status.members) == (FailureReason.MEMBER_NOT_ACTIVE, (A,))
    run.cloud.nodes = active([A])
    run.step()
    assert run.ready.status == "True"
    run.cloud.nodes = []
    run.step_thrice()
    assert (run.ready.reason, run.status.members) == (FailureReason.MEMBER_MISSING, (A,))
