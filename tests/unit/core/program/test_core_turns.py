"""Adding and removing take turns: what one of them waits for must not keep the other from happening.

Not for: what is removed when (`test_core_removing`), or what is added next (`test_core_eligibility`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Operation, Phase
from nodepool_membership.core.decision.record import Accepted, NotNow, Refused
from nodepool_membership.core.observed.catalogue import refusal
from unit.core_builders import JOB, Run, a_batch, a_node
from unit.removal_builders import DELAY, A, B, D, members, owing, removal, removing_spec

IN_USE = Refused(refusal(400, "CCE.01400001", "already in a cluster"), "already in a cluster", "already in a cluster")


def steps_until_removed(run: Run) -> int:
    """Adds are refused for ever; looks come when the decision asks for them."""
    for step in range(20):
        decision = run.decide()
        if decision.intent is not None and decision.intent.operation is Operation.REMOVE:
            assert decision.intent.server_ids == (A,)
            return step
        run.step(IN_USE)
        if decision.intent is None:
            assert decision.delay is not None
            run.wait(timedelta(seconds=decision.delay))
    pytest.fail("nothing is removed")


def test_a_removal_does_not_wait_for_an_add_that_is_tried_again_for_ever() -> None:
    run = members(A, D)
    run.edit(removing_spec(B, D))
    steps_until_removed(run)
    removal(run, Accepted(JOB))
    assert Operation.REMOVE not in {wait.operation for wait in run.status.waits}


def test_a_removal_waits_as_long_as_the_cloud_refuses_calls() -> None:
    run = owing(A)
    run.wait(DELAY)
    assert removal(run, NotNow(Reason.LOCKED, "busy", 300)) == (A,)
    run.wait(timedelta(seconds=299))
    assert removal(run) == ()
    run.wait(timedelta(seconds=1))
    assert removal(run) == (A,)


def test_a_refused_call_that_was_carried_out_is_doubted_also_beside_a_removal() -> None:
    run = owing(A)
    run.edit(replace(removing_spec(B, D), max_parallel_jobs=3))
    part = replace(a_batch(Phase.QUEUED, B, number=2), submit_time=None)
    run.store(replace(run.status, last_batch=2, jobs=(part,)))
    run.cloud.nodes.append(a_node(B, "Installing"))
    run.step()
    run.store(replace(run.status, jobs=(part,)))
    run.wait(DELAY)
    decision = run.step()
    assert decision.doubted
    assert decision.intent is not None
