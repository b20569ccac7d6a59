"""A refusal about servers is narrowed down to them, by the id it names or by halving; about a pool it blames nobody.

Not for: which codes are about servers (`test_core_failures`), or the brake (`test_core_brake`). Rule P15.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.names import RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Hold, Phase, Status
from nodepool_membership.core.decision.record import Accepted, Refused, record
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import ClusterReport, JobPhase
from nodepool_membership.core.planning.narrowing import named
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    SETTINGS,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    next_attempt,
    servers,
)
from unit.narrowing_builders import fresh, phases, refused, try_until_settled

IDS = servers(8)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"server {IDS[1]} is bad", (IDS[1],)),
        (f"server {IDS[1].upper()} is bad", (IDS[1],)),
        (f"{IDS[2]}, {IDS[0]}", (IDS[0], IDS[2])),
        ("no id", ()),
        (f"{IDS[7]} was never named", ()),
    ],
)
def test_a_named_id_counts_in_either_case_if_it_is_in_the_batch(text: str, found: tuple[str, ...]) -> None:
    assert named(text, IDS[:4]) == found


def test_the_record_of_a_refusal_is_the_split() -> None:
    run = fresh(*IDS)
    run.step(refused())
    assert phases(run) == [(Phase.REFUSED, ()), (Phase.QUEUED, IDS[4:]), (Phase.QUEUED, IDS[:4])]
    assert (run.status.pending, run.status.failures) == (8, ())


@pytest.mark.parametrize("said", ["a bad server", f"bad: {IDS[3]}"])
def test_a_refusal_that_is_recorded_again_splits_once(said: str) -> None:
    run = fresh(*IDS)
    intent = run.step(refused(said)).intent
    assert intent is not None
    run.wait(timedelta(seconds=30))
    assert record(run.membership, intent, refused(said), run.now, SETTINGS) == run.status


def test_a_named_server_is_blamed_and_the_rest_stays_together() -> None:
    run = fresh(*IDS)
    run.step(refused(f"bad: {IDS[3]}"))
    assert run.causes == {IDS[3]: (FailureReason.REFUSED, 1)}
    assert phases(run) == [(Phase.REFUSED, ()), (Phase.QUEUED, (*IDS[:3], *IDS[4:]))]


def test_parts_are_sent_depth_first_with_the_attempt_of_the_whole() -> None:
    run = fresh(*IDS[:4])
    run.step(refused())
    assert run.step(refused()).intent is not None
    assert phases(run)[1:] == [
        (Phase.QUEUED, IDS[2:4]),
        (Phase.REFUSED, ()),
        (Phase.QUEUED, IDS[1:2]),
        (Phase.QUEUED, IDS[:1]),
    ]
    intent = run.step(refused()).intent
    assert intent is not None
    assert (intent.server_ids, intent.attempt) == (IDS[:1], 1)
    assert run.causes == {IDS[0]: (FailureReason.REFUSED, 1)}


def test_a_part_whose_server_shows_a_node_is_in_doubt_and_not_sent() -> None:
    run = fresh(*IDS)
    run.step(refused())
    run.cloud.nodes = [a_node(IDS[5], "Installing")]
    decision = run.step()
    assert (decision.intent, decision.doubted) == (None, True)
    assert {job.phase for job in run.status.open_batches} == {Phase.VERIFYING}
    assert len(run.status.open_batches) == 2


def test_a_node_in_another_pool_says_nothing_of_a_refused_call() -> None:
    """No add of ours made it: the pool is not doubted, and the other servers are sent."""
    run = fresh(*IDS)
    run.step(refused())
    run.cloud.nodes = [a_node(IDS[5], "Installing", pool=ELSEWHERE)]
    decision = run.step(Accepted(JOB))
    assert (decision.intent is not None, decision.doubted) == (True, False)
    assert run.causes[IDS[5]][0] is FailureReason.OTHER_POOL


def test_parts_whose_servers_all_became_members_are_in_doubt_and_hold_the_object() -> None:
    """A shared listing shows that all is well; only one that planning may use shows that a refusal was not atomic."""
    run = fresh(*IDS[:2])
    run.step(refused())
    run.cloud.cluster = ClusterReport("Upgrading")
    run.step()
    run.cloud.nodes = active(IDS[:2])
    decision = run.step()
    assert (decision.intent, decision.doubted, decision.keeps_finalizer) == (None, True, True)
    assert {job.phase for job in run.status.jobs} == {Phase.REFUSED, Phase.VERIFYING}
    run.wait(timedelta(minutes=1))
    assert not run.step().keeps_finalizer
    assert (run.ready.status, run.status.joined) == ("True", 2)


@pytest.mark.parametrize("failed", [None, FailureReason.NODE_ERROR, FailureReason.JOIN_TIMEOUT])
def test_a_part_names_no_member_and_nobody_who_held_a_node(failed: FailureReason | None) -> None:
    """One listing that lacks them frees neither (rule P13)."""
    parts = (a_batch(Phase.QUEUED, IDS[0], number=2), a_batch(Phase.QUEUED, IDS[1], number=3))
    known = Status(1, last_batch=3, jobs=parts, members=IDS[1:2])
    if failed is not None:
        known = replace(known, members=(), failures=(a_failure(failed, IDS[1]),), holds=(Hold(IDS[1:2]),))
    run = Run(an_object(a_spec(*IDS[:2]), known))
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert intent.server_ids == IDS[:1]
    assert not any(job.phase is Phase.QUEUED for job in run.status.jobs)


def test_queued_parts_hold_a_suspended_object() -> None:
    run = fresh(*IDS[:2])
    run.step(refused())
    run.edit(a_spec(*IDS[:2], suspend=True))
    assert run.step().keeps_finalizer
    run.delete()
    assert not run.step().keeps_finalizer


def test_three_single_servers_refused_with_one_text_are_given_back() -> None:
    run = fresh(*IDS[:4])
    for _ in range(6):
        if run.step(refused()).intent is None:
            break
    assert run.ready.reason is Reason.POOL_REFUSES
    assert (run.status.failures, run.status.pending, run.status.failed) == ((), 4, 0)
    assert not any(job.phase is Phase.QUEUED for job in run.status.jobs)
    assert run.step().intent is None, "the halt outlives a look"


def test_one_server_refused_three_times_is_no_three() -> None:
    run = fresh(IDS[0])
    for attempt in (1, 2, 3):
        assert run.step(refused()).intent is not None
        assert run.causes == {IDS[0]: (FailureReason.REFUSED, attempt)}
        run.wait(timedelta(hours=1))
    run.step()
    assert (run.ready.reason, run.status.failed) == (FailureReason.REFUSED, 1)


@pytest.mark.parametrize("first", [0, 3, 6, 29, 61])
def test_bad_servers_that_are_neighbours_say_nothing_of_the_pool(first: int) -> None:
    ids = servers(64)
    bad = set(ids[first : first + 3])
    run = Run(an_object(a_spec(*ids, attempts=1), Status(1, last_batch=0)))
    try_until_settled(run, bad)
    assert run.causes == dict.fromkeys(bad, (FailureReason.REFUSED, 1))
    assert (run.ready.reason, run.status.joined, run.status.failed) == (FailureReason.REFUSED, 61, 3)


@pytest.mark.parametrize("attempts", [3, 5])
@pytest.mark.parametrize("reset", [False, True])
def test_bad_servers_that_are_tried_again_say_nothing_of_the_pool(attempts: int, *, reset: bool) -> None:
    """They are retried together, and so refused one after the other with none accepted in between."""
    bad = {IDS[0], IDS[3], IDS[6]}
    run = Run(an_object(a_spec(*IDS, attempts=attempts), Status(1, last_batch=0)))
    try_until_settled(run, bad)
    assert run.causes == dict.fromkeys(bad, (FailureReason.REFUSED, attempts))
    assert (run.ready.reason, run.status.joined, run.status.failed) == (FailureReason.REFUSED, 5, 3)
    if reset:
        run.annotate(dict.fromkeys((RECONCILE_ANNOTATIONS[0], RESET_ANNOTATIONS[0]), "again"))
        try_until_settled(run, bad)
        assert run.causes == dict.fromkeys(bad, (FailureReason.REFUSED, attempts))


def test_a_pool_that_refuses_servers_that_failed_otherwise_before_is_found_out_each_time() -> None:
    failures = (a_failure(FailureReason.NEVER_APPEARED, *IDS[:4], attempts=1),)
    run = Run(an_object(a_spec(*IDS[:4]), Status(1, last_batch=1, failures=failures)))
    for generation in (1, 2):
        for _ in range(6):
            if run.step(refused()).intent is None:
                break
        assert (run.status.failed, run.ready.reason) == (0, Reason.POOL_REFUSES)
        assert {attempts for _, attempts in run.causes.values()} == {1}
        run.edit(a_spec(*IDS[:4], parallel=generation + 1))
        run.wait(timedelta(hours=1))


def test_an_acceptance_in_between_ends_the_run_of_refusals() -> None:
    run = fresh(*IDS[:4])
    run.step(refused())
    run.step(refused())
    run.step(refused())
    run.step(Accepted(JOB))
    run.cloud.jobs = a_job(JobPhase.SUCCEEDED)
    run.cloud.nodes = active(IDS[1:2])
    run.step(refused())
    run.step(refused())
    run.step(refused())
    assert run.ready.reason is not Reason.POOL_REFUSES
    assert len(run.causes) == 3


def test_a_spec_edit_drops_parts_that_are_no_longer_listed() -> None:
    run = fresh(*IDS)
    run.step(refused())
    run.edit(a_spec(*IDS[4:]))
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert intent.server_ids == IDS[4:]
    assert not any(job.phase is Phase.QUEUED for job in run.status.jobs)


def in_use(said: str = "a server is being added") -> Refused:
    return Refused(refusal(400, "CCE.01400001", said), "CCE.01400001: a server is in use", said)


def test_a_server_in_use_is_set_aside_without_blame_and_the_rest_goes_on() -> None:
    run = fresh(*IDS[:4])
    run.step(in_use(f"the server is already in a cluster: {IDS[1]}"))
    assert run.causes == {IDS[1]: (FailureReason.SERVER_IN_USE, 0)}
    assert (run.status.failed, run.status.pending) == (0, 4)
    assert "remove it there" in run.status.failures[0].message
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert intent.server_ids == (IDS[0], *IDS[2:4])
    run.cloud.jobs, run.cloud.nodes = a_job(JobPhase.SUCCEEDED), active(intent.server_ids)
    assert run.step().intent is None
    assert (run.ready.reason, run.status.joined) == (FailureReason.SERVER_IN_USE, 3)
    assert run.condition("Reconciling") is not None
    assert next_attempt(run.status) is not None


def test_a_server_in_use_is_tried_again_for_ever_with_growing_waits_and_no_attempt() -> None:
    run = fresh(IDS[0])
    waits = []
    for _ in range(9):
        intent = run.step(in_use()).intent
        assert intent is not None
        assert intent.attempt == 1
        assert run.step().intent is None
        moment = next_attempt(run.status)
        assert moment is not None
        waits.append((moment - run.now).total_seconds())
        run.now = moment
    assert run.status.failed == 0
    for wait, base in zip(waits, [30, 60, 120, 240, 480, 960, 1920, 3840, 7680], strict=True):
        assert base <= wait <= base * 1.2 + 1


def test_after_a_server_in_use_that_is_not_named_the_next_look_comes_first() -> None:
    run = fresh(*IDS[:2])
    run.step(in_use())
    assert phases(run) == [(Phase.REFUSED, ())]
    assert (run.status.failures, run.ready.reason) == ((), Reason.SERVER_IN_USE)
    moment = next_attempt(run.status)
    assert moment is not None
    run.now, run.cloud.nodes = moment, [a_node(IDS[0], "Installing")]
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert intent.server_ids == IDS[1:2]


def test_a_server_in_use_that_no_look_explains_is_narrowed_down_to() -> None:
    run = fresh(*IDS[:2])
    run.step(in_use())
    run.wait(SETTINGS.settle_window)
    run.step(in_use())
    assert phases(run)[1:] == [(Phase.REFUSED, ()), (Phase.QUEUED, IDS[1:2]), (Phase.QUEUED, IDS[:1])]
    run.step(in_use())
    assert run.causes == {IDS[0]: (FailureReason.SERVER_IN_USE, 0)}
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert intent.server_ids == IDS[1:2]


def test_three_servers_in_use_say_nothing_of_the_pool() -> None:
    run = fresh(*IDS[:3])
    run.edit(a_spec(*IDS[:3], batch_size=1))
    for _ in range(3):
        run.step(in_use())
    assert run.ready.reason is not Reason.POOL_REFUSES
    assert len(run.causes) == 3


@pytest.mark.parametrize("answer", [refused(), refused(f"bad: {IDS[3]}"), in_use(f"is being added: {IDS[3]}")])
def test_a_split_that_was_stored_without_an_answer_is_not_made_twice(answer: Refused) -> None:
    """Rule P9: the record is made again from a fresh read, which may hold it already."""
    run = fresh(*IDS)
    intent = run.step(answer).intent
    assert intent is not None
    assert record(run.membership, intent, answer, run.now, SETTINGS) == run.status


def test_a_part_in_doubt_is_in_one_place_of_the_ledger() -> None:
    """Its node was seen before the batch was opened for it: what is open holds it, and nothing else does."""
    run = fresh(*IDS[:2])
    run.step(refused())
    run.cloud.nodes = [a_node(IDS[0], "Installing", created=run.now)]
    run.step()
    assert {i for job in run.status.open_batches for i in job.server_ids} == set(IDS[:2])
    assert run.status.holds == ()
