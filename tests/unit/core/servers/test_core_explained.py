"""What a failed job said of a server is still told when the server's node is gone, or never was seen (rule P10).

Not for: broken nodes that are there (`test_core_failures`), or which text means what (`test_core_catalogue`).
"""

from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.status import Hold, Phase, Status
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import (
    JOB,
    WINDOW,
    Cloud,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_spec,
    active,
    an_object,
    servers,
)

A, B = servers(2)


def failed_job(**explanations: str) -> Run:
    """A job of two that failed; one server has no node."""
    batch = a_batch(Phase.RUNNING, A, B, job_id=JOB)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=1, jobs=(batch,))), Cloud(active([B])))
    told = {A: explanations["said"]} if explanations else {}
    run.cloud.jobs = a_job(JobPhase.FAILED, "1 of 2 failed", told)
    run.step()
    return run


@pytest.mark.parametrize("said", ["disk sdb is partitioned", "boom", None])
def test_what_the_job_said_of_a_server_without_a_node_is_kept_until_it_failed(said: str | None) -> None:
    run = failed_job() if said is None else failed_job(said=said)
    assert (run.newest.phase, run.newest.server_ids, run.status.joining) == (Phase.VERIFYING, (A,), 1)
    assert run.causes == {A: (FailureReason.NEVER_APPEARED, 1)}
    before, run.cloud.jobs = run.status, {}
    run.step()
    assert run.status == before
    run.wait(WINDOW)
    assert run.step().intent is None
    assert run.causes == {A: (FailureReason.NEVER_APPEARED, 1)}
    (group,) = run.status.failures
    assert (said or "1 of 2 failed") in group.message
    assert "remove the failed node" not in group.message
    assert ("detach or wipe" if said == "disk sdb is partitioned" else "CCE console") in group.message


@pytest.mark.parametrize("phase", [JobPhase.SUCCEEDED, JobPhase.LOST])
def test_what_the_job_of_an_earlier_attempt_said_is_not_told_of_a_later_one(phase: JobPhase) -> None:
    run = failed_job(said="boom")
    run.wait(WINDOW)
    run.step()
    run.wait(timedelta(minutes=15))
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    run.cloud.jobs = a_job(phase)
    run.step()
    assert run.causes == {A: (FailureReason.NEVER_APPEARED, 1)}
    run.wait(WINDOW)
    run.step()
    assert run.causes == {A: (FailureReason.NEVER_APPEARED, 2)}
    assert "boom" not in run.status.failures[0].message


def test_a_server_that_appears_after_all_has_no_failure() -> None:
    run = failed_job(said="boom")
    run.cloud.nodes = active([A, B])
    run.step()
    assert (run.newest.phase, run.status.failures, run.status.joined) == (Phase.SUCCEEDED, (), 2)


def test_what_the_job_said_outlives_the_node() -> None:
    failures = (a_failure(FailureReason.DISK_PARTITIONED, A),)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, failures=failures, holds=(Hold((A,)),))))
    run.step()
    assert run.causes == {A: (FailureReason.NODE_VANISHED, 1)}
    assert run.status.failures[0].message == "why"
