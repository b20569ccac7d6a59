"""Nodes that a batch has not made: older ones are adopted, those of foreign jobs reported (rules P10 and P17)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import EventReason
from nodepool_membership.api.status import Batch, Phase, Status
from nodepool_membership.core.conditions.events import events_between
from nodepool_membership.core.decision.record import Accepted, Unknown
from nodepool_membership.core.observed.observation import JobPhase, JobReport
from nodepool_membership.core.observed.provenance import OLDER
from unit.core_builders import JOB, NOW, SECOND, WINDOW, Run, a_batch, a_node, a_spec, an_object, servers

IDS = servers(5)
A, B, C, D, E = IDS
SUB, STRANGE = "5ub0b78d-9368-46f3-8f29-d1a95622a568", "5t7a9978-9368-46f3-8f29-d1a95622a568"
MINUTE = timedelta(minutes=1)


def sent(*ids: str, unknown: bool = False) -> Run:
    run = Run(an_object(a_spec(*ids)))
    run.step(Unknown("the answer was lost") if unknown else Accepted(JOB))
    run.wait(10 * MINUTE)
    return run


def ended(run: Run, *sub_jobs: str) -> Batch:
    run.cloud.jobs = {JOB: JobReport(JOB, JobPhase.SUCCEEDED, sub_jobs=frozenset(sub_jobs))}
    run.step()
    return run.status.jobs[0]


def newest(run: Run) -> tuple[Phase, tuple[str, ...]]:
    return run.newest.phase, run.newest.server_ids


@pytest.mark.parametrize(("older", "phase"), [(OLDER + SECOND, Phase.PARTLY_FAILED), (OLDER, Phase.SUCCEEDED)])
def test_a_node_that_is_older_than_the_call_is_adopted_and_no_success_of_the_batch(
    older: timedelta, phase: Phase
) -> None:
    run = sent(*IDS)
    run.cloud.nodes = [a_node(i, created=NOW - older) for i in IDS[:4]] + [a_node(E, created=NOW + MINUTE)]
    batch = ended(run)
    assert batch.phase is phase
    assert (batch.adopted, batch.message) == (None if phase is Phase.SUCCEEDED else 4, None)
    assert batch.failed is None
    assert run.status.members == IDS
    assert run.ready.status == "True"


def test_what_was_found_out_about_a_call_without_an_answer_stays_told_when_its_own_nodes_appear() -> None:
    run = sent(A, B, C, unknown=True)
    run.cloud.nodes = [a_node(A, created=NOW - 10 * MINUTE), a_node(B, "Error", created=NOW - 10 * MINUTE)]
    run.step()
    assert newest(run) == (Phase.VERIFYING, (C,))
    run.cloud.nodes.append(a_node(C, "Installing", created=NOW + MINUTE))
    run.step()
    assert newest(run) == (Phase.RUNNING, (C,))
    run.cloud.nodes[2] = a_node(C, created=NOW + MINUTE)
    run.step()
    assert run.newest.phase is Phase.PARTLY_FAILED
    assert (run.newest.message, run.newest.adopted) == ("failed: 1 NodeError", 1)


def test_a_batch_all_of_whose_servers_had_nodes_has_done_nothing_but_pulls_no_brake() -> None:
    run = sent(*IDS)
    run.cloud.nodes = [a_node(i, created=NOW - 10 * MINUTE) for i in IDS]
    batch = ended(run)
    assert (batch.phase, batch.failed, batch.adopted) == (Phase.FAILED, None, 5)
    assert run.ready.status == "True"
    assert run.condition("Stalled") is None


def test_an_older_node_is_no_proof_that_an_unknown_call_was_accepted() -> None:
    run = sent(A, B, unknown=True)
    run.cloud.nodes = [a_node(A, created=NOW - 10 * MINUTE)]
    run.step()
    assert newest(run) == (Phase.VERIFYING, (B,))
    assert run.status.members == (A,)
    run.cloud.nodes.append(a_node(B, "Installing", created=NOW + MINUTE))
    run.step()
    assert newest(run) == (Phase.RUNNING, (B,))


def test_an_unknown_call_of_which_only_an_older_node_was_seen_ends_with_the_settle_window() -> None:
    run = sent(A, B, unknown=True)
    run.cloud.nodes = [a_node(A, created=NOW - 10 * MINUTE)]
    run.step()
    run.wait(WINDOW)
    run.step()
    assert (run.status.jobs[0].phase, run.status.jobs[0].adopted) == (Phase.FAILED, 1)


def test_nodes_of_foreign_jobs_that_show_one_after_the_other_are_all_counted() -> None:
    run = sent(A, B, C)
    made = zip((A, B, C), (JOB, STRANGE, STRANGE), strict=True)
    nodes = [a_node(i, created=NOW + MINUTE, job_id=job) for i, job in made]
    run.cloud.nodes = nodes[:2]
    assert ended(run).foreign == 1
    run.cloud.nodes = nodes
    run.wait(MINUTE)
    assert ended(run).foreign == 2


@pytest.mark.parametrize(
    ("jobs", "known"),
    [((JOB, STRANGE), ()), ((JOB, STRANGE), (SUB,)), ((SUB, STRANGE), (SUB,))],
    ids=["root", "root, sub jobs named", "sub job"],
)
def test_a_node_of_a_foreign_job_is_reported_once_and_still_counts(
    jobs: tuple[str, str], known: tuple[str, ...]
) -> None:
    run = sent(A, B)
    before = run.status
    run.cloud.nodes = [a_node(i, created=NOW + MINUTE, job_id=j) for i, j in zip((A, B), jobs, strict=True)]
    batch = ended(run, *known)
    assert batch.phase is Phase.SUCCEEDED
    assert batch.foreign == 1
    assert run.status.members == (A, B)
    told = [note for note in events_between(before, run.status) if note.reason is EventReason.FOREIGN_ADD]
    assert [note.kind for note in told] == ["Warning"]
    assert told[0].text.startswith("batch 1: 1 server became nodes through a job that is not of this operator")
    assert events_between(run.status, run.status) == ()


@pytest.mark.parametrize(
    ("jobs", "known", "age"),
    [
        ((STRANGE, STRANGE), (), -MINUTE),
        ((STRANGE, STRANGE), (SUB,), -MINUTE),
        (("", STRANGE), (), -MINUTE),
        ((JOB, ""), (), -MINUTE),
        ((SUB, JOB), (SUB,), -MINUTE),
        ((JOB, STRANGE), (), 10 * MINUTE),
    ],
    ids=["perhaps sub jobs", "perhaps sub jobs of those", "nothing to compare", "none", "both ours", "was there"],
)
def test_what_may_be_our_own_job_is_not_reported(jobs: tuple[str, str], known: tuple[str, ...], age: timedelta) -> None:
    run = sent(A, B)
    run.cloud.nodes = [a_node(i, created=NOW - age, job_id=j) for i, j in zip((A, B), jobs, strict=True)]
    assert ended(run, *known).foreign is None


def test_nothing_is_reported_before_our_own_job_is_known() -> None:
    run = sent(A, B, unknown=True)
    run.cloud.nodes = [a_node(i, created=NOW + MINUTE, job_id=j) for i, j in ((A, JOB), (B, STRANGE))]
    run.step()
    assert run.status.jobs[0].foreign is None


def test_the_job_of_a_call_whose_answer_was_lost_may_be_any() -> None:
    done = replace(a_batch(Phase.SUCCEEDED, job_id=JOB, finished=NOW), server_ids=())
    run = Run(an_object(a_spec(A, B), Status(last_batch=1, members=(A,), jobs=(done,))))
    run.cloud.nodes = [a_node(A, job_id=JOB)]
    run.step(Unknown("the answer was lost"))
    run.wait(10 * MINUTE)
    run.cloud.nodes.append(a_node(B, created=NOW + MINUTE, job_id=STRANGE))
    run.step()
    assert run.status.members == (A, B)
    assert run.newest.foreign is None


def test_members_show_which_kind_of_job_the_cloud_names() -> None:
    run = Run(an_object(a_spec(A, B, C), Status(last_batch=0)))
    run.cloud.nodes = [a_node(A, job_id=JOB)]
    run.step(Accepted(JOB))
    run.wait(10 * MINUTE)
    run.cloud.nodes += [a_node(i, created=NOW + MINUTE, job_id=STRANGE) for i in (B, C)]
    assert ended(run).foreign == 2
