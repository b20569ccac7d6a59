"""The Events that tell a change of status: one per change, none per look, nothing secret, few per batch."""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import EventReason, FailureReason, Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Condition, Phase, Plan, Status
from nodepool_membership.core.conditions.events import EventText, events_between, surplus
from nodepool_membership.core.conditions.verdict import Verdict, conditions
from nodepool_membership.core.decision.decide import acknowledge
from nodepool_membership.core.decision.record import Accepted, NotNow, NotSent, Refused, Unknown, record
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import (
    JOB,
    NOW,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    server,
    servers,
)

A, B, C = servers(3)


class Told:
    """A run whose Events are collected, one status write after the other."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events_between: list[EventText] = []

    def step(self) -> None:
        before = self.run.status
        intent = self.run.step().intent
        assert intent is None
        self.events_between += events_between(before, self.run.status)

    def call(self, answer: Accepted | NotNow | NotSent | Refused | Unknown) -> None:
        before = self.run.status
        intent = self.run.step().intent
        assert intent is not None
        self.events_between += events_between(before, self.run.status)
        before = self.run.status
        self.run.store(record(self.run.membership, intent, answer, self.run.now, SETTINGS))
        self.events_between += events_between(before, self.run.status)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(note.kind, note.reason.value) for note in self.events_between]


def test_a_batch_that_goes_well_is_told_in_two_events_and_ready_in_one() -> None:
    told = Told(Run(an_object(a_spec(A, B))))
    told.call(Accepted(JOB))
    told.run.cloud.jobs = a_job(JobPhase.RUNNING)
    for _ in range(3):
        told.step()
    told.run.cloud.jobs, told.run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B])
    for _ in range(3):
        told.step()
    assert told.told == [("Normal", "BatchSubmitted"), ("Normal", "BatchSucceeded"), ("Normal", "Succeeded")]
    assert (
        told.events_between[0].text
        == f"batch 1, add of 2 servers ({A}, {B}), attempt 1, job {JOB}: accepted, which WIPES them"
    )
    assert told.events_between[2].text == "2 of 2 servers are Active members of the pool"


def test_the_longest_life_of_a_batch_is_told_in_four_events() -> None:
    told = Told(Run(an_object(a_spec(A, B, C))))
    told.call(Unknown("the answer was lost"))
    told.run.wait(timedelta(minutes=1))
    told.run.cloud.nodes = [a_node(A, "Installing", created=NOW)]
    told.step()
    told.run.cloud.nodes = active([A])
    told.step()
    told.run.cloud.nodes = [*active([A]), a_node(B, "Error")]
    told.step()
    told.run.wait(WINDOW)
    told.step()
    assert told.run.newest.phase is Phase.PARTLY_FAILED
    about_batch = [reason for _, reason in told.told if reason.startswith("Batch")]
    assert about_batch == ["BatchVerifying", "BatchSubmitted", "BatchVerifying", "BatchFailed"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (NotSent("no connection"), EventReason.BATCH_WITHDRAWN),
        (NotNow(Reason.QUOTA_EXCEEDED, "no quota"), EventReason.BATCH_REFUSED),
        (Refused(refusal(400, ""), "no"), EventReason.BATCH_REFUSED),
        (Unknown("lost"), EventReason.BATCH_VERIFYING),
    ],
)
def test_an_answer_that_is_not_good_is_a_warning_with_its_message(
    answer: NotSent | NotNow | Refused | Unknown, reason: EventReason
) -> None:
    told = Told(Run(an_object(a_spec(A))))
    told.call(answer)
    note = told.events_between[0]
    assert (note.kind, note.reason) == ("Warning", reason)
    assert answer.message in note.text
    assert len([n for n in told.events_between if n.reason is reason]) == 1


@pytest.mark.parametrize(
    ("phase", "reason"),
    [(Phase.FAILED, EventReason.BATCH_FAILED), (Phase.PARTLY_FAILED, EventReason.BATCH_FAILED)],
)
def test_a_batch_that_failed_is_a_warning(phase: Phase, reason: EventReason) -> None:
    old = Status(jobs=(a_batch(Phase.RUNNING, A, job_id=JOB),))
    new = Status(jobs=(a_batch(phase, job_id=JOB, message="failed: 1 NodeError"),))
    (note,) = events_between(old, new)
    assert (note.kind, note.reason) == ("Warning", reason)
    assert note.text.startswith(f"batch 1, add of 1 server ({A}), attempt 1, job {JOB}: ")


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.SUBMITTING])
def test_an_intent_is_not_told(phase: Phase) -> None:
    assert events_between(Status(), Status(jobs=(a_batch(phase, A),))) == ()


def test_the_same_status_and_a_dropped_batch_tell_nothing() -> None:
    status = Status(jobs=(a_batch(Phase.SUCCEEDED), a_batch(Phase.RUNNING, A, number=2, job_id=JOB)))
    assert events_between(status, status) == ()
    assert events_between(status, Status(jobs=status.jobs[1:])) == ()


def ready(verdict: Verdict, old: Status | None = None) -> Status:
    return Status(conditions=conditions(old or Status(), verdict, 1, NOW), plan=Plan("p", 1, 1, 0, 0))


def test_the_first_event_of_a_suspension_tells_its_preview() -> None:
    """Before the cloud was looked at, there is none."""
    told = Told(Run(an_object(a_spec(A, B, suspend=True))))
    seen = acknowledge(told.run.membership, NOW, SETTINGS)
    assert events_between(told.run.status, seen) == ()
    told.run.store(seen)
    told.step()
    told.step()
    (note,) = told.events_between
    assert note == EventText("Normal", Reason.SUSPENDED, "suspended; would add 2 in 1 call, which WIPES them, adopt 0")


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Verdict("True", Reason.SUCCEEDED, "done"), "Normal"),
        (Verdict("True", Reason.SUSPENDED, "done"), "Normal"),
        (Verdict("False", Reason.SUSPENDED, "would add"), "Normal"),
        (Verdict("False", Reason.DELETING, "waits", "Reconciling", Reason.DELETING), "Normal"),
        (Verdict("False", Reason.THROTTLED, "waits", "Reconciling", Reason.PROGRESSING_WITH_RETRY), "Warning"),
        (Verdict("False", FailureReason.DISK_PARTITIONED, "bad disk", "Stalled"), "Warning"),
        (Verdict("Unknown", Reason.CLOUD_UNREACHABLE, "no look"), "Warning"),
    ],
)
def test_a_new_reason_of_ready_is_told_once(verdict: Verdict, kind: str) -> None:
    default = Status(conditions=(Condition("Ready", "Unknown", Reason.PENDING),))
    new = ready(verdict)
    (note,) = events_between(default, new)
    assert (note.kind, note.reason, note.text) == (kind, verdict.reason, verdict.message)
    assert events_between(Status(), new) == (note,)
    another = Verdict(verdict.ready, verdict.reason, "other words", verdict.abnormal, verdict.abnormal_reason)
    assert events_between(new, ready(another, new)) == ()


def test_progress_is_told_by_its_batches() -> None:
    moving = Verdict("False", Reason.PROGRESSING, "1 of 2", "Reconciling", Reason.PROGRESSING)
    assert events_between(ready(Verdict("True", Reason.SUCCEEDED, "done")), ready(moving)) == ()


def test_an_event_names_our_servers_and_nothing_that_the_cloud_names() -> None:
    told = Told(Run(an_object(a_spec(A))))
    told.call(Refused(refusal(400, ""), f"server {server(9)} is bad (request {'0f' * 16})"))
    assert told.events_between
    for note in told.events_between:
        assert server(9) not in note.text
        assert "0f0f" not in note.text
    assert A in told.events_between[0].text


def owing(*left: str) -> tuple[Run, Status]:
    spec = a_spec(A, B, C, removal=RemovalPolicy.REMOVE)
    run = Run(an_object(spec, Status(1, last_batch=1, members=(A, B, C))))
    run.cloud.nodes = active([A, B, C])
    run.step()
    before = run.status
    run.edit(replace(spec, server_ids=frozenset(left)))
    return run, before


def test_members_that_become_owed_are_announced_with_time_and_remedy() -> None:
    run, _ = owing(A)
    before = run.membership
    run.step()
    (note,) = surplus(before, run.membership, SETTINGS)
    assert (note.kind, note.reason) == ("Warning", EventReason.REMOVAL_OWED)
    assert note.text == (
        f"2 members to be removed and REINSTALLED ({B}, {C}) from 2026-01-02T03:02:00Z on; back on spec.serverIDs, or"
        " under spec.removalPolicy: Retain, they stay"
    )
    before = run.membership
    run.step()
    assert list(surplus(before, run.membership, SETTINGS)) == [], "once"


def test_a_removal_is_told_by_what_it_does_and_by_its_outcome() -> None:
    run, _ = owing(A)
    run.step()
    run.wait(SETTINGS.removal_delay)
    told = Told(run)
    told.call(Accepted(JOB))
    subject = f"batch 2, removal of 2 servers ({B}, {C}), attempt 1, job {JOB}"
    assert told.events_between[0].text == f"{subject}: accepted, which REINSTALLS them"
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    told.step()
    assert (told.events_between[1].kind, told.events_between[1].reason) == ("Normal", EventReason.BATCH_SUCCEEDED)
    assert told.events_between[1].text == f"{subject}: 2 removed and REINSTALLED"


def test_a_failed_add_names_who_failed_and_why() -> None:
    told = Told(Run(an_object(a_spec(A, B, C))))
    told.call(Accepted(JOB))
    told.run.cloud.jobs, told.run.cloud.nodes = a_job(JobPhase.FAILED), [*active([A, B]), a_node(C, "Error")]
    told.step()
    assert told.events_between[1].text.endswith(f"job {JOB}: 2 joined, 1 failed: 1 NodeError ({C})")


def test_what_passes_by_itself_is_no_warning() -> None:
    for answer in (NotNow(Reason.LOCKED, "locked"), NotSent("the operator is stopping", Reason.PROGRESSING)):
        told = Told(Run(an_object(a_spec(A))))
        told.call(answer)
        assert told.events_between[0].kind == "Normal"
    told = Told(Run(an_object(a_spec(A))))
    told.call(Accepted(JOB))
    told.run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    told.step()
    assert (told.events_between[1].kind, told.events_between[1].reason) == ("Normal", EventReason.BATCH_VERIFYING)
