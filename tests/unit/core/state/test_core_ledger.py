"""What the process remembers of calls, where a status is lost or an older one is restored while it runs (rule P2).

Not for: a status that was lost before the process began (`test_core_lost_status`).
"""

from dataclasses import replace
from datetime import timedelta

from nodepool_membership.api.names import FINALIZER, RESET_ANNOTATIONS
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import ApprovedPlan, Halt, Operation, Phase, Status
from nodepool_membership.core.decision.decide import remembered
from nodepool_membership.core.observed.observation import JobPhase
from nodepool_membership.core.state.ledger import Ledger, is_behind, ledger_of
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_job,
    a_spec,
    an_object,
    running,
    servers,
)

A, B = servers(2)
OPEN = a_batch(Phase.RUNNING, A, number=7, job_id=JOB)
KNOWN = Ledger(7, (OPEN,))


def test_a_status_is_behind_if_its_counter_went_back_or_an_open_batch_is_not_in_it() -> None:
    assert is_behind(Status(), KNOWN)
    assert is_behind(Status(last_batch=6, jobs=(OPEN,)), KNOWN)
    assert is_behind(Status(last_batch=7), KNOWN)
    assert not is_behind(Status(last_batch=7, jobs=(OPEN,)), KNOWN)
    closed = a_batch(Phase.SUCCEEDED, A, number=7, job_id=JOB, finished=NOW)
    assert not is_behind(Status(last_batch=8, jobs=(closed,)), KNOWN)
    assert not is_behind(Status(), None)
    assert ledger_of(Status()) is None
    assert ledger_of(Status(last_batch=7, jobs=(OPEN,))) == KNOWN


def test_a_job_that_outlasts_the_wait_after_a_lost_status_is_followed_to_its_end() -> None:
    """A lost status costs the memory of calls only if the process is lost with it."""
    run = running(A)
    known = ledger_of(run.status)
    assert known is not None
    run.store(Status())
    run.store(remembered(run.membership, known, run.now, SETTINGS))
    assert (run.ready.reason, run.status.recovery) != (Reason.SUCCEEDED, None)
    assert [b.job_id for b in run.status.open_batches] == [JOB]
    for _ in range(4):
        run.wait(WINDOW)
        assert run.step().intent is None
    assert run.status.recovery is None
    assert run.status.joining == 1
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.step()
    run.wait(WINDOW)
    decision = run.step()
    assert decision.intent is None
    assert run.status.last_batch == 1


def test_an_older_status_waits_uses_no_number_again_and_removes_nobody() -> None:
    older = Status(1, last_batch=3, members=(A, B), observed_removal_policy=RemovalPolicy.REMOVE)
    spec = a_spec(A, removal=RemovalPolicy.REMOVE)
    run = Run(an_object(spec, older, generation=2, finalizers=(FINALIZER,), annotations={RESET_ANNOTATIONS[0]: "1"}))
    run.store(remembered(run.membership, Ledger(7, ()), run.now, SETTINGS))
    assert (run.status.last_batch, run.status.members, run.status.surplus) == (7, (A,), 0)
    assert run.status.recovery is not None
    assert run.status.recovery.until == NOW + WINDOW
    run.wait(timedelta(minutes=10))
    assert run.step().intent is None
    assert run.status.recovery is not None, "a reset of before it was found ended the wait"
    run.membership = replace(run.membership, spec=replace(spec, server_ids=frozenset({A, B})))
    run.cloud.nodes = []
    run.wait(WINDOW + SECOND)
    assert run.step().intent is not None
    assert run.newest.batch == 8


def test_a_server_that_another_process_has_called_for_again_is_named_once() -> None:
    """One that was frozen for long comes back, and knows of an older call."""
    again = a_batch(Phase.RUNNING, A, number=8, job_id="another")
    part = a_batch(Phase.QUEUED, B, number=9)
    known = Ledger(7, (a_batch(Phase.VERIFYING, A, B, number=7),))
    status = Status(1, last_batch=9, members=(B,), jobs=(again, part))
    kept = remembered(an_object(a_spec(A, B), status, finalizers=(FINALIZER,)), known, NOW, SETTINGS)
    assert [(b.batch, b.server_ids) for b in kept.jobs] == [(7, (B,)), (8, (A,))]
    assert (kept.members, kept.joining) == ((), 2)


def test_of_a_removal_the_nodes_go_with_their_servers() -> None:
    removal = replace(a_batch(Phase.RUNNING, A, B, number=7), operation=Operation.REMOVE, node_ids=("a", "b"))
    status = Status(1, last_batch=8, jobs=(a_batch(Phase.RUNNING, A, number=8, job_id=JOB),))
    kept = remembered(an_object(a_spec(A), status), Ledger(7, (removal,)), NOW, SETTINGS)
    assert [(b.server_ids, b.node_ids) for b in kept.jobs] == [((B,), ("b",)), ((A,), ())]


def test_a_halt_outlives_an_older_status_and_an_approval_in_it_does_not() -> None:
    halt = Halt(Reason.TOO_MANY_FAILURES, "3 of 3 were WIPED", NOW)
    known = ledger_of(Status(last_batch=7, halt=halt))
    assert known is not None
    word = ApprovedPlan("plan", "scope", "template", (A,))
    older = an_object(a_spec(A), Status(1, last_batch=1, approved_plan=word), finalizers=(FINALIZER,))
    status = remembered(older, known, NOW, SETTINGS)
    assert (status.halt, status.approved_plan) == (halt, None)
    newer = an_object(a_spec(A), replace(older.status, halt=replace(halt, message="6 of 6")), finalizers=(FINALIZER,))
    assert remembered(newer, known, NOW, SETTINGS).halt == newer.status.halt
