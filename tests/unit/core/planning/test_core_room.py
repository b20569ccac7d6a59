"""How many batches the status may list: calls wait for room, since what cannot be stored is stored never (rule P4).

Not for: the size of the object (`test_core_queries`).
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.names import MAX_JOBS
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import Refused, record
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import Query
from unit.core_builders import JOB, NOW, SECOND, SETTINGS, WINDOW, Run, a_batch, a_spec, active, an_object, servers

BAD = Refused(refusal(400, "CCE.01400001"), "bad")
HALVES = 2


def crowded(count: int, *, parallel: int = 1) -> Run:
    """So many batches whose job is over are open, since their servers do not show; four more servers are to come."""
    ids = servers(count)
    jobs = tuple(
        a_batch(Phase.VERIFYING, i, number=n, attempt=2, job_id=JOB, finished=NOW) for n, i in enumerate(ids, 1)
    )
    more = servers(4, first=count + 1)
    spec = a_spec(*ids, *more, batch_size=2, parallel=parallel)
    return Run(an_object(spec, Status(1, last_batch=count, jobs=jobs)))


def intent_of(run: Run) -> Batch:
    intent = run.step().intent
    assert intent is not None
    return intent


def test_a_call_waits_for_room_for_the_parts_of_its_refusal() -> None:
    run = crowded(MAX_JOBS - 1 - HALVES)
    assert run.step(BAD).intent is not None
    assert len(run.status.jobs) == MAX_JOBS
    run = crowded(MAX_JOBS - HALVES)
    decision = run.step()
    assert (decision.intent, decision.schedule, Query(write=True) in run.looks) == (None, Schedule.WATCH, False)


def test_it_is_said_what_is_waited_for_and_the_wait_ends_with_open_batches() -> None:
    run = crowded(MAX_JOBS)
    assert run.step().intent is None
    reconciling = run.condition("Reconciling")
    assert reconciling is not None
    assert (run.ready.reason, reconciling.reason) == (Reason.PROGRESSING, Reason.PROGRESSING_WITH_RETRY)
    assert "waits until open ones are closed" in run.ready.message
    assert run.condition("Stalled") is None
    run.wait(WINDOW - SECOND)
    assert run.step().intent is None
    run.wait(SECOND)
    assert run.step().intent is not None


@pytest.mark.parametrize("fits", [True, False])
def test_room_is_kept_for_every_refusal_that_may_still_be_recorded(fits: bool) -> None:
    """Another leader's call may be answered yet: its record must find room, too."""
    run = crowded(MAX_JOBS - 2 * (1 + HALVES) + (not fits), parallel=2)
    first = intent_of(run)
    run.wait(SECOND)
    second = run.step().intent
    assert (second is not None) is fits
    for intent in filter(None, (first, second)):
        run.store(record(run.membership, intent, BAD, run.now, SETTINGS))
        assert len(run.status.jobs) <= MAX_JOBS


def test_parts_of_a_refused_batch_wait_for_room_as_well() -> None:
    run = crowded(MAX_JOBS - 1 - HALVES)
    run.step(BAD)
    assert run.step().intent is None
    assert [batch.phase for batch in run.status.jobs[-HALVES:]] == [Phase.QUEUED] * HALVES
    run.wait(WINDOW)
    assert intent_of(run).server_ids == servers(1, first=MAX_JOBS - HALVES)


def test_so_does_a_removal() -> None:
    run = crowded(MAX_JOBS)
    (left,) = servers(1, first=1000)
    spec = replace(run.membership.spec, server_ids=frozenset(servers(MAX_JOBS)), removal_policy=RemovalPolicy.REMOVE)
    status = replace(run.status, members=(left,), surplus=1, surplus_since=NOW - WINDOW)
    status = replace(status, observed_removal_policy=RemovalPolicy.REMOVE)
    run.membership = replace(run.membership, spec=spec, status=status)
    run.cloud.nodes = active([left])
    assert run.step().intent is None
    assert "waits until open ones are closed" in run.ready.message
    run.wait(WINDOW)
    assert intent_of(run).operation is Operation.REMOVE
