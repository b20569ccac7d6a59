"""Servers that no add may name since a node of theirs was seen, and what frees them (rule P8).

Not for: what is told of them (`test_core_failures`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.status import Phase
from nodepool_membership.core.decision.record import Accepted, NotSent
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    known,
    next_attempt,
    servers,
)

A, B, C = servers(3)


@pytest.mark.parametrize("reason", [FailureReason.INSTALL_FAILED, FailureReason.JOIN_TIMEOUT, FailureReason.NODE_ERROR])
@pytest.mark.parametrize("attempts", [0, 1])
def test_a_failed_node_that_is_gone_is_retried_after_the_settle_window(reason: FailureReason, attempts: int) -> None:
    run = known(reason, attempts=attempts)
    run.wait(SECOND)
    gone = run.now
    assert run.step_thrice().intent is None
    assert run.causes == {A: (FailureReason.NODE_VANISHED, attempts)}
    assert next_attempt(run.status) == gone + WINDOW
    run.now = gone + WINDOW - SECOND
    assert run.step().intent is None
    run.wait(SECOND)
    intent = run.step().intent
    assert intent is not None
    assert (intent.attempt, intent.server_ids) == (attempts + 1, (A,))


def test_a_vanished_node_waits_also_while_its_own_batch_is_still_watched() -> None:
    run = Run(an_object(a_spec(A, B)))
    run.step(Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.FAILED), [a_node(A, "Error")]
    run.step()
    assert (run.newest.phase, run.newest.server_ids) == (Phase.VERIFYING, (B,))
    run.cloud.nodes = []
    run.wait(timedelta(minutes=2))
    assert run.step_thrice().intent is None
    assert run.causes == {A: (FailureReason.NODE_VANISHED, 1)}


def test_a_vanished_node_waits_also_while_another_of_its_batch_is_on_its_way_again() -> None:
    run = Run(an_object(a_spec(A, B, parallel=2)))
    run.step(Accepted(JOB))
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.LOST), [a_node(A, "Error")]
    run.step()
    run.cloud.nodes = [a_node(B, "Installing", created=run.now)]
    assert run.step_thrice().intent is None
    assert run.causes == {A: (FailureReason.NODE_VANISHED, 1)}
    gone = run.status.holds[0].since
    assert gone is not None
    run.cloud.nodes = active([B])
    assert run.step().intent is None
    assert next_attempt(run.status) == gone + WINDOW


def test_one_listing_without_the_node_of_a_failed_server_frees_it_never() -> None:
    """A listing can be wrong for a moment, however long the add that made the node is over (rules P8, P13)."""
    run = known(FailureReason.NODE_ERROR, nodes=(a_node(A, "Error"),))
    run.now = NOW + 10 * WINDOW
    for _ in range(3):
        run.cloud.nodes = []
        for _ in range(2):
            run.wait(SETTINGS.resync_interval)
            assert run.step().intent is None
        run.cloud.nodes = [a_node(A, "Error")]
        run.wait(SETTINGS.resync_interval)
        run.step()
        assert run.causes == {A: (FailureReason.NODE_ERROR, 1)}
    run.cloud.nodes = []
    run.wait(SETTINGS.resync_interval)
    assert run.step_thrice().intent is None
    run.wait(WINDOW)
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == (A,)


def test_no_edit_no_reset_and_no_other_cause_frees_a_server_whose_node_just_vanished() -> None:
    run = known(FailureReason.NODE_ERROR, nodes=(a_node(A, "Error"),))
    run.step()
    run.cloud.nodes = []
    run.edit(a_spec(B))
    run.step()
    run.annotate({"cce.nodepools.dev/reset-requested-at": "1"})
    run.step()
    run.edit(a_spec(A, B))
    run.store(replace(run.status, failures=(a_failure(FailureReason.REFUSED, A, attempts=0),)))
    while run.now + timedelta(minutes=1) < NOW + WINDOW:
        run.wait(timedelta(minutes=1))
        intent = run.step(NotSent("no")).intent
        assert intent is None or A not in intent.server_ids
    assert A in run.status.live_ids


def test_a_reset_does_not_shorten_the_window_of_a_node_that_vanishes_after_it() -> None:
    run = known(FailureReason.NODE_ERROR, nodes=(a_node(A, "Error"),))
    run.annotate({"reconcile.fluxcd.io/requestedAt": "1", "reconcile.fluxcd.io/resetAt": "1"})
    run.step()
    assert run.causes == {A: (FailureReason.NODE_ERROR, 0)}
    run.cloud.nodes = []
    run.wait(timedelta(minutes=1))
    assert run.step().intent is None
