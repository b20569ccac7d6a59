"""The answer to a call whose status was lost meanwhile: what it records does not end the wait (rules P2, P9).

Not for: the wait by itself (`test_core_requests`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Phase, Status
from nodepool_membership.core.decision.decide import acknowledge
from nodepool_membership.core.decision.record import Accepted, Answer, NotNow, NotSent, Refused, Unknown, record
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import JOB, NOW, SETTINGS, WINDOW, Run, a_job, a_spec, an_object, next_attempt, servers

A, B, C, D, E = servers(5)
REQUEST = "reconcile.fluxcd.io/requestedAt"
RESET = "reconcile.fluxcd.io/resetAt"
OTHER_JOB = JOB.replace("2", "3")
BAD = Refused(refusal(400, "CCE.01400001"), "bad")
ANSWERS: list[Answer] = [Accepted(OTHER_JOB), Unknown("lost"), NotSent("no"), NotNow(Reason.LOCKED, "busy"), BAD]


def emptied() -> tuple[Run, Batch]:
    """A and B are accepted and do not show yet; the status is emptied while C and D are called for."""
    run = Run(an_object(a_spec(A, B, C, D, batch_size=2, parallel=2)))
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == (C, D)
    run.store(Status())
    assert run.membership.metadata.finalizers == (FINALIZER,)
    return run, intent


def recorded(answer: Answer, *, successor: bool = False) -> Run:
    """`successor`: another leader has found out about the loss before the answer is recorded."""
    run, intent = emptied()
    if successor:
        run.store(acknowledge(run.membership, run.now, SETTINGS))
    run.store(record(run.membership, intent, answer, run.now, SETTINGS))
    assert record(run.membership, intent, answer, run.now, SETTINGS) == run.status
    run.cloud.jobs = a_job(JobPhase.RUNNING) | {OTHER_JOB: replace(a_job(JobPhase.RUNNING)[JOB], job_id=OTHER_JOB)}
    run.wait(timedelta(seconds=60))
    return run


@pytest.mark.parametrize("successor", [False, True])
@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_neither_an_edit_nor_a_request_ends_the_wait_after_a_record(answer: Answer, *, successor: bool) -> None:
    run = recorded(answer, successor=successor)
    run.annotate({REQUEST: "one"})
    assert run.step().intent is None
    run.edit(a_spec(A, B, C, D, batch_size=2, parallel=3))
    assert run.step().intent is None
    assert next_attempt(run.status) == NOW + WINDOW
    run.wait(WINDOW - timedelta(seconds=61))
    assert run.step().intent is None


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_time_and_a_reset_end_it_and_no_number_is_used_again(answer: Answer, *, reset: bool) -> None:
    run = recorded(answer)
    numbers = {batch.batch for batch in run.status.jobs if batch.phase is not Phase.QUEUED}
    if reset:
        run.annotate({REQUEST: "one", RESET: "one"})
    else:
        run.wait(WINDOW)
    intent = run.step().intent
    assert intent is not None
    assert intent.batch > max(numbers)
    assert run.status.last_batch == intent.batch


def test_a_wait_after_it_is_not_taken_for_it() -> None:
    """Servers whose job failed during that wait are tried again later, and an edit brings them forward as ever."""
    run = recorded(Accepted(OTHER_JOB))
    run.edit(a_spec(C, D))
    failed = replace(run.cloud.jobs[OTHER_JOB], phase=JobPhase.FAILED)
    run.wait(WINDOW)
    run.cloud.jobs = {OTHER_JOB: failed}
    run.step()
    run.wait(WINDOW)
    run.step()
    run.step()
    assert run.newest.phase is Phase.FAILED
    assert next_attempt(run.status) is not None
    assert run.status.last_batch == run.newest.batch
    assert run.ready.reason is not Reason.STATUS_LOST
    run.edit(a_spec(C, D, E))
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == (E,)
