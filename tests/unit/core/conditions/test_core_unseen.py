"""What is told while the cloud was not looked at: of a new generation, of a running job, after one read that failed.

Not for: what a look shows (`test_core_conditions`).
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.names import PAUSED_ANNOTATION
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Approval
from nodepool_membership.core.decision.decide import acknowledge
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.observed.rivals import Rival
from unit.core_builders import SETTINGS, Cloud, Run, a_spec, active, an_object, running, servers

A, B = servers(2)
UNREACHABLE = Trouble(Reason.CLOUD_UNREACHABLE, "connect: connection refused")


def joined() -> Run:
    run = Run(an_object(a_spec(A, B)), Cloud(active([A, B])))
    run.step()
    assert run.ready.status == "True"
    return run


@pytest.mark.parametrize("run", [joined(), Run(an_object(a_spec()))], ids=["joined", "an empty list"])
def test_who_had_all_servers_is_not_ready_before_a_look_at_what_is_asked_for_now(run: Run) -> None:
    ids = sorted(run.membership.spec.server_ids)
    run.edit(replace(a_spec(*ids), max_attempts=5))
    run.store(acknowledge(run.membership, run.now, SETTINGS))
    assert (run.ready.status, run.ready.reason) == ("False", Reason.PROGRESSING)
    run.cloud.trouble = Trouble(Reason.SECRET_NOT_FOUND, "no Secret")
    run.step()
    assert (run.ready.status, run.ready.reason) == ("False", Reason.SECRET_NOT_FOUND)
    run.cloud.trouble = None
    run.step()
    assert run.ready.status == "True"


@pytest.mark.parametrize("reason", [Reason.AWAITING_APPROVAL, Reason.CONFLICT, Reason.PAUSED])
def test_one_failed_read_leaves_told_what_is_known_without_it(reason: Reason) -> None:
    asks = Approval.MANUAL if reason is Reason.AWAITING_APPROVAL else Approval.AUTOMATIC
    paused = {PAUSED_ANNOTATION: "audit"} if reason is Reason.PAUSED else {}
    run = Run(an_object(replace(a_spec(A, B), approval=asks), annotations=paused), Cloud(active([A])))
    run.rivals = {B: Rival("ns/other", better=True)} if reason is Reason.CONFLICT else {}
    run.step()
    before = run.status
    assert run.ready.reason is reason
    run.cloud.trouble = UNREACHABLE
    run.step()
    assert run.status == before


def test_a_server_that_waits_for_a_call_about_servers_off_the_list_is_told_of_it() -> None:
    run = running(A)
    run.edit(a_spec(B))
    run.step()
    assert run.ready.message == "0 of 1 server joined, 1 earlier call still followed, 1 pending"
