"""A new template meets a few servers first, and what follows when they do not join (P28).

Not for: the brake on many failures; test_core_brake.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FindingReason, Reason
from nodepool_membership.api.spec import Rollout, Spec
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import JobPhase, PoolReport
from nodepool_membership.core.preflight.facts import Template
from unit.core_builders import JOB, SETTINGS, Cloud, Run, a_job, a_node, a_spec, active, an_object, servers

IDS = servers(9)
FIRST, SECOND = PoolReport("", template=Template("one")), PoolReport("", template=Template("two"))


def with_canary(spec: Spec, canary: int = 1) -> Spec:
    return replace(spec, rollout=Rollout(canary))


def a_run(canary: int = 1, *, batch_size: int = 4, parallel: int = 3, pool: PoolReport = FIRST) -> Run:
    spec = with_canary(a_spec(*IDS, batch_size=batch_size, parallel=parallel), canary)
    return Run(an_object(spec), Cloud(pool=pool))


def call(run: Run) -> tuple[str, ...]:
    intent = run.step(Accepted(JOB)).intent
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    return () if intent is None else intent.server_ids


def end(run: Run, phase: str = "Active") -> None:
    """The job is over, and the servers of open batches have nodes."""
    ids = {i for batch in run.status.open_batches for i in batch.server_ids}
    run.cloud.nodes += active(ids) if phase == "Active" else [a_node(i, phase) for i in ids]
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.wait(SETTINGS.poll_interval)


def test_one_goes_first_and_nothing_beside_it_until_it_is_active() -> None:
    run = a_run()
    assert call(run) == IDS[:1]
    for _ in range(3):
        run.wait(SETTINGS.poll_interval)
        assert call(run) == ()
    end(run)
    assert call(run) == IDS[1:5]
    assert call(run) == IDS[5:]
    assert run.status.proven_template == "one"


@pytest.mark.parametrize(("canary", "size", "first"), [(3, 4, 3), (200, 4, 4), (2, 1, 1), (0, 4, 4)])
def test_a_canary_is_never_larger_than_a_batch(canary: int, size: int, first: int) -> None:
    assert len(call(a_run(canary, batch_size=size))) == first


def test_where_nothing_installs_nobody_else_is_wiped_until_somebody_says_so() -> None:
    run = a_run()
    call(run)
    end(run, "Error")
    run.step()
    stalled = run.condition("Stalled")
    assert stalled is not None
    assert stalled.reason is Reason.CANARY_FAILED
    for _ in range(3):
        run.wait(SETTINGS.resync_interval)
        assert call(run) == ()
    run.annotate({"cce.nodepools.dev/reset-requested-at": "1"})
    assert call(run) == IDS[1:2]


def test_a_canary_whose_job_does_not_end_is_told_and_nobody_else_is_wiped_until_somebody_says_so() -> None:
    run = a_run()
    assert call(run) == IDS[:1]
    run.wait(timedelta(seconds=run.membership.spec.join_timeout_seconds + 301))
    assert call(run) == ()
    assert run.ready.reason is Reason.JOB_OVERDUE
    assert "set spec.rollout.canary to 0 to add them all the same" in run.ready.message
    run.edit(with_canary(run.membership.spec, 0))
    assert call(run) == IDS[1:5]


def test_a_template_that_changes_has_to_prove_itself_again() -> None:
    run = a_run(parallel=1)
    call(run)
    end(run)
    call(run)
    run.cloud.pool = SECOND
    end(run)
    # Who was called for with the old one says nothing about the new one.
    assert call(run) == IDS[5:6]
    assert run.status.proven_template == "one"
    assert [f.reason for f in run.status.findings] == [FindingReason.TEMPLATE_CHANGED]
    end(run)
    assert call(run) == IDS[6:]
    assert run.status.proven_template == "two"
    assert run.status.findings == ()


def test_a_server_that_somebody_else_added_proves_nothing() -> None:
    run = a_run()
    run.cloud.nodes = active(IDS[:2])
    assert call(run) == IDS[2:3]
    assert run.status.proven_template is None


def test_a_canary_that_was_refused_wiped_nothing_and_the_next_one_goes() -> None:
    run = a_run()
    run.step(None)
    decided = run.newest
    run.wait(SETTINGS.settle_window * 2)
    run.cloud.jobs = {}
    assert decided.template == "one"
    run.step()
    run.wait(SETTINGS.settle_window)
    assert run.status.halt is None
