"""Defects that were handed over with a script, where no other test of `core` held what is right.

Not for: the others: `tests/mutants/defects.py` names the test of each.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.names import MAX_OBJECT_BYTES
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import DriftPolicy, RemovalPolicy
from nodepool_membership.core.decision.record import Accepted, NotNow, Unknown
from nodepool_membership.core.observed.observation import JobPhase, PoolReport
from nodepool_membership.core.planning.eligibility import KEPT_FOR_REMOVALS, fits
from nodepool_membership.core.state.state import State
from unit.core_builders import (
    JOB,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    known,
    running,
    servers,
)
from unit.removal_builders import DELAY, A, B, C, D, members, owing, removal


def test_servers_that_fail_one_by_one_pull_the_brake() -> None:
    """The page of the brake advises small batches; with them it has to work, too."""
    run = Run(an_object(a_spec(*servers(30), batch_size=1)))
    for _ in range(40):
        intent = run.step(Accepted(JOB)).intent
        if intent is not None:
            run.cloud.nodes += [a_node(i, "Error") for i in intent.server_ids]
        run.cloud.jobs = a_job(JobPhase.FAILED)
        run.wait(SETTINGS.poll_interval)
    assert run.status.halt is not None
    assert len(run.cloud.nodes) == 3


def test_a_count_that_disagrees_is_told_while_an_open_batch_waits_for_it() -> None:
    run = running(A, B)
    run.cloud.jobs, run.cloud.pool = a_job(JobPhase.SUCCEEDED), PoolReport("", 7)
    for _ in range(3):
        run.step()
        run.wait(WINDOW)
    assert run.status.open_batches
    assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE


@pytest.mark.parametrize("remove", [False, True])
def test_so_it_is_while_a_call_that_was_not_answered_waits_for_it_and_no_time_that_is_past(remove: bool) -> None:
    run = owing(A) if remove else Run(an_object(a_spec(A)))
    run.wait(DELAY)
    run.step(Unknown("504"))
    run.cloud.nodes, run.cloud.pool = active([D]), PoolReport("", 7)
    run.wait(WINDOW - SECOND)
    run.step()
    assert rfc3339(run.now + SECOND) in run.ready.message
    assert "still has" not in run.ready.message, "whether it has a node is what nobody knows"
    run.wait(SECOND)
    run.step()
    assert run.status.open_batches
    assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE


def test_so_it_is_while_a_server_whose_node_is_gone_waits_for_it() -> None:
    run = known(FailureReason.NODE_ERROR)
    run.step()
    run.cloud.pool = PoolReport("", 7)
    run.wait(WINDOW - SECOND)
    run.step()
    assert "attempt 2 of 3" in run.ready.message
    run.wait(SECOND)
    assert run.step().intent is None
    assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE


def test_a_deletion_is_not_let_go_while_its_removals_make_progress() -> None:
    run = members(A, B, C, spec=a_spec(A, B, C, batch_size=1, deletion=RemovalPolicy.REMOVE))
    run.delete()
    run.step()
    limit = WINDOW + timedelta(seconds=run.membership.spec.join_timeout_seconds)
    for server in (A, B):
        run.wait(limit - 2 * DELAY)
        assert removal(run) == (server,)
        run.step(Accepted(JOB))
        run.cloud.nodes = [node for node in run.cloud.nodes if node.server_id != server]
    run.wait(limit - 2 * DELAY)
    assert run.step().keeps_finalizer


def test_adds_leave_room_for_the_removal_that_would_make_the_object_smaller() -> None:
    run = owing(A, B)
    run.edit(replace(run.membership.spec, server_ids=frozenset({C, D})))
    state = State.of(run.status)
    size = next(n for n in range(MAX_OBJECT_BYTES, 0, -1000) if fits(n, state, 1))
    assert not fits(size, state, 1, spare=KEPT_FOR_REMOVALS)
    run.membership = replace(run.membership, wire_bytes=size)
    run.step()
    run.wait(DELAY)
    decision = run.step()
    assert decision.intent is not None
    assert decision.intent.server_ids == (A,) or set(decision.intent.server_ids) == {A, B}


@pytest.mark.parametrize("drift", DriftPolicy)
def test_the_preview_counts_vanished_members_that_resuming_would_add_again(drift: DriftPolicy) -> None:
    run = members(A, B, C, D, spec=a_spec(A, B, C, D, drift=drift))
    run.edit(replace(run.membership.spec, suspend=True))
    run.cloud.nodes = active([B, C, D])
    run.step()
    assert run.status.plan is not None
    assert run.status.plan.add == (drift is DriftPolicy.REJOIN)


def test_what_a_removal_waits_for_is_told_as_long_as_it_waits() -> None:
    run = owing(A)
    run.wait(DELAY)
    removal(run, NotNow(Reason.LOCKED, "the cluster is busy"))
    run.wait(SECOND)
    run.step()
    assert (run.ready.reason, run.ready.message.startswith("the cluster is busy")) == (Reason.LOCKED, True)


def test_a_vanished_node_promises_no_retry_with_attempts_used_up() -> None:
    run = known(FailureReason.NODE_ERROR, attempts=3, nodes=[])
    run.step()
    (group,) = run.status.failures
    assert (group.reason, group.retry_time) == (FailureReason.NODE_VANISHED, None)
    assert "reset-requested-at gives them back" in group.message
