"""The order of effects in a reconcile, and the waits that follow, without anything that performs them.

Not for: what becomes of effects (`test_runtime_calls`, `test_runtime_owners`), or every order (`tests/property`).
"""

from datetime import timedelta

import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.decide import Schedule
from nodepool_membership.core.decision.record import NotSent, Refused, Unknown
from nodepool_membership.core.observed.catalogue import refusal
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    JobReport,
    NodeTable,
    PoolReport,
    Trouble,
)
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.core.program.effects import (
    AskJobs,
    AskLease,
    ClusterView,
    ConflictError,
    Connect,
    CredentialsTried,
    Effect,
    FindRivals,
    IsDoubted,
    NoAnswerError,
    ReadCluster,
    ReadObject,
    RecallLedger,
    Reserve,
    Shield,
    Sleep,
    StoreError,
    TakeOver,
    TellWithheld,
    WaitForOthers,
    WriteStatus,
)
from nodepool_membership.core.program.memory import Memory
from nodepool_membership.core.program.requeue import Intervals, Requeue
from nodepool_membership.core.state.ledger import Ledger
from unit.core_builders import JOB, NOW, a_batch, a_spec, active, an_object, server
from unit.program_world import Answers, World

INTERVALS = Intervals(timedelta(seconds=15), timedelta(minutes=5))


def new() -> Membership:
    return an_object(a_spec(server(1)), Status(1))


def phases(world: World) -> list[Phase]:
    """Of the only batch, as it was written."""
    writes = [effect.status.jobs for effect in world.done if isinstance(effect, WriteStatus)]
    return [jobs[0].phase for jobs in writes if jobs]


def test_witness_finalizer_lease_reservation_intent_call_record() -> None:
    world = World(new())
    assert world.run() == Requeue(Schedule.NOW)
    assert world.names == [
        "WriteStatus",
        "AddFinalizer",
        "AskLease",
        "Reserve",
        "WriteStatus",
        "Shield",
        "Call",
        "WriteStatus",
    ]
    assert phases(world) == [Phase.SUBMITTING, Phase.RUNNING]


def test_before_the_others_are_read_it_is_not_read_itself_and_comes_back_when_they_may_be() -> None:
    world = World(new())
    told: list[Effect[object]] = []
    world.answers[WaitForOthers], world.told = 7.5, told.append
    assert world.run() == Requeue(Schedule.NOW, at_least=7.5)
    assert [type(effect) for effect in told] == [WaitForOthers]


@pytest.mark.parametrize(("guard", "last"), [(AskLease, "AskLease"), (Reserve, "Reserve")])
def test_without_the_lease_or_the_servers_nothing_is_stored_or_called(guard: type[Effect[object]], last: str) -> None:
    world = World(new())
    world.answers[guard] = False
    assert world.run() == Requeue(Schedule.NOW)
    assert world.names[-1] == last


@pytest.mark.parametrize(
    ("answers", "proofs"),
    [
        ({}, {True}),
        ({ReadCluster: Trouble(Reason.NOT_FOUND, "no such pool")}, {False}),
        ({Connect: Trouble(Reason.SECRET_NOT_FOUND, "no such Secret")}, {False}),
    ],
)
def test_what_was_read_with_its_credentials_is_told_before_anything_is_planned(
    answers: Answers, proofs: set[bool]
) -> None:
    world = World(new())
    world.answers.update(answers)
    seen: list[Effect[object]] = []
    world.told = seen.append
    world.run()
    assert {effect.saw for effect in seen if isinstance(effect, CredentialsTried)} == proofs
    if proofs == {True}:
        after = [
            type(effect) for effect in seen[next(i for i, e in enumerate(seen) if isinstance(e, CredentialsTried)) :]
        ]
        assert after.index(FindRivals) < after.index(Reserve)


def test_without_room_for_its_claims_nothing_is_looked_at_or_called() -> None:
    world = World(new())
    world.answers[FindRivals] = Trouble(Reason.TOO_MANY_MEMBERSHIPS, "no room")
    seen: list[Effect[object]] = []
    world.told = seen.append
    assert world.run() == Requeue(Schedule.BACKOFF, 1)
    assert world.names == ["WriteStatus"]
    assert not [effect for effect in seen if isinstance(effect, (Connect, ReadCluster))]


def test_a_removal_that_another_membership_withholds_is_told_once_it_is_stored() -> None:
    spec = a_spec(server(1), removal=RemovalPolicy.REMOVE)
    status = Status(1, last_batch=0, members=(server(1), server(2)), observed_removal_policy=RemovalPolicy.REMOVE)
    world = World(an_object(spec, status))
    world.answers[ReadCluster] = ClusterView(
        NodeTable(NOW, active([server(1), server(2)])), PoolReport("", 2), ClusterReport("Available")
    )
    theirs = {server(2): Rival("theirs/list", better=False, foreign=True)}
    world.answers[FindRivals] = theirs
    seen: list[Effect[object]] = []
    world.told = seen.append
    world.run()
    told = [type(effect) for effect in seen if isinstance(effect, (WriteStatus, TellWithheld))]
    assert told == [WriteStatus, TellWithheld]
    assert [effect.withheld for effect in seen if isinstance(effect, TellWithheld)] == [theirs]


def test_a_conflict_drops_the_plan() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,)))
    world.fails[WriteStatus] = [ConflictError()]
    assert world.run() == Requeue(Schedule.NOW)
    assert world.names == ["AskLease", "Reserve", "WriteStatus"]


def test_an_intent_whose_write_was_not_answered_is_withdrawn_where_it_stands() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,)))
    world.fails[WriteStatus] = [NoAnswerError()]

    def as_stored(effect: Effect[object]) -> None:
        if isinstance(effect, WriteStatus):
            world.answers[ReadObject] = an_object(a_spec(server(1)), effect.status, finalizers=(FINALIZER,))

    world.told = as_stored
    with pytest.raises(NoAnswerError):
        world.run()
    assert world.names == ["AskLease", "Reserve", "WriteStatus", "Shield", "WriteStatus"]
    assert phases(world) == [Phase.SUBMITTING, Phase.WITHDRAWN]
    (shield,) = [effect for effect in world.done if isinstance(effect, Shield)]
    assert isinstance(shield.answer, NotSent)


def test_a_record_is_tried_until_it_is_stored_after_a_fresh_read() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,)))
    world.fails[WriteStatus] = [None, NoAnswerError(), StoreError(), ConflictError()]
    world.fails[ReadObject] = [None, StoreError()]
    assert world.run() == Requeue(Schedule.NOW)
    assert [effect.seconds for effect in world.done if isinstance(effect, Sleep)] == [1.0, 1.0, 2.0]
    assert phases(world) == [Phase.SUBMITTING, *[Phase.RUNNING] * 4]


@pytest.mark.parametrize("doubted", [False, True])
def test_a_refusal_by_a_pool_in_doubt_says_nothing(*, doubted: bool) -> None:
    no = Refused(refusal(400, "CCE.01400001", "bad"), "400 CCE.01400001: bad", "bad")
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,)), no)
    world.answers[IsDoubted] = doubted
    world.run()
    assert phases(world) == [Phase.SUBMITTING, Phase.VERIFYING if doubted else Phase.REFUSED]


def test_an_object_that_went_meanwhile_gets_no_record() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,)), Unknown("lost"))
    world.fails[WriteStatus] = [None, ConflictError()]
    reads: list[Effect[object]] = []

    def then_gone(effect: Effect[object]) -> None:
        reads.extend([effect] if isinstance(effect, ReadObject) else [])
        if len(reads) > 1:
            world.answers[ReadObject] = None

    world.told = then_gone
    assert world.run() == Requeue(Schedule.NOW)
    assert phases(world) == [Phase.SUBMITTING, Phase.VERIFYING]


def test_a_cloud_that_cannot_be_looked_at_backs_off_and_is_remembered() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0)))
    world.answers[ReadCluster] = Trouble(Reason.CLOUD_UNREACHABLE, "no route")
    world.answers[TakeOver] = Memory(failed_reads=2, backoffs=2)
    assert world.run() == Requeue(Schedule.BACKOFF, backoffs=3)


@pytest.mark.parametrize(
    ("requeue", "seconds"),
    [
        (Requeue(Schedule.NOW), 0.0),
        (Requeue(Schedule.POLL), 15.0),
        (Requeue(Schedule.WATCH), 30.0),
        (Requeue(Schedule.BACKOFF, backoffs=1), 30.0),
        (Requeue(Schedule.BACKOFF, backoffs=3), 120.0),
        (Requeue(Schedule.BACKOFF, backoffs=40), 300.0),
        (Requeue(Schedule.BACKOFF, backoffs=1, at_least=600.0), 600.0),
        (Requeue(Schedule.POLL, at_most=4.0), 4.0),
        (Requeue(Schedule.POLL, at_most=400.0), 15.0),
        (Requeue(Schedule.NOW, at_least=20.0, by_resync=True), 20.0),
    ],
)
def test_seconds_of_a_wait(requeue: Requeue, seconds: float) -> None:
    assert INTERVALS.seconds(requeue, a_spec().node_pool, "uid", NOW) == seconds


def test_a_resync_comes_within_an_interval_at_the_same_moments_and_ends_longer_waits() -> None:
    pool = a_spec().node_pool
    first = INTERVALS.seconds(Requeue(Schedule.RESYNC), pool, "uid", NOW)
    assert 30 < first <= 330
    again = INTERVALS.seconds(Requeue(Schedule.RESYNC), pool, "uid", NOW + timedelta(seconds=first))
    assert again == pytest.approx(300)
    capped = Requeue(Schedule.NOW, at_least=4000.0, by_resync=True)
    assert INTERVALS.seconds(capped, pool, "uid", NOW) == first


def test_jitter_stretches_polls_and_leaves_resyncs() -> None:
    pool = a_spec().node_pool
    assert INTERVALS.seconds(Requeue(Schedule.POLL), pool, "uid", NOW, jitter=1.0) == pytest.approx(16.5)
    assert INTERVALS.seconds(Requeue(Schedule.POLL), pool, "uid", NOW, jitter=-1.0) == pytest.approx(13.5)
    plain = INTERVALS.seconds(Requeue(Schedule.RESYNC), pool, "uid", NOW)
    assert INTERVALS.seconds(Requeue(Schedule.RESYNC), pool, "uid", NOW, jitter=1.0) == plain


def test_a_status_that_lacks_calls_the_process_knows_of_gets_them_back_before_anything_is_decided() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,)))
    open_one = a_batch(Phase.RUNNING, server(1), number=3, job_id=JOB)
    world.answers[RecallLedger] = Ledger(3, (open_one,))
    world.answers[AskJobs] = {JOB: JobReport(JOB, JobPhase.RUNNING)}
    world.run()
    assert world.names[0] == "WriteStatus"
    written = world.done[0]
    assert isinstance(written, WriteStatus)
    assert (written.status.jobs, written.status.last_batch) == ((open_one,), 3)
    assert "Call" not in world.names
