"""A new template meets a few servers first, and what follows when they do not join (P28).

Not for: the brake on many failures; test_core_brake.
"""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from nodepool_membership.api.reasons import FindingReason, Reason
from nodepool_membership.api.spec import Rollout, Spec
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.record import Accepted, Answer, NotSent, Refused
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase, PoolReport
from nodepool_membership.core.preflight.facts import Template
from unit.core_builders import JOB, NOW, SETTINGS, Cloud, Run, a_job, a_node, a_spec, active, an_object, servers

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


@pytest.mark.parametrize(("proven", "calls"), [(None, 2), ("one", 1)])
def test_a_preview_counts_the_call_of_the_canary(proven: str | None, calls: int) -> None:
    spec = replace(with_canary(a_spec(*IDS, batch_size=9)), suspend=True)
    run = Run(an_object(spec, Status(1, last_batch=0, proven_template=proven)), Cloud(pool=FIRST))
    run.step(Accepted(JOB))
    assert run.status.plan is not None
    assert (run.status.plan.add, run.status.plan.calls) == (9, calls)


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


def late(run: Run) -> timedelta:
    return timedelta(seconds=run.membership.spec.join_timeout_seconds + 301)


def halts(run: Run, why: str) -> None:
    """Nothing is added beside the canary, however long, and the status says since when and why."""
    assert call(run) == ()
    halt, stalled = run.status.halt, run.condition("Stalled")
    assert halt is not None
    assert stalled is not None
    assert (halt.reason, halt.time, stalled.reason) == (Reason.CANARY_FAILED, run.now, Reason.CANARY_FAILED)
    assert why in halt.message
    run.wait(SETTINGS.resync_interval)
    run.annotate({"cce.nodepools.dev/reconcile-requested-at": str(run.now)})
    assert call(run) == ()
    assert run.status.halt == halt


def goes_on_with_a_canary(run: Run) -> None:
    """Once somebody says so: one again, not all."""
    run.annotate({"cce.nodepools.dev/reset-requested-at": str(run.now)})
    assert len(call(run)) == 1
    assert run.status.halt is None
    assert call(run) == ()


@pytest.mark.parametrize("job", [JobPhase.RUNNING, JobPhase.UNREADABLE])
def test_a_canary_whose_job_does_not_end_in_time_halts(job: JobPhase) -> None:
    run = a_run()
    call(run)
    run.cloud.jobs = a_job(job)
    run.wait(late(run))
    halts(run, "did not join within spec.joinTimeoutSeconds (3600 s), and may be WIPED since")
    goes_on_with_a_canary(run)
    # A person has answered for the one that hangs, not for the one that went after it.
    run.wait(late(run))
    halts(run, "batch 2, did not join")
    run.edit(with_canary(run.membership.spec, 0))
    assert call(run) == IDS[2:6]


def test_a_canary_whose_answer_nobody_heard_and_whose_node_never_shows_halts() -> None:
    run = a_run()
    run.step(None)
    assert call(run) == ()
    run.wait(SETTINGS.settle_window + SETTINGS.poll_interval)
    halts(run, "may have been WIPED and did not join: its call was not answered, and no node showed")
    goes_on_with_a_canary(run)


def test_a_canary_of_which_the_list_proves_nothing_halts_in_time() -> None:
    run = a_run(pool=replace(FIRST, current_nodes=1))
    run.cloud.nodes = active(IDS[-1:])
    run.step(None)
    run.cloud.pool = replace(FIRST, current_nodes=9)
    run.wait(late(run))
    halts(run, "did not join within spec.joinTimeoutSeconds")


def test_a_canary_whose_node_installs_for_ever_halts_in_time() -> None:
    run = a_run()
    call(run)
    end(run, "Installing")
    assert run.step().intent is None
    assert run.status.halt is None
    run.wait(late(run))
    halts(run, "was WIPED and did not join (1 failed)")


@pytest.mark.parametrize("way", ["job fails", "node vanishes", "node moves", "node is broken"])
def test_a_canary_that_fails_halts_in_every_way(way: str) -> None:
    run = a_run()
    call(run)
    if way == "job fails":
        run.cloud.jobs = a_job(JobPhase.FAILED, "why")
    elif way == "node vanishes":
        end(run, "Installing")
        run.step()
        run.cloud.nodes = []
    else:
        run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
        node = a_node(IDS[0]) if way == "node moves" else a_node(IDS[0], "Error")
        run.cloud.nodes = [replace(node, pool_id="another") if way == "node moves" else node]
    unseen = way in {"job fails", "node vanishes"}
    if unseen:
        run.wait(SETTINGS.poll_interval)
        assert run.step().intent is None
        run.wait(SETTINGS.settle_window)
    how = "may have been WIPED and did not join: no node showed (1 looked for)"
    halts(run, f"batch 1, {how}" if unseen else "batch 1, was WIPED and did not join (1 failed)")
    goes_on_with_a_canary(run)


def test_of_a_canary_is_told_how_many_were_wiped_and_how_many_only_may_have_been() -> None:
    run = a_run(canary=2)
    call(run)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.cloud.nodes = [a_node(IDS[0], "Error")]
    run.wait(SETTINGS.poll_interval)
    run.step()
    run.wait(SETTINGS.settle_window)
    halts(run, "did not join: 1 WIPED, 1 more may have been WIPED, since no node of them showed")


def broken(run: Run, phase: str, created: datetime | None, *, job: str = "") -> None:
    """The canary's call is over without a member, and adding halts."""
    call(run)
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.cloud.nodes = [a_node(IDS[0], phase, created=created, job_id=job)] if phase else []
    run.wait(SETTINGS.poll_interval)
    run.step()
    run.wait(late(run))
    run.step()
    halt = run.status.halt
    assert halt is not None
    assert halt.reason is Reason.CANARY_FAILED
    assert not run.status.open_batches
    run.wait(SETTINGS.resync_interval)


@pytest.mark.parametrize("phase", ["Error", "Installing"])
def test_a_canary_whose_node_is_active_after_its_call_was_over_ends_its_halt(phase: str) -> None:
    run = a_run()
    broken(run, phase, NOW)
    run.cloud.nodes = [a_node(IDS[0], created=NOW)]
    assert call(run) == IDS[1:5]
    assert (run.status.halt, run.status.proven_template) == (None, "one")


def test_a_canary_whose_node_never_showed_and_that_joins_by_its_own_job_ends_its_halt() -> None:
    run = a_run()
    broken(run, "", None)
    run.cloud.nodes = [a_node(IDS[0], created=run.now, job_id=JOB)]
    assert call(run) == IDS[1:5]
    assert run.status.halt is None


@pytest.mark.parametrize(("job", "days"), [("", 0), ("", -1), ("another", 0)])
def test_a_failed_canary_that_somebody_else_makes_a_node_proves_nothing(job: str, days: int) -> None:
    run = a_run()
    broken(run, "", None)
    run.cloud.nodes = [a_node(IDS[0], created=run.now + timedelta(days=days), job_id=job)]
    halt = run.status.halt
    assert call(run) == ()
    assert run.status.joined == 1
    assert (run.status.halt, run.status.proven_template) == (halt, None)


def test_a_canary_that_joins_after_the_template_was_changed_proves_nothing_of_the_new_one() -> None:
    run = a_run()
    broken(run, "Error", NOW)
    run.cloud.nodes = [a_node(IDS[0], created=NOW)]
    run.cloud.pool = SECOND
    assert call(run) == ()
    assert run.status.proven_template is None


def test_a_canary_that_joins_late_proves_the_template_and_ends_its_halt() -> None:
    run = a_run()
    call(run)
    run.wait(late(run))
    run.step()
    assert run.status.halt is not None
    end(run)
    assert call(run) == IDS[1:5]
    ended = run.status
    assert (ended.halt, ended.proven_template) == (None, "one")


def test_whatever_comes_of_a_canary_that_a_person_has_answered_for_halts_nothing_again() -> None:
    run = a_run()
    call(run)
    run.wait(late(run))
    run.step()
    run.annotate({"cce.nodepools.dev/reset-requested-at": "1"})
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.step()
    run.cloud.nodes = [a_node(IDS[0], "Error")]
    run.cloud.jobs = a_job(JobPhase.FAILED, "why")
    run.wait(SETTINGS.poll_interval)
    run.step()
    assert run.status.halt is None
    first = run.status.jobs[0]
    assert (first.phase, first.failed, first.pardoned) == (Phase.FAILED, 1, 1)


def test_a_canary_whose_server_somebody_else_made_a_node_halts_nothing() -> None:
    run = a_run()
    run.step(None)
    run.cloud.nodes = [a_node(IDS[0], created=run.now - timedelta(days=1))]
    run.wait(SETTINGS.poll_interval)
    assert call(run) == IDS[1:2]
    assert run.status.halt is None


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


@pytest.mark.parametrize(
    "answer", [Refused(refusal(400, "CCE.01400001"), f"no: {IDS[0]}", f"no: {IDS[0]}"), NotSent("why")]
)
def test_a_canary_that_was_certainly_not_taken_up_wiped_nothing_and_the_next_one_goes(answer: Answer) -> None:
    run = a_run()
    run.step(answer)
    run.wait(SETTINGS.resync_interval)
    assert len(call(run)) == 1
    assert run.status.halt is None
