"""What stays known of a failed server when it leaves the list, and what a reset forgets (rules P1, P8, P12).

Not for: what a reset does for servers on the list (`test_core_requests`), or members that leave (`test_core_removing`).
"""

from dataclasses import replace
from typing import Final

import pytest

from nodepool_membership.api.names import MAX_OBJECT_BYTES, RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS
from nodepool_membership.api.reasons import HOLDS_NODE, FailureReason, Reason
from nodepool_membership.api.status import Hold, Phase, Status
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    WINDOW,
    Cloud,
    Run,
    a_batch,
    a_failure,
    a_node,
    a_spec,
    active,
    an_object,
    servers,
)

A, B, C = servers(3)
NAMES: Final = (RECONCILE_ANNOTATIONS[0], RESET_ANNOTATIONS[0])


def failed(reason: FailureReason, attempts: int = 1) -> Run:
    """A failed by a batch that ended now, B joined; A is not in the node list, and held if it had a node."""
    failures = (a_failure(reason, A, attempts=attempts),)
    holds = (Hold((A,)),) if reason in HOLDS_NODE else ()
    batch = a_batch(Phase.FAILED, finished=NOW)
    status = Status(1, last_batch=1, members=(B,), jobs=(batch,), failures=failures, holds=holds)
    return Run(an_object(a_spec(A, B), status), Cloud(active([B])))


def reset(run: Run) -> None:
    run.annotate(dict.fromkeys(NAMES, str(run.now)))
    run.step()


@pytest.mark.parametrize("reason", sorted(HOLDS_NODE))
def test_after_a_reset_leaving_the_list_for_a_while_frees_no_server_that_may_have_a_node(
    reason: FailureReason,
) -> None:
    run = failed(reason)
    reset(run)
    run.edit(a_spec(B))
    run.step()
    assert run.status.live_ids == {A}
    run.edit(a_spec(A, B))
    assert run.step().intent is None
    run.now = NOW + WINDOW - SECOND
    assert run.step().intent is None
    run.wait(SECOND)
    assert run.step().intent is not None


def test_after_a_reset_a_higher_join_timeout_frees_no_server_whose_node_installs() -> None:
    run = failed(FailureReason.JOIN_TIMEOUT)
    run.cloud.nodes.append(a_node(A, "Installing", created=NOW))
    reset(run)
    run.edit(replace(a_spec(A, B), join_timeout_seconds=7200))
    run.step()
    run.cloud.nodes = active([B])
    assert run.step().intent is None
    assert run.status.live_ids == {A}


@pytest.mark.parametrize("reason", [FailureReason.REFUSED, FailureReason.NEVER_APPEARED, FailureReason.SERVER_IN_USE])
def test_a_reset_forgets_failures_off_the_list_and_what_is_full_says_so(reason: FailureReason) -> None:
    run = failed(reason, attempts=3)
    run.edit(a_spec(B, C))
    run.membership = replace(run.membership, wire_bytes=MAX_OBJECT_BYTES)
    run.step()
    assert run.causes == {A: (reason, 3)}
    assert run.ready.reason is Reason.STATUS_FULL
    assert "cce.nodepools.dev/reset-requested-at" in run.ready.message
    reset(run)
    assert run.causes == {}


@pytest.mark.parametrize("reason", sorted(HOLDS_NODE))
def test_no_reset_frees_off_the_list_who_may_have_a_node(reason: FailureReason) -> None:
    run = failed(reason)
    run.edit(a_spec(B))
    for _ in range(2):
        reset(run)
        assert run.status.live_ids == {A}
        run.wait(SECOND)


def test_a_reset_keeps_what_a_job_told_of_a_server_that_left_the_list_while_it_is_watched() -> None:
    run = failed(FailureReason.NEVER_APPEARED)
    batch = a_batch(Phase.VERIFYING, A, number=2, attempt=2, job_id=JOB, finished=NOW)
    run.store(replace(run.status, last_batch=2, jobs=(*run.status.jobs, batch)))
    run.edit(a_spec(B))
    reset(run)
    assert run.causes == {A: (FailureReason.NEVER_APPEARED, 1)}
