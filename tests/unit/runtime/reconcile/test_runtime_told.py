"""What the log says of a stored status: one line at info for each change of reason and each step of a batch.

Not for: which Events there are (`core.conditions`), or the lines of the audit (`chaos.test_audit`).
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from nodepool_membership import redaction
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Condition, Phase, Status
from nodepool_membership.core.conditions.verdict import Verdict, conditions
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.reconcile.store import Store
from unit.core_builders import JOB, NOW, SETTINGS, a_batch, a_spec, an_object, server
from unit.process_builders import Api, Process, Quiet

A = server(1)
DONE = Verdict("True", Reason.SUCCEEDED, "1 of 1 server is an Active member of the pool")
MOVING = Verdict("False", Reason.PROGRESSING, "0 of 1 server joined", "Reconciling", Reason.PROGRESSING)
SUSPENDED = Verdict("False", Reason.SUSPENDED, "suspended; the cloud was not looked at yet")
REFUSED = Verdict("False", FailureReason.REFUSED, "1 Refused", "Stalled")


def a_status(verdict: Verdict, *jobs: Batch) -> Status:
    return Status(conditions=conditions(Status(), verdict, 1, NOW), jobs=jobs)


def logged(before: Status, after: Status, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and first word of each line."""
    process = Process(Api())
    store = Store(process.api, Quiet(), Metrics(), process.claims, process.cloud, SETTINGS)
    caplog.clear()
    mine = an_object(a_spec(A), before)
    with caplog.at_level(logging.INFO):
        store.tell(mine, replace(mine, status=after))
    return [(r.levelname, r.getMessage().partition(":")[0]) for r in caplog.records if hasattr(r, "object")]


@pytest.mark.parametrize("verdict", [DONE, MOVING, SUSPENDED, REFUSED], ids=lambda verdict: verdict.reason)
def test_each_change_of_reason_is_one_line(verdict: Verdict, caplog: pytest.LogCaptureFixture) -> None:
    default = Status(conditions=(Condition("Ready", "Unknown", Reason.PENDING),))
    after = a_status(verdict)
    assert logged(default, after, caplog) == [("INFO", verdict.reason.value)]
    assert logged(after, after, caplog) == []


def test_each_step_of_a_batch_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    running = a_status(MOVING, a_batch(Phase.RUNNING, A, job_id=JOB))
    assert logged(a_status(MOVING), running, caplog) == [("INFO", "BatchSubmitted")]
    over = replace(a_status(DONE, replace(a_batch(Phase.SUCCEEDED, job_id=JOB, finished=NOW))), members=(A,))
    assert logged(running, over, caplog) == [("INFO", "BatchSucceeded"), ("INFO", "Succeeded")]


@pytest.mark.usefixtures("own_redactor")
async def test_nothing_that_a_tenant_chose_as_its_secret_is_missing_where_others_are_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the cloud answers is read, stored and logged in the same place."""
    api, said = Api(), "3 servers joined, as of now"
    redaction.register("servers+joined", chosen_by="cce-attackers")
    read: list[str] = []

    @asynccontextmanager
    async def open_it(*_: str) -> AsyncIterator[None]:
        read.append(redaction.redact(said))
        yield None

    monkeypatch.setattr(api, "open", open_it)
    for namespace in ("cce-victims", "cce-attackers"):
        process = Process(api)
        await process.started()
        await process.reconciler.reconcile((namespace, "pool"))
    theirs = f"3 {redaction.REDACTED}, as of now"
    assert read == [said, theirs]
    assert redaction.redact(said) == theirs, "what is done for nobody may hold anybody's secret"
