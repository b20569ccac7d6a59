"""What the answer of a call costs and whom it makes wait (protocol P6, P7, P9, P12)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Phase, Status
from nodepool_membership.core.decision.record import Accepted, Answer, NotNow, NotSent, Refused, Unknown, record
from nodepool_membership.core.observed.catalogue import About, refusal
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_failure,
    a_spec,
    active,
    an_object,
    next_attempt,
    servers,
)

A, B = servers(2)
ABOUT_SERVER = refusal(400, "CCE.01400001")
ABOUT_QUOTA = refusal(400, "CCE.01400007")
NOT_NOW = NotNow(Reason.LOCKED, "the pool is being changed")


@pytest.mark.parametrize(
    ("answer", "phase"),
    [(NotSent("no connection"), Phase.WITHDRAWN), (NOT_NOW, Phase.REFUSED)],
    ids=["not sent", "not now"],
)
def test_what_was_not_taken_up_gives_the_attempt_back(answer: Answer, phase: Phase) -> None:
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, attempts=1),)
    run = Run(an_object(a_spec(A, attempts=2), Status(1, last_batch=1, failures=failures)))
    for number in (2, 3, 4):
        intent = run.step(answer).intent
        assert intent is not None
        assert (intent.batch, intent.attempt) == (number, 2)
        assert (run.newest.phase, run.newest.server_ids, run.newest.finish_time) == (phase, (), run.now)
        assert run.causes == {A: (FailureReason.NEVER_APPEARED, 1)}
        assert (run.status.joining, run.status.pending) == (0, 1)
        run.wait(timedelta(minutes=15))


def test_a_refusal_costs_the_attempt() -> None:
    run = Run(an_object(a_spec(A, attempts=1)))
    run.step(Refused(ABOUT_SERVER, "no"))
    assert (run.newest.phase, run.causes) == (Phase.REFUSED, {A: (FailureReason.REFUSED, 1)})
    assert (run.status.failed, run.status.pending) == (1, 0)


def test_a_refusal_about_a_server_makes_no_other_wait() -> None:
    run = Run(an_object(a_spec(A, B, batch_size=1)))
    run.step(Refused(ABOUT_SERVER, "no"))
    assert run.status.waits == ()
    assert run.ready.reason is Reason.PROGRESSING
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == (B,)


@pytest.mark.parametrize("code", ["CCE.01400007", "CCE.01400002", "CCE.01403001", "CCE.01429004", "CCE.01404001"])
def test_a_refusal_about_anything_else_makes_all_wait(code: str) -> None:
    entry = refusal(400, code)
    assert entry.about is not About.SERVER
    run = Run(an_object(a_spec(A, B, batch_size=1)))
    run.step(Refused(entry, "no"))
    waited = next_attempt(run.status)
    assert waited is not None
    assert waited > NOW
    assert run.ready.reason.value == entry.reason.value
    assert entry.remedy in run.ready.message
    run.now = waited - SECOND
    assert run.step().intent is None
    run.now = waited
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == (B,)


def test_waits_grow_with_refusals_in_a_row_and_start_again_after_a_success() -> None:
    run = Run(an_object(a_spec(A)))
    waits = []
    for _ in range(7):
        run.step(NOT_NOW)
        moment = next_attempt(run.status)
        assert moment is not None
        waits.append((moment - run.now).total_seconds())
        run.now = moment
    for wait, base in zip(waits, [30, 60, 120, 240, 480, 600, 600], strict=True):
        assert base <= wait <= base * 1.2 + 1
    good = a_batch(Phase.SUCCEEDED, number=8, finished=run.now)
    run.store(replace(run.status, last_batch=8, jobs=(*run.status.jobs, good)))
    run.step(NOT_NOW)
    moment = next_attempt(run.status)
    assert moment is not None
    assert (moment - run.now).total_seconds() <= 37


def test_an_open_batch_neither_counts_nor_ends_a_row_of_refusals() -> None:
    refused = [a_batch(Phase.REFUSED, number=n, finished=NOW) for n in (1, 3)]
    batches = (refused[0], a_batch(Phase.RUNNING, B, number=2, job_id=JOB), refused[1])
    run = Run(an_object(a_spec(A, B, parallel=2), Status(1, last_batch=3, jobs=batches)))
    intent = a_batch(Phase.SUBMITTING, A, number=4)
    run.store(record(run.membership, intent, NOT_NOW, NOW, SETTINGS))
    moment = next_attempt(run.status)
    assert moment is not None
    assert 120 <= (moment - NOW).total_seconds() <= 145


@pytest.mark.parametrize(("asked", "least"), [(3.0, 30), (400.5, 400.5)])
def test_what_the_cloud_asks_us_to_wait_is_a_lower_bound(asked: float, least: float) -> None:
    run = Run(an_object(a_spec(A)))
    run.step(NotNow(Reason.THROTTLED, "too many calls", asked))
    moment = next_attempt(run.status)
    assert moment is not None
    assert least - 1 <= (moment - NOW).total_seconds() <= max(least, 37)


@pytest.mark.parametrize(
    "answer",
    [Accepted(JOB), Unknown("lost"), NOT_NOW, NotSent("no"), Refused(ABOUT_QUOTA, "no")],
    ids=lambda a: type(a).__name__,
)
def test_a_status_that_lost_the_batch_gets_it_back_with_the_same_record(answer: Answer) -> None:
    run = Run(an_object(a_spec(A)))
    intent = run.step().intent
    assert intent is not None
    kept = record(run.membership, intent, answer, NOW, SETTINGS)
    run.store(Status())
    rebuilt = record(run.membership, intent, answer, NOW, SETTINGS)
    assert (rebuilt.jobs, rebuilt.failures) == (kept.jobs, kept.failures)
    # Other batches may have been lost with this one: rule P2's wait begins.
    assert next_attempt(rebuilt) == NOW + WINDOW
    again = record(replace(run.membership, status=kept), intent, answer, NOW, SETTINGS)
    assert again == kept


def test_a_record_does_not_acknowledge_an_edit_it_did_not_see() -> None:
    run = Run(an_object(a_spec(A)))
    intent = run.step().intent
    assert intent is not None
    run.edit(a_spec(A, B))
    status = record(run.membership, intent, Accepted(JOB), NOW, SETTINGS)
    assert status.observed_generation == 1
    assert {c.observed_generation for c in status.conditions} == {1}


def test_messages_of_answers_are_plain() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(Refused(ABOUT_SERVER, f"server {A}\nis \ud800 no good " + "x" * 5_000))
    (group,) = run.status.failures
    assert group.message.startswith("server <id> is no good x")
    assert group.message.endswith(ABOUT_SERVER.remedy)
    assert len(group.message) <= 1024
    group.message.encode()


def test_a_reason_without_a_condition_of_its_name_is_call_refused() -> None:
    assert ABOUT_SERVER.condition is Reason.CALL_REFUSED
    assert ABOUT_QUOTA.condition is Reason.QUOTA_EXCEEDED


def test_a_refusal_about_the_moment_waits_and_costs_no_attempt() -> None:
    run = Run(an_object(a_spec(A)))
    for number in (1, 2):
        intent = run.step(Refused(refusal(403, "CCE.01403009"), "the cluster is being upgraded")).intent
        assert intent is not None
        assert (intent.batch, intent.attempt) == (number, 1)
        assert (run.status.failures, run.status.pending, run.ready.reason) == ((), 1, Reason.CLUSTER_NOT_READY)
        moment = next_attempt(run.status)
        assert moment is not None
        run.now = moment


@pytest.mark.parametrize("code", ["CCE.01400008", "CCE.01403001", "CCE.01429004", "CCE.01404001"])
def test_what_somebody_has_to_repair_does_not_use_up_all_attempts_within_minutes(code: str) -> None:
    """The server was not wiped: the attempts are counted (rule P12), so they have to last."""
    run = Run(an_object(a_spec(A)))
    for attempt in (1, 2, 3):
        intent = run.step(Refused(refusal(400, code), "no")).intent
        assert intent is not None
        assert intent.attempt == attempt
        moment = next_attempt(run.status)
        assert moment is not None
        run.now = moment
    assert run.now - NOW >= timedelta(minutes=70)
    run.step()
    stalled = run.condition("Stalled")
    assert stalled is not None
    assert "check" in stalled.message or "reset-requested-at" in stalled.message


def test_a_request_ends_the_wait_for_somebody() -> None:
    run = Run(an_object(a_spec(A)))
    run.step(Refused(ABOUT_QUOTA, "no"))
    run.wait(timedelta(minutes=1))
    run.annotate({"cce.nodepools.dev/reconcile-requested-at": "raised"})
    assert run.step(Accepted(JOB)).intent is not None


def watched_by_another_leader(joined: bool) -> tuple[Run, Batch]:
    """An intent whose answer its sender still has, when another leader has looked for its servers."""
    run = Run(an_object(a_spec(A, B)))
    intent = run.step().intent
    assert intent is not None
    run.wait(timedelta(minutes=1))
    run.cloud.nodes = active([A]) if joined else []
    run.step()
    return run, intent


def test_a_late_job_id_is_taken_up_for_the_servers_that_are_still_looked_for() -> None:
    run, intent = watched_by_another_leader(joined=True)
    run.step()
    assert (run.status.members, run.newest.server_ids) == ((A,), (B,))
    run.store(record(run.membership, intent, Accepted(JOB), run.now, SETTINGS))
    assert (run.newest.phase, run.newest.job_id, run.newest.server_ids) == (Phase.RUNNING, JOB, (B,))
    assert run.status.members == (A,)


def test_a_late_no_does_not_outweigh_a_node_that_was_seen() -> None:
    run, intent = watched_by_another_leader(joined=True)
    before = run.status
    for answer in (Refused(ABOUT_SERVER, "no"), NOT_NOW, NotSent("too late")):
        assert record(run.membership, intent, answer, run.now, SETTINGS) == before


def test_a_late_no_ends_a_search_that_found_nothing() -> None:
    run, intent = watched_by_another_leader(joined=False)
    before = run.status
    run.store(record(run.membership, intent, NotSent("too late"), run.now, SETTINGS))
    assert [[b.phase for b in s.jobs] for s in (before, run.status)] == [[Phase.VERIFYING], [Phase.WITHDRAWN]]


@pytest.mark.parametrize("answer", [Accepted(JOB), Refused(ABOUT_SERVER, "no"), Unknown("no answer")])
def test_a_batch_that_another_leader_has_ended_is_not_opened_again(answer: Answer) -> None:
    run, intent = watched_by_another_leader(joined=False)
    run.cloud.nodes = active([A, B])
    run.step()
    assert run.newest.phase is Phase.SUCCEEDED
    recorded = record(run.membership, intent, answer, run.now, SETTINGS)
    assert replace(recorded, jobs=tuple(replace(job, job_id=None) for job in recorded.jobs)) == run.status
