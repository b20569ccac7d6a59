"""Chains of events that once ended badly, one after the other.

Not for: searching for more (`test_core_machine`).
"""

import pytest

from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import FailureReason, Reason
from property.answers import Reply
from property.cloud_model import LATEST_ACCEPTANCE, POOL, SIGNATURE, CallPlan, Fate
from property.driver import SETTINGS, Boundary
from property.machine import IDS, a_machine
from told import condition_of


def test_a_reset_that_was_answered_before_the_status_was_lost_does_not_end_the_wait() -> None:
    machine = a_machine(1)
    machine.request_reset()
    machine.next_call(CallPlan(reply=Reply.LOST_BUT_ACCEPTED, held=LATEST_ACCEPTANCE, appears=(590,)))
    assert machine.cloud.sends == 1
    machine.lose_status()
    machine.ends_well()
    assert machine.cloud.sends == 1


def test_a_status_that_is_lost_during_a_call_is_waited_out_for_the_other_batches() -> None:
    machine = a_machine(2, batchSize=1, maxParallelJobs=2)
    machine.cloud.weather = CallPlan(job=3000, appears=(590,))
    machine.driver.run(3600.0, 1)
    machine.at(Boundary.CALLED, machine.lose_status)
    machine.run(90)
    machine.ends_well()
    assert machine.cloud.sends == 2


def test_the_finalizer_stays_while_a_batch_of_servers_off_the_list_is_open_and_the_cloud_is_away() -> None:
    machine = a_machine(1)
    machine.reconcile(2)
    machine.stored.edit(serverIDs=[], suspend=True)
    machine.request_reconcile()
    machine.reconcile(3)
    assert [(c.type, c.status) for c in machine.stored.read().status.conditions] == [("Ready", "False")]
    machine.lose_or_find_the_cloud()
    machine.reconcile(1)
    assert FINALIZER in machine.stored.finalizers
    machine.lose_or_find_the_cloud()
    machine.ends_well()


def test_a_wait_says_nothing_when_the_servers_that_waited_have_nodes_again() -> None:
    machine = a_machine(1)
    machine.cloud.weather = CallPlan(fates=(Fate.BREAKS,))
    machine.run(5)
    machine.others_remove(IDS[0])
    machine.run(16)
    assert machine.stored.read().status.holds[0].since is not None
    machine.others_add(IDS[0], POOL, "Error")
    machine.run(5)
    status = machine.stored.read().status
    assert [(c.type, c.status, c.reason) for c in status.conditions] == [
        ("Ready", "False", FailureReason.NODE_ERROR),
        ("Stalled", "True", FailureReason.NODE_ERROR),
    ]


def test_an_overdue_job_lets_others_be_called_and_why_those_wait_is_told_steadily() -> None:
    machine = a_machine(2, batchSize=1, maxParallelJobs=2)
    machine.cloud.next_calls.append(CallPlan(job=5000, appears=(5000,)))
    machine.cloud.weather = CallPlan(reply=Reply.NOT_SENT)
    machine.work(66 * 60.0, 1000)
    assert machine.stored.status["waits"]
    ready = condition_of(machine.stored.read().status, "Ready")
    assert ready is not None
    assert ready.reason is Reason.CLOUD_UNREACHABLE


def test_a_process_that_wakes_long_after_its_intent_sends_nothing() -> None:
    machine = a_machine(1)
    machine.cloud.tokens = True
    machine.cloud.next_calls.append(CallPlan(reply=Reply.LOST_BUT_ACCEPTED, appears=(300,)))
    machine.at(Boundary.INTENDED, lambda: machine.cloud.advance(1900))
    assert machine.cloud.sends == 1
    machine.ends_well()


def test_a_second_leader_does_not_send_what_the_first_one_has_sent() -> None:
    machine = a_machine(2)
    machine.a_second_leader_works_at(Boundary.CALLED, minutes=40, reconciles=40)
    machine.ends_well()
    assert machine.cloud.sends == 1


def test_a_job_that_never_ends_is_followed_and_its_servers_are_never_sent_again() -> None:
    machine = a_machine(1, joinTimeoutSeconds=600)
    machine.cloud.weather = CallPlan(job=10_000_000, fates=(Fate.NEVER,))
    machine.work(48 * 3600.0, 1000)
    assert machine.cloud.sends == 1
    ready = condition_of(machine.stored.read().status, "Ready")
    assert ready is not None
    assert ready.reason is Reason.JOB_OVERDUE


@pytest.mark.parametrize("boundary", [Boundary.READ, Boundary.LOOKED, Boundary.DECIDED, Boundary.STORED])
def test_a_clock_that_was_behind_for_a_while_does_not_make_a_call_look_long_past(boundary: Boundary) -> None:
    machine = a_machine(1, maxAttempts=2)
    machine.most_attempts = 2
    machine.next_call(CallPlan(reply=Reply.LOST_BUT_ACCEPTED, held=SIGNATURE, appears=(0,)))
    assert machine.cloud.sends == 1
    machine.clock_is_wrong_for_a_while(boundary=boundary, skew=-5000.0, back=0.0)
    machine.ends_well()
    assert machine.cloud.sends == 1


@pytest.mark.parametrize("policy", ["Report", "Rejoin"])
def test_a_member_that_goes_while_its_job_is_overdue_is_told_and_free_only_after_the_job(policy: str) -> None:
    machine = a_machine(2, maxAttempts=2, joinTimeoutSeconds=600, driftPolicy=policy)
    machine.cloud.next_calls.append(CallPlan(job=5 * 3600, appears=(0,), installs=10))
    machine.work(2 * 3600.0, 1000)
    assert set(machine.stored.read().status.members) == {IDS[0], IDS[1]}
    machine.others_remove(IDS[0])
    machine.work(2 * 3600.0, 1000)
    status = machine.stored.read().status
    told = {(group.reason, group.server_ids) for group in status.failures}
    assert told == {(FailureReason.MEMBER_MISSING, (IDS[0],))}
    assert (status.joined, status.failed, status.holds) == (1, 1, ())
    machine.cloud.end_jobs()
    machine.work(SETTINGS.settle_window.total_seconds(), 1000)
    status = machine.stored.read().status
    assert (machine.cloud.sends, status.open_batches) == (1, ())
    assert [hold.server_ids for hold in status.holds] == [(IDS[0],)]
    machine.work(3600.0, 1000)
    assert machine.cloud.sends == (2 if policy == "Rejoin" else 1)


def test_a_member_that_goes_when_its_overdue_job_ends_is_a_member_that_is_missing() -> None:
    machine = a_machine(2, maxAttempts=2, joinTimeoutSeconds=600)
    machine.cloud.next_calls.append(CallPlan(job=5 * 3600, appears=(0,), installs=10))
    machine.work(2 * 3600.0, 1000)
    machine.others_remove(IDS[0])
    machine.cloud.end_jobs()
    machine.reconcile(2)
    assert machine.stored.read().status.open_batches == ()
    machine.work(3 * 3600.0, 1000)
    assert [group.reason for group in machine.stored.read().status.failures] == [FailureReason.MEMBER_MISSING]
    assert machine.cloud.sends == 1


def test_a_member_that_breaks_while_its_job_is_overdue_is_told() -> None:
    machine = a_machine(2, joinTimeoutSeconds=600)
    machine.cloud.next_calls.append(CallPlan(job=5 * 3600, appears=(0,), installs=10))
    machine.work(2 * 3600.0, 1000)
    machine.others_break(IDS[0])
    machine.work(3600.0, 1000)
    status = machine.stored.read().status
    assert [group.reason for group in status.failures] == [FailureReason.MEMBER_NOT_ACTIVE]
    assert (status.joined, status.failed) == (1, 1)
