"""Each reason for which a server fails: how it begins, whether it is final, how it ends; and the grouping in status."""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.record import Accepted, NotSent, Refused
from nodepool_membership.core.observed.catalogue import CODES, refusal
from nodepool_membership.core.observed.observation import JobPhase, Node
from nodepool_membership.core.state import retry
from nodepool_membership.core.state.failures import MAX_GROUPS, Cause, fold, unfold
from nodepool_membership.core.state.state import State
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    TIMEOUT,
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
    known,
    server,
    servers,
)

A, B, C = servers(3)

HAS_NODE = [
    (a_node(A, "Error"), FailureReason.NODE_ERROR),
    (a_node(A, "Abnormal"), FailureReason.NODE_ERROR),
    (a_node(A, "Active", pool=ELSEWHERE), FailureReason.OTHER_POOL),
    (a_node(A, "Installing", pool=""), FailureReason.OTHER_POOL),
    (a_node(A, "Installing", created=NOW - TIMEOUT - SECOND), FailureReason.JOIN_TIMEOUT),
]


@pytest.mark.parametrize(("node", "reason"), HAS_NODE)
def test_a_server_with_a_bad_node_fails_without_a_call_and_costs_no_attempt(node: Node, reason: FailureReason) -> None:
    run = Run(an_object(a_spec(A)), Cloud([node]))
    assert run.step().intent is None
    assert run.causes == {A: (reason, 0)}
    assert (run.status.failed, run.status.pending) == (1, 0)
    assert run.condition("Stalled") is not None


@pytest.mark.parametrize(("node", "reason"), HAS_NODE)
def test_a_server_of_a_batch_fails_with_the_attempt_of_the_batch(node: Node, reason: FailureReason) -> None:
    batch = a_batch(Phase.RUNNING, A, job_id=JOB, attempt=2, submitted=NOW - TIMEOUT - SECOND)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,))), Cloud([node], a_job(JobPhase.FAILED)))
    run.step()
    assert (run.newest.phase, run.causes) == (Phase.FAILED, {A: (reason, 2)})


@pytest.mark.parametrize(("node", "reason"), HAS_NODE)
def test_a_late_active_turns_any_failure_into_a_member(node: Node, reason: FailureReason) -> None:
    run = known(reason, attempts=3, nodes=(node,))
    run.step()
    assert run.status.failed == 1
    run.cloud.nodes = active([A])
    run.step()
    assert (run.status.members, run.status.failures, run.ready.status) == ((A,), (), "True")


@pytest.mark.parametrize(
    "reason", [FailureReason.NEVER_APPEARED, FailureReason.REFUSED, FailureReason.NODE_VANISHED, FailureReason.OTHER]
)
def test_a_failed_server_that_somebody_added_is_adopted(reason: FailureReason) -> None:
    run = known(reason, attempts=3)
    run.step()
    assert run.status.failed == 1
    run.cloud.nodes = active([A])
    assert run.step().intent is None
    assert (run.status.members, run.status.failures) == ((A,), ())


@pytest.mark.parametrize("moment", [timedelta(0), SECOND])
def test_a_node_times_out_only_after_its_whole_time(moment: timedelta) -> None:
    run = Run(an_object(a_spec(A)), Cloud([a_node(A, "Installing", created=NOW - TIMEOUT)]), NOW + moment)
    run.step()
    assert run.causes == {A: (FailureReason.JOIN_TIMEOUT if moment else FailureReason.INSTALLING, 0)}
    assert (run.status.failed, run.status.pending) == ((1, 0) if moment else (0, 1))


def test_a_node_without_a_creation_time_times_out_from_the_batch() -> None:
    batch = a_batch(Phase.RUNNING, A, job_id=JOB)
    node = a_node(A, "Installing")
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, jobs=(batch,))), Cloud([node], a_job(JobPhase.SUCCEEDED)))
    run.now = NOW + TIMEOUT
    run.step()
    assert run.newest.phase is Phase.RUNNING
    run.wait(SECOND)
    run.step()
    assert run.causes == {A: (FailureReason.JOIN_TIMEOUT, 1)}


@pytest.mark.parametrize("attempts", [0, 1, 3])
@pytest.mark.parametrize(
    "reason", [FailureReason.JOIN_TIMEOUT, FailureReason.NODE_ERROR, FailureReason.OTHER_POOL], ids=str
)
def test_a_failed_server_whose_node_has_time_again_is_waited_for(attempts: int, reason: FailureReason) -> None:
    """As when spec.joinTimeoutSeconds was raised, or the node was repaired; the attempts stay known (rule P12)."""
    run = known(reason, attempts=attempts, nodes=(a_node(A, "Installing", created=NOW),))
    run.edit(replace(a_spec(A), join_timeout_seconds=7200))
    run.now = NOW + 2 * TIMEOUT
    assert run.step().intent is None
    assert run.causes == {A: (FailureReason.INSTALLING, attempts)}
    assert (run.status.failed, run.status.pending, run.condition("Stalled")) == (0, 1, None)
    before = run.status
    run.step()
    assert run.status == before
    run.wait(SECOND)
    run.step()
    assert run.causes == {A: (FailureReason.JOIN_TIMEOUT, attempts)}
    assert "7200" in run.status.failures[0].message


def test_a_node_that_was_waited_for_again_and_vanished_is_not_sent_at_once() -> None:
    run = known(FailureReason.JOIN_TIMEOUT, nodes=(a_node(A, "Installing", created=NOW),))
    run.step()
    run.cloud.nodes = []
    assert run.step_thrice().intent is None
    assert run.causes == {A: (FailureReason.NODE_VANISHED, 1)}


@pytest.mark.parametrize("node", [a_node(A, "Installing"), a_node(A, "Error", created=NOW)])
def test_a_failure_stays_while_the_node_does_not_say_otherwise(node: Node) -> None:
    run = known(FailureReason.DISK_PARTITIONED, nodes=(node,))
    run.step()
    assert run.causes == {A: (FailureReason.DISK_PARTITIONED, 1)}
    run = known(FailureReason.JOIN_TIMEOUT, nodes=(a_node(A, "Installing"),))
    run.step()
    assert run.causes == {A: (FailureReason.JOIN_TIMEOUT, 1)}


def test_the_job_explains_a_broken_node_by_server_by_node_or_as_a_whole() -> None:
    run = Run(an_object(a_spec(A, B, C)))
    run.step(Accepted(JOB))
    texts = {A: "no available data disk", f"node-of-{B}": "Failed to install: timeout"}
    run.cloud.jobs = a_job(JobPhase.FAILED, "the job failed", texts)
    run.cloud.nodes = [a_node(i, "Error") for i in (A, B, C)]
    run.step()
    told = {i: (g.reason, g.message.split(";")[0]) for g in run.status.failures for i in g.server_ids}
    assert told == {
        A: (FailureReason.DISK_PARTITIONED, "no available data disk"),
        B: (FailureReason.INSTALL_FAILED, "Failed to install: timeout"),
        C: (FailureReason.INSTALL_FAILED, "the job failed"),
    }
    before = run.status.failures
    run.wait(WINDOW)
    run.step()
    assert run.status.failures == before


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (None, FailureReason.MEMBER_MISSING),
        (a_node(A, "Error"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, "ShutDown"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, "Abnormal"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, "Deleting"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, "Upgrading"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, "Repairing"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, "APhaseOfLater"), FailureReason.MEMBER_NOT_ACTIVE),
        (a_node(A, pool=ELSEWHERE), FailureReason.OTHER_POOL),
    ],
)
def test_a_member_that_drifted_is_reported_stays_recorded_and_recovers(
    node: Node | None, reason: FailureReason
) -> None:
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, members=(A,))), Cloud([node] if node else []))
    assert run.step_thrice().intent is None
    assert (run.causes, run.status.members) == ({A: (reason, 0)}, (A,))
    passes = node is not None and node.phase in {"Deleting", "Upgrading", "Repairing", "ShutDown", "APhaseOfLater"}
    assert (run.status.joined, run.status.failed, run.status.pending) == ((0, 0, 1) if passes else (0, 1, 0))
    assert (run.condition("Stalled") is None) == passes
    run.wait(WINDOW * 2)
    assert run.step().intent is None
    assert run.status.failed == 1
    run.cloud.nodes = active([A])
    run.step()
    assert (run.status.failures, run.status.joined, run.ready.status) == ((), 1, "True")


def test_drift_alone_is_one_reason() -> None:
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, members=(A, B))), Cloud([a_node(A, "Error")]))
    run.step_thrice()
    assert run.ready.reason is FailureReason.MEMBER_MISSING


def test_a_server_that_leaves_the_list_is_released_but_its_attempts_are_remembered() -> None:
    run = known(FailureReason.NEVER_APPEARED, attempts=3)
    run.edit(a_spec(B))
    run.cloud.nodes = active([B])
    run.step()
    assert (run.status.failed, run.ready.status) == (0, "True")
    run.edit(a_spec(A, B))
    assert run.step().intent is None
    assert (run.causes, run.status.failed) == ({A: (FailureReason.NEVER_APPEARED, 3)}, 1)


def test_a_member_that_leaves_the_list_is_no_longer_ours() -> None:
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, members=(A, B))), Cloud(active([A])))
    run.step_thrice()
    assert run.causes == {B: (FailureReason.MEMBER_MISSING, 0)}
    run.edit(a_spec(A))
    run.step()
    assert (run.status.members, run.status.failures, run.ready.status) == ((A,), (), "True")


@pytest.mark.parametrize("code", sorted(code for code, entry in CODES.items() if entry.blames))
def test_every_known_refusal_becomes_a_failure_with_its_reason_and_remedy(code: str) -> None:
    run = Run(an_object(a_spec(A)))
    entry = refusal(400, code)
    run.step(Refused(entry, f"no: {A}"))
    (group,) = run.status.failures
    assert (group.reason, group.attempts, group.count, group.server_ids) == (entry.failure, 1, 1, (A,))
    assert group.message == f"no: <id>; {entry.remedy}"


def test_attempts_are_used_up_one_call_at_a_time() -> None:
    run = Run(an_object(a_spec(A, attempts=2)))
    attempts = []
    for _ in range(2):
        intent = run.step(Refused(refusal(400, "CCE.01400001"), "no")).intent
        assert intent is not None
        attempts.append(intent.attempt)
        run.wait(retry.MAX_RETRY_WAIT * 2)
    assert attempts == [1, 2]
    assert run.step().intent is None
    assert (run.condition("Stalled") is not None, run.status.failed) == (True, 1)
    run.edit(a_spec(A, attempts=3))
    intent = run.step().intent
    assert intent is not None
    assert intent.attempt == 3


def test_fresh_servers_go_before_retries_and_never_share_a_batch_with_them() -> None:
    later = NOW + timedelta(minutes=5)
    failures = (
        a_failure(FailureReason.REFUSED, A, attempts=2, retry=later),
        a_failure(FailureReason.NEVER_APPEARED, B, retry=later),
    )
    run = Run(an_object(a_spec(A, B, C), Status(1, last_batch=3, failures=failures)))
    sent = []
    for number in range(3):
        intent = run.step(Accepted(JOB)).intent
        assert intent is not None
        sent.append((intent.server_ids, intent.attempt))
        run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active((C, B, A)[: number + 1])
        run.wait(SECOND)
        if number == 0:
            assert run.step().intent is None
        else:
            run.step(NotSent("not yet"))
        run.wait(retry.MAX_RETRY_WAIT * 2)
    assert sent == [((C,), 1), ((B,), 2), ((A,), 3)]


def test_retry_waits_double_up_to_ten_minutes_and_are_the_same_twice() -> None:
    waits = [retry.backoff(n, 7, SETTINGS).total_seconds() for n in range(1, 9)]
    assert waits == [retry.backoff(n, 7, SETTINGS).total_seconds() for n in range(1, 9)]
    for wait, base in zip(waits, [30, 60, 120, 240, 480, 600, 600, 600], strict=True):
        assert base <= wait <= base * 1.2 + 1
        assert wait == int(wait)
    assert len({retry.backoff(1, seed, SETTINGS) for seed in range(20)}) > 3


def many(count: int) -> dict[str, Cause]:
    """As many causes as servers, the rarest of them with the most attempts."""
    return {server(n): Cause(FailureReason.INSTALL_FAILED, f"cause {n:03}", n % 5) for n in range(count)}


def test_servers_with_one_cause_are_one_group() -> None:
    cause = Cause(FailureReason.REFUSED, "no", 1)
    (group,) = fold(dict.fromkeys(reversed(servers(5_000)), cause))
    assert (group.count, group.server_ids, group.attempts) == (5_000, servers(5_000), 1)


@pytest.mark.parametrize("count", [MAX_GROUPS, MAX_GROUPS + 1, 3 * MAX_GROUPS])
def test_fold_holds_at_most_fifty_groups_and_loses_no_server(count: int) -> None:
    folded = fold(many(count))
    assert len(folded) == MAX_GROUPS
    assert set(unfold(folded)) == set(many(count))
    assert sum(group.count for group in folded) == count
    assert (folded[-1].reason is FailureReason.OTHER) == (count > MAX_GROUPS)
    assert fold(unfold(folded)) == folded


def test_the_order_of_the_book_means_nothing() -> None:
    book = many(120)
    assert fold(dict(reversed(book.items()))) == fold(book)


def test_the_biggest_groups_are_kept_and_other_has_the_highest_attempts_in_it() -> None:
    big = dict.fromkeys(servers(10, first=900), Cause(FailureReason.NEVER_APPEARED, "zzz", 1))
    folded = fold({**many(60), **big, server(800): Cause(FailureReason.REFUSED, "zzzz", 9)})
    assert (folded[0].reason, folded[0].count) == (FailureReason.NEVER_APPEARED, 10)
    assert (folded[-1].reason, folded[-1].attempts) == (FailureReason.OTHER, 9)
    assert "InstallFailed, Refused" in folded[-1].message


def test_more_causes_beside_an_old_other_keep_one_other_with_the_highest_attempts() -> None:
    old = unfold(fold({**many(60), server(800): Cause(FailureReason.REFUSED, "zzzz", 9)}))
    new = {server(n): Cause(FailureReason.NODE_ERROR, f"new {n}", 1) for n in range(1000, 1010)}
    folded = fold({**old, **new})
    assert [g.reason for g in folded].count(FailureReason.OTHER) == 1
    assert (folded[-1].reason, folded[-1].attempts) == (FailureReason.OTHER, 9)
    assert fold(unfold(folded)) == folded


def test_a_failure_of_an_open_server_counts_as_joining_once() -> None:
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, attempts=3),)
    batch = a_batch(Phase.RUNNING, A, job_id=JOB, attempt=4)
    run = Run(an_object(a_spec(A, attempts=4), Status(1, last_batch=4, jobs=(batch,), failures=failures)))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.step()
    assert (run.status.desired, run.status.joining, run.status.failed, run.status.pending) == (1, 1, 0, 0)
    assert State.of(run.status).attempts(A) == 3
    assert run.ready.reason is Reason.PROGRESSING
