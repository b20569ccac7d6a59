"""Which servers are sent next, in which batch, and what keeps them from being sent: rules P1, P3, P4, P12."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from nodepool_membership.api.membership import Membership, status_json
from nodepool_membership.api.names import MAX_OBJECT_BYTES
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.status import Batch, Failure, Hold, Operation, Phase, Status
from nodepool_membership.core.decision.decide import Decision, decide
from nodepool_membership.core.decision.record import Accepted, record
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    JobReport,
    NamespaceState,
    Node,
    NodeTable,
    Observation,
    PoolReport,
)
from nodepool_membership.core.planning import eligibility
from nodepool_membership.core.planning.eligibility import fits
from nodepool_membership.core.state.failures import MAX_GROUPS, Cause
from nodepool_membership.core.state.state import State
from told import condition_of
from unit.core_builders import (
    ELSEWHERE,
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    WINDOW,
    Run,
    a_batch,
    a_failure,
    a_job,
    a_node,
    a_spec,
    active,
    an_object,
    next_attempt,
    server,
    servers,
    well,
)

MINUTE = timedelta(minutes=1)
IDS = servers(5)


def with_jobs(*batches: Batch, members: Iterable[str] = (), failures: Iterable[Failure] = ()) -> Status:
    last = max((b.batch for b in batches), default=0)
    return Status(1, last_batch=last, jobs=batches, members=tuple(sorted(members)), failures=tuple(failures))


def ended(before: timedelta) -> Batch:
    return a_batch(Phase.SUCCEEDED, finished=NOW - before)


def running(*ids: str, number: int = 1) -> Batch:
    return a_batch(Phase.RUNNING, *ids, number=number, job_id=JOB)


def saw(*nodes: Node, at: datetime = NOW, jobs: Mapping[str, JobReport] | None = None) -> Observation:
    """All there is to see, by a listing begun when the object was read."""
    cluster = ClusterReport("Available")
    seen = Observation(at, 1000, NodeTable(at, nodes), jobs or {}, PoolReport(""), cluster, 0.0, NamespaceState())
    return replace(seen, inspection=well(servers(500), at))


def decided(membership: Membership, seen: Observation) -> Decision:
    decision = decide(membership, seen, seen.read_at, SETTINGS)
    assert isinstance(decision, Decision), f"asked for {decision}"
    return decision


def stored(membership: Membership, decision: Decision) -> Membership:
    return replace(membership, status=decision.status)


def bytes_of(status: Status) -> int:
    return len(json.dumps(status_json(status), ensure_ascii=False).encode())


@pytest.mark.parametrize("phase", ["Installing", "Error", "Deleting", "Active", "SomethingNew"])
@pytest.mark.parametrize("pool", ["", ELSEWHERE])
def test_a_server_that_has_a_node_is_never_named(phase: str, pool: str) -> None:
    membership = an_object(a_spec(*IDS), Status(1, last_batch=0))
    here = decided(membership, saw(*(a_node(i, phase) for i in IDS)))
    there = decided(membership, saw(*(a_node(i, phase, pool) for i in IDS)))
    assert (here.intent, there.intent) == (None, None)
    assert {(f.reason, f.attempts, f.count) for f in there.status.failures} == {(FailureReason.OTHER_POOL, 0, 5)}


def test_members_and_servers_of_an_open_batch_are_never_named() -> None:
    status = with_jobs(running(*IDS[:2]), members=IDS[2:4])
    decision = decided(an_object(a_spec(*IDS, parallel=2), status), saw(jobs=a_job(JobPhase.RUNNING)))
    assert decision.intent is not None
    assert decision.intent.server_ids == IDS[4:], "not even a member that is missing"


def test_a_queued_part_is_sent_before_others_and_its_servers_are_not_planned_anew() -> None:
    queued = Batch(1, Operation.ADD, 1, Phase.QUEUED, 2, server_ids=IDS[:2])
    decision = decided(an_object(a_spec(*IDS), with_jobs(queued)), saw())
    assert decision.intent is not None
    assert (decision.intent.batch, decision.intent.server_ids) == (2, IDS[:2])
    assert decision.status.jobs == (decision.intent,)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_jobs_run_than_the_spec_allows(most: int) -> None:
    two = [running(server(10 + n), number=n + 1) for n in range(2)]
    membership = an_object(a_spec(*IDS, parallel=most), with_jobs(*two))
    decision = decided(membership, saw(jobs=a_job(JobPhase.RUNNING)))
    assert (decision.intent is not None) is (most > 2)


def test_a_batch_that_is_only_watched_takes_no_place_of_a_job() -> None:
    watched = a_batch(Phase.VERIFYING, IDS[0], job_id=JOB, finished=NOW - MINUTE)
    lost = a_job(JobPhase.LOST)
    assert decided(an_object(a_spec(*IDS), with_jobs(watched)), saw(jobs=lost)).intent is not None
    unknown = a_batch(Phase.VERIFYING, IDS[0])
    assert decided(an_object(a_spec(*IDS), with_jobs(unknown)), saw()).intent is None, "its job may be running"


def test_batches_take_the_smallest_ids_first_and_are_full() -> None:
    membership, named = an_object(a_spec(*IDS, batch_size=2, parallel=5), Status(1, last_batch=7)), []
    for _ in range(3):
        decision = decided(membership, saw(jobs=a_job(JobPhase.RUNNING)))
        assert decision.intent is not None
        named.append((decision.intent.batch, decision.intent.server_ids))
        membership = replace(
            membership, status=record(stored(membership, decision), decision.intent, Accepted(JOB), NOW, SETTINGS)
        )
    assert named == [(8, IDS[:2]), (9, IDS[2:4]), (10, IDS[4:])]


def test_fresh_servers_come_before_retries_and_retries_by_their_attempts() -> None:
    failures = [a_failure(FailureReason.REFUSED, IDS[0], attempts=2), a_failure(FailureReason.NEVER_APPEARED, IDS[1])]
    membership = an_object(a_spec(*IDS), with_jobs(ended(60 * MINUTE), failures=failures))
    nodes: list[Node] = []
    named = []
    for _ in range(3):
        intent = decided(membership, saw(*nodes)).intent
        assert intent is not None
        named.append((intent.server_ids, intent.attempt))
        nodes += [a_node(i, "Installing") for i in intent.server_ids]
    assert named == [(IDS[2:], 1), (IDS[1:2], 2), (IDS[:1], 3)]


@pytest.mark.parametrize("reason", [None, FailureReason.NODE_VANISHED, FailureReason.OTHER, FailureReason.REFUSED])
def test_a_server_whose_node_vanished_waits_for_the_settle_window_whatever_is_told_of_it(
    reason: FailureReason | None,
) -> None:
    """Its node was seen, and absence from one listing is no proof (rule P8)."""
    failures = [] if reason is None else [a_failure(reason, IDS[0])]
    early, late = (
        decided(
            an_object(a_spec(IDS[0]), replace(with_jobs(failures=failures), holds=(Hold(IDS[:1], NOW - ago),))), saw()
        ).intent
        for ago in (WINDOW - SECOND, WINDOW)
    )
    assert early is None
    assert late is not None
    assert late.server_ids == IDS[:1]


def test_the_wait_of_a_retry_holds_up_no_id_that_is_added_meanwhile() -> None:
    membership = an_object(
        a_spec(IDS[0]),
        with_jobs(ended(SECOND), failures=[a_failure(FailureReason.NEVER_APPEARED, IDS[0], retry=NOW + MINUTE)]),
    )
    waiting = stored(membership, decided(membership, saw()))
    assert next_attempt(waiting.status) is not None
    edited = replace(waiting, spec=a_spec(*IDS), metadata=replace(waiting.metadata, generation=2))
    intent = decided(edited, saw()).intent
    assert intent is not None
    assert intent.server_ids == IDS[1:]


def test_what_changes_during_the_wait_of_a_retry_is_told() -> None:
    failures = [a_failure(FailureReason.NEVER_APPEARED, IDS[0], retry=NOW + MINUTE)]
    membership = an_object(a_spec(*IDS), with_jobs(ended(SECOND), members=IDS[1:], failures=failures))
    first = decided(membership, saw(*active(IDS[1:])))
    later = decided(stored(membership, first), saw(*active(IDS[2:]), a_node(IDS[1], "Error"), at=NOW + SECOND))
    assert next_attempt(first.status) == next_attempt(later.status)
    ready = condition_of(later.status, "Ready")
    assert ready is not None
    assert ready.message.startswith("3 of 5 servers joined, 1 pending, 1 failed")


@pytest.mark.parametrize(("attempts", "listed"), [(3, False), (2, True)])
def test_a_running_job_is_polled_without_a_listing_if_nothing_else_could_be_sent(
    *, attempts: int, listed: bool
) -> None:
    run = Run(
        an_object(
            a_spec(*IDS, parallel=2),
            with_jobs(running(IDS[0]), failures=[a_failure(FailureReason.REFUSED, *IDS[1:], attempts=attempts)]),
        )
    )
    run.cloud.jobs = a_job(JobPhase.RUNNING)
    run.decide()
    assert any(look.listing for look in run.looks) is listed


def test_the_worst_outcome_of_a_batch_fits_into_what_is_kept_free() -> None:
    """Every server fails for a cause of its own, told at length in a script of three bytes a character (rule P4)."""
    ids = servers(200)
    membership = an_object(a_spec(*ids), Status(1, last_batch=0))
    planned = decided(membership, saw())
    assert planned.intent is not None
    accepted = record(stored(membership, planned), planned.intent, Accepted(JOB), NOW, SETTINGS)
    told = a_job(JobPhase.FAILED, explanations={i: chr(0x4E00 + n) * 2000 for n, i in enumerate(ids)})
    ended_badly = decided(replace(membership, status=accepted), saw(*(a_node(i, "Error") for i in ids), jobs=told))
    largest = max(size for size in range(0, MAX_OBJECT_BYTES, 100) if fits(size, State.of(membership.status), 200))
    assert len(ended_badly.status.failures) == MAX_GROUPS
    assert largest + bytes_of(ended_badly.status) - bytes_of(membership.status) <= MAX_OBJECT_BYTES


def test_servers_with_more_causes_than_groups_count_as_what_they_are_stored_as() -> None:
    ids = servers(120)
    told = a_job(JobPhase.FAILED, explanations={i: f"cause {n}" for n, i in enumerate(ids)})
    membership = an_object(a_spec(*ids), with_jobs(running(*ids)))
    seen = saw(*(a_node(i, "Error") for i in ids), jobs=told)
    statuses: list[Status] = []
    for _ in range(5):
        status = decided(membership, seen).status
        final = [g.count for g in status.failures if Cause(g.reason, g.message, g.attempts).is_final(3)]
        assert len(status.failures) <= MAX_GROUPS
        assert (status.failed, status.pending) == (sum(final), len(ids) - sum(final))
        statuses.append(status)
        membership = replace(membership, status=status)
    assert statuses[-1] == statuses[-2], "it comes to rest"


def test_a_server_on_its_last_retry_is_joining_even_when_fewer_attempts_are_allowed_meanwhile() -> None:
    """An open batch outranks a failure that an edit has made final (rule P25)."""
    status = with_jobs(running(IDS[0]), failures=[a_failure(FailureReason.NEVER_APPEARED, IDS[0], attempts=2)])
    after = decided(an_object(a_spec(IDS[0], attempts=1), status), saw(jobs=a_job(JobPhase.RUNNING))).status
    assert (after.desired, after.joined, after.joining, after.failed, after.pending) == (1, 0, 1, 0, 0)


def test_who_has_a_node_is_not_eligible_though_nothing_holds_it() -> None:
    """The listing is asked by itself: a hold is what is remembered of it."""
    state = State.of(Status(1, last_batch=0))
    chosen = eligibility.eligible(state, a_spec(*IDS[:2]), NodeTable(NOW, [a_node(IDS[0], "Installing")]), NOW)
    assert chosen == eligibility.Eligible(frozenset(IDS[1:2]), 1)
