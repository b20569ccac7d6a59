"""What the counters of wiped and removed servers count, over whole histories: each server once, when it is known.

Not for: how they are exported (`runtime.ops.metrics`), or what a failed server is told (`test_core_failures`).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from nodepool_membership.api.status import Phase
from nodepool_membership.core.conditions.outcomes import removed, wiped
from nodepool_membership.core.decision.record import Accepted, Answer, NotSent, Refused, Unknown
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import JobPhase
from unit.core_builders import JOB, SECOND, SETTINGS, Run, a_job, a_node, a_spec, active, an_object, servers
from unit.removal_builders import DELAY, owing

A, B, C, D = servers(4)
LOST: Final = Unknown("the answer was lost")


def counted(run: Run, *moves: Iterator[None]) -> tuple[int, int]:
    """How many were wiped and removed, by each stored status beside the one before."""
    total = (0, 0)
    for move in moves:
        before = run.status
        for _ in move:
            total = (total[0] + wiped(before, run.status), total[1] + removed(before, run.status))
            before = run.status
    return total


def step(run: Run, answer: Answer | None = None, wait: timedelta = SECOND) -> Iterator[None]:
    run.wait(wait)
    run.step(answer)
    yield


def seen(run: Run, *ids: str, phase: str = "Active", job: JobPhase = JobPhase.SUCCEEDED) -> Iterator[None]:
    """The job ends so, and these have nodes, which were made since the call."""
    run.wait(SECOND)
    run.cloud.nodes = [*run.cloud.nodes, *(a_node(i, phase, created=run.now) for i in ids)]
    run.cloud.jobs = a_job(job)
    run.step()
    yield


def test_an_accepted_add_wiped_all_of_its_servers_once_however_it_ends() -> None:
    run = Run(an_object(a_spec(A, B, C, attempts=1)))
    total = counted(run, step(run, Accepted(JOB)), seen(run, A, B), seen(run, C, phase="Error"), step(run), step(run))
    assert total == (3, 0)


def test_of_a_lost_answer_those_count_that_it_left_with_a_node() -> None:
    run = Run(an_object(a_spec(A, B, attempts=1)))
    late = SETTINGS.settle_window + SECOND
    total = counted(run, step(run, LOST), seen(run, A), step(run, wait=late), step(run, wait=late), step(run))
    assert (total, run.status.members) == ((1, 0), (A,))


def test_who_was_adopted_refused_or_not_sent_was_not_wiped() -> None:
    run = Run(an_object(a_spec(A, B, C, attempts=1)))
    run.cloud.nodes = active((A,))
    no = Refused(refusal(400, "CCE.01400001"), f"{B} is not fit", f"{B} is not fit")
    assert counted(run, step(run, NotSent("no connection")), step(run, no), step(run, no), step(run, no)) == (0, 0)
    assert A in run.status.members


def test_a_removal_counts_when_its_nodes_are_gone() -> None:
    run = owing(A, B)
    calls = (step(run, wait=DELAY), step(run, Accepted(JOB)))
    assert counted(run, *calls) == (0, 0)
    assert run.newest.phase in (Phase.SUBMITTING, Phase.RUNNING, Phase.VERIFYING)
    run.cloud.nodes = [node for node in run.cloud.nodes if node.server_id not in (A, B)]
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    late = SETTINGS.settle_window + SECOND
    assert counted(run, step(run), step(run, wait=late), step(run, wait=late), step(run)) == (0, 2)
