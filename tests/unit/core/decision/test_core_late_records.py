"""An answer that is recorded late, by a leader that has lost its lease: what its successor found out meanwhile stays.

Not for: what an answer means (`test_core_records`). Rules P8, P9, P11.
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Halt, Phase, Recovery, Status
from nodepool_membership.core.decision.record import Accepted, Answer, NotNow, NotSent, Refused, Unknown, record
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_job,
    a_node,
    a_spec,
    a_wait,
    active,
    an_object,
    servers,
)

A, B = servers(2)
NOES: list[Answer] = [
    NotSent("no"),
    NotNow(Reason.LOCKED, "busy"),
    Refused(refusal(400, "CCE.01400007"), "no"),
    Refused(refusal(400, "CCE.01400001"), "bad"),
]
ANSWERS: list[Answer] = [Accepted(JOB), Unknown("lost"), *NOES]


def taken_over() -> tuple[Run, Batch]:
    """A successor that has found the intent, and looked for its servers once."""
    run = Run(an_object(a_spec(A, B)))
    intent = run.step().intent
    assert intent is not None
    run.wait(SECOND)
    run.step()
    assert run.newest.phase is Phase.VERIFYING
    return run, intent


def recorded(run: Run, intent: Batch, answer: Answer) -> Status:
    status = record(run.membership, intent, answer, run.now, SETTINGS)
    assert record(replace(run.membership, status=status), intent, answer, run.now, SETTINGS) == status
    return status


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_a_batch_that_is_over_stays_over_and_sends_nobody_again(answer: Answer) -> None:
    run, intent = taken_over()
    run.wait(WINDOW)
    run.step()
    assert run.newest.phase is Phase.FAILED
    run.wait(WINDOW)
    again = run.step(Accepted(JOB.replace("2", "3"))).intent
    assert again is not None
    assert again.server_ids == (A, B)
    before = run.status
    late = recorded(run, intent, answer)
    job = JOB if isinstance(answer, Accepted) else None
    assert late == replace(before, jobs=(replace(before.jobs[0], job_id=job), before.jobs[1]))


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_a_batch_that_has_left_the_history_is_over(answer: Answer) -> None:
    newer = tuple(a_batch(Phase.SUCCEEDED, number=n, job_id=JOB, finished=NOW) for n in range(2, 12))
    run = Run(an_object(a_spec(A), Status(1, last_batch=11, jobs=newer, members=(A,))))
    assert recorded(run, a_batch(Phase.SUBMITTING, A), answer) == run.status


def test_a_batch_without_a_job_takes_it_and_is_followed_by_it() -> None:
    run, intent = taken_over()
    run.cloud.nodes = active([A])
    run.step()
    assert (run.newest.phase, run.newest.server_ids) == (Phase.VERIFYING, (B,))
    run.store(recorded(run, intent, Accepted(JOB)))
    batch = run.newest
    assert (batch.phase, batch.job_id, batch.server_ids, batch.finish_time) == (Phase.RUNNING, JOB, (B,), None)
    assert run.status.last_job_id == JOB
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.wait(WINDOW)
    run.step()
    assert run.newest.phase is Phase.RUNNING
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A, B])
    run.step()
    assert (run.newest.phase, run.newest.message, run.status.members) == (Phase.SUCCEEDED, None, (A, B))


@pytest.mark.parametrize("answer", NOES, ids=repr)
def test_a_no_is_certain_while_nothing_was_seen(answer: Answer) -> None:
    run, intent = taken_over()
    run.store(recorded(run, intent, answer))
    assert run.status.open_batches == ()
    assert run.status.pending == 2


@pytest.mark.parametrize("answer", [Unknown("lost"), *NOES], ids=repr)
@pytest.mark.parametrize("phase", ["Installing", "Active", "Error"])
def test_a_no_to_a_call_whose_servers_became_nodes_gives_nobody_up(answer: Answer, phase: str) -> None:
    run, intent = taken_over()
    run.cloud.nodes = [a_node(A, phase)]
    run.step()
    assert B in run.newest.server_ids
    assert recorded(run, intent, answer) == run.status


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_a_halt_outlives_a_record(answer: Answer) -> None:
    """A removal may be called meanwhile."""
    run = Run(an_object(a_spec(A, B)))
    intent = run.step().intent
    assert intent is not None
    halt = Halt(Reason.TOO_MANY_FAILURES, "3 of 3 servers", NOW)
    run.store(replace(run.status, halt=halt))
    run.store(record(run.membership, intent, answer, run.now, SETTINGS))
    assert run.status.halt == halt


def test_conditions_that_somebody_cleared_change_nothing_but_what_is_read() -> None:
    """A halt, a wait and a lost status are stored as themselves."""
    for part in (
        Status(1, last_batch=1, halt=Halt(Reason.TOO_MANY_FAILURES, "3 of 3 servers", NOW)),
        Status(1, last_batch=1, waits=(a_wait(NOW + WINDOW),)),
        Status(1, last_batch=0, recovery=Recovery(NOW, NOW + WINDOW)),
    ):
        run = Run(an_object(a_spec(A, B), part))
        assert run.step().intent is None
        told = run.status.conditions
        run.store(replace(run.status, conditions=()))
        assert run.step().intent is None
        assert run.status.conditions == told


def test_a_queued_part_never_names_a_server_of_an_open_batch() -> None:
    part = replace(a_batch(Phase.QUEUED, A, B, number=2), submit_time=None)
    running = a_batch(Phase.RUNNING, A, job_id=JOB)
    spec = a_spec(A, B, parallel=2)
    run = Run(an_object(spec, Status(1, last_batch=2, jobs=(running, part))))
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == (B,)


@pytest.mark.parametrize("reason", [Reason.PROGRESSING, Reason.UNAUTHENTICATED, Reason.CLOUD_UNREACHABLE])
def test_what_kept_a_call_from_being_sent_is_told(reason: Reason) -> None:
    run = Run(an_object(a_spec(A)))
    run.step(NotSent("the operator is stopping", reason))
    reconciling = run.condition("Reconciling")
    assert reconciling is not None
    assert (run.ready.reason, reconciling.reason) == (reason, Reason.PROGRESSING_WITH_RETRY)
    assert run.ready.message == "the operator is stopping; next attempt at 2026-01-02T03:00:34Z"


def test_a_wait_that_is_over_is_told_no_more_also_where_nothing_is_to_be_called() -> None:
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, members=(A,), waits=(a_wait(NOW + SECOND),))))
    run.cloud.nodes = active([A])
    told = []
    for _ in range(2):
        run.step()
        told.append(len(run.status.waits))
        run.wait(SECOND)
    assert told == [1, 0]


def test_a_record_beside_an_edit_that_nobody_looked_at_is_not_told_as_ready() -> None:
    run = Run(an_object(a_spec(A)))
    intent = run.step().intent
    assert intent is not None
    run.edit(a_spec())
    run.store(record(run.membership, intent, NotSent("no"), run.now, SETTINGS))
    assert (run.status.joined, run.status.desired, run.status.observed_generation) == (0, 0, 1)
    assert run.ready.status == "False"


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
def test_where_the_status_was_lost_a_server_is_named_once_and_by_a_call_that_may_act(answer: Answer) -> None:
    """A successor knew of an older call for the same servers."""
    older = a_batch(Phase.VERIFYING, A, number=1)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, jobs=(older,))))
    told = recorded(run, a_batch(Phase.SUBMITTING, A, B, number=3), answer)
    naming = [(b.batch, b.server_ids) for b in told.open_batches]
    acts = isinstance(answer, Accepted | Unknown)
    assert naming == ([(3, (A, B))] if acts else [(1, (A,))])
    assert told.live_ids == (frozenset({A, B}) if acts else frozenset({A}))
