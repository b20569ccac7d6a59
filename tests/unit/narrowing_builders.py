"""Small builders for tests of narrowing: refusals, and a run against a cloud that refuses certain servers.

Not for: the rules (`test_core_narrowing`, `test_core_asking`).
"""

from datetime import timedelta

import pytest

from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.record import Accepted, Refused
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import JOB, Run, a_job, a_spec, active, an_object

REFUSED = refusal(400, "CCE.01400001")


def refused(said: str = "a bad server") -> Refused:
    return Refused(REFUSED, "CCE.01400001: a bad server", said)


def fresh(*ids: str) -> Run:
    return Run(an_object(a_spec(*ids), Status(1, last_batch=0)))


def phases(run: Run) -> list[tuple[Phase, tuple[str, ...]]]:
    return [(job.phase, job.server_ids) for job in run.status.jobs]


def try_until_settled(run: Run, bad: set[str], answer: Refused | None = None) -> None:
    for _ in range(200):
        intent = run.decide().intent
        if intent is None:
            run.step()
            if run.condition("Stalled") is not None:
                return
            run.wait(timedelta(minutes=15))
        elif bad.isdisjoint(intent.server_ids):
            run.step(Accepted(JOB))
            run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
            run.cloud.nodes += active(intent.server_ids)
        else:
            run.step(answer or refused())
    pytest.fail("it does not settle")
