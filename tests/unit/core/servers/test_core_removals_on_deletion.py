"""What a deletion removes, and when it is let go (rules P18, P20).

Not for: removals by an edit (`test_core_removals`).
"""

from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import JobPhase, NamespaceState, Trouble
from unit.core_builders import (
    JOB,
    SECOND,
    WINDOW,
    Run,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
)
from unit.removal_builders import (
    DELAY,
    FRESH,
    HOME,
    REMOVE,
    WRITE,
    A,
    B,
    C,
    deleted,
    due,
    members,
    owing,
    removal,
)

# Outcomes


def test_a_deletion_removes_all_recorded_members_after_the_delay() -> None:
    run = deleted(A, B)
    assert removal(run) == ()
    assert f"2 members to be removed and REINSTALLED ({A}, {B}) from 2026-01-02T03:02:00Z on" in run.ready.message
    run.wait(DELAY)
    run.cloud.nodes += active([C])
    assert removal(run, Accepted(JOB)) == (A, B)
    assert run.looks == [FRESH, HOME, WRITE]
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([C])
    assert not run.step().keeps_finalizer
    assert run.ready.reason is Reason.DELETING


def test_every_batch_of_a_deletion_asks_whether_the_namespace_goes_too() -> None:
    run = members(A, B, spec=a_spec(A, B, batch_size=1, deletion=REMOVE))
    run.delete()
    due(run)
    assert removal(run, Accepted(JOB)) == (A,)
    assert "1 member to be removed" in run.ready.message
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([B])
    run.cloud.namespace_state = NamespaceState("the namespace is being deleted, too")
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer, run.status.surplus) == (None, False, 0)
    assert HOME in run.looks


def test_a_deletion_that_takes_the_namespace_along_keeps_the_servers() -> None:
    run = deleted(A)
    run.cloud.namespace_state = NamespaceState("the namespace is being deleted, too")
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer) == (None, False)


@pytest.mark.parametrize(("suspend", "policy"), [(True, REMOVE), (False, RemovalPolicy.RETAIN)])
def test_a_deletion_under_retain_or_while_suspended_keeps_the_servers(suspend: bool, policy: RemovalPolicy) -> None:
    run = deleted(A, suspend=suspend, policy=policy)
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer, run.status.surplus) == (None, False, 0)


def test_owed_removals_end_with_a_deletion_under_retain() -> None:
    run = owing(A)
    run.delete()
    run.wait(DELAY)
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer, run.status.surplus) == (None, False, 0)


def test_retain_is_the_way_out_of_a_deletion() -> None:
    run = deleted(A)
    run.cloud.write_wait = 5.0
    assert run.step().keeps_finalizer
    run.edit(a_spec(A))
    decision = run.step()
    assert (decision.intent, decision.keeps_finalizer) == (None, False)


def test_a_deletion_adopts_nobody() -> None:
    run = deleted(A)
    run.edit(a_spec(A, B, deletion=REMOVE))
    run.cloud.nodes += active([B])
    due(run)
    assert removal(run) == (A,)
    assert B not in run.status.members


def test_who_joins_by_an_open_batch_during_the_deletion_is_removed_too() -> None:
    run = Run(an_object(a_spec(A, deletion=REMOVE)))
    run.step(Accepted(JOB))
    run.delete()
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active([A])
    due(run)
    assert removal(run) == (A,)


def test_a_deletion_that_comes_to_no_end_is_let_go() -> None:
    run = deleted(A)
    run.cloud.nodes = [a_node(A, "Upgrading")]
    assert run.step().keeps_finalizer
    run.wait(WINDOW + timedelta(seconds=run.membership.spec.join_timeout_seconds))
    assert not run.step().keeps_finalizer


def test_a_deletion_without_credentials_is_let_go_after_ten_minutes() -> None:
    run = due(deleted(A))
    run.cloud.trouble = Trouble(Reason.SECRET_NOT_FOUND, "no Secret")
    run.wait(timedelta(minutes=8) - SECOND)
    assert run.step().keeps_finalizer
    run.wait(SECOND)
    assert not run.step().keeps_finalizer
