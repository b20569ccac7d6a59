"""By which snapshot an object is decided, and what is remembered while one is awaited (rules P1, P21).

Not for: sharing them (`test_cce_snapshots`).
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    Freshness,
    JobPhase,
    JobReport,
    NodeTable,
    PoolReport,
    Trouble,
)
from nodepool_membership.core.observed.waiting import Waiting, WaitsFor
from nodepool_membership.core.program.effects import (
    AskJobs,
    AskTurn,
    Awaited,
    ClusterView,
    Effect,
    IsAtHand,
    Now,
    ReadCluster,
    Remember,
    Reserve,
    TakeOver,
    TakeWriteSlot,
    WriteSlot,
    WriteStatus,
)
from nodepool_membership.core.program.memory import Known, Memory
from nodepool_membership.core.program.requeue import AWAITED
from unit.core_builders import JOB, NOW, SECOND, a_batch, a_spec, active, an_object, server
from unit.program_world import World


def an_old_one() -> Membership:
    return an_object(a_spec(server(1)), Status(1, last_batch=0), finalizers=(FINALIZER,))


def looks(world: World) -> list[ReadCluster]:
    """The looks of a run."""
    seen: list[ReadCluster] = []
    world.told = lambda effect: seen.extend([effect] if isinstance(effect, ReadCluster) else [])
    world.run()
    return seen


def remembered(world: World) -> Memory:
    """What is remembered last in a run."""
    seen: list[Memory] = []
    world.told = lambda effect: seen.extend([effect.memory] if isinstance(effect, Remember) else [])
    world.run()
    return seen[-1]


def test_an_object_that_is_as_it_was_is_decided_from_a_snapshot_that_began_since() -> None:
    world, since = World(an_old_one()), NOW - timedelta(hours=1)
    world.answers[TakeOver] = Memory(Known(an_old_one().metadata.resource_version, since))
    assert {look.read_at for look in looks(world)} == {since}


@pytest.mark.parametrize("known", [Known("another", NOW), Known(an_old_one().metadata.resource_version, NOW + SECOND)])
def test_an_object_that_changed_waits_for_a_snapshot_that_begins_afterwards(known: Known) -> None:
    """So does one that was known before the clock was set back (rule P21)."""
    world = World(an_old_one())
    world.answers[TakeOver] = Memory(known)
    assert {look.read_at for look in looks(world)} == {NOW}


def test_a_snapshot_that_is_awaited_ends_the_program_and_nothing_is_lost() -> None:
    running = a_batch(Phase.RUNNING, server(1), number=3, job_id=JOB)
    status = Status(1, last_batch=3, jobs=(running,))
    world = World(an_object(a_spec(server(1), server(2)), status, finalizers=(FINALIZER,)))
    over = JobReport(JOB, JobPhase.SUCCEEDED)
    world.answers |= {AskJobs: {JOB: over}, ReadCluster: Awaited()}
    kept = remembered(world)
    assert kept.known == Known("7", NOW, {JOB: over})
    assert world.names == []
    asked: list[Effect[object]] = []
    world.answers |= {TakeOver: kept, AskJobs: Trouble(Reason.CLOUD_UNREACHABLE, "not asked again")}
    world.told = lambda effect: asked.extend([effect] if isinstance(effect, AskJobs) else [])
    assert world.run() == AWAITED
    assert asked == []


def test_what_came_of_a_job_that_is_over_is_looked_for_afterwards() -> None:
    running = a_batch(Phase.RUNNING, server(1), number=3, job_id=JOB)
    membership = an_object(a_spec(server(1)), Status(1, last_batch=3, jobs=(running,)), finalizers=(FINALIZER,))
    for phase, since in ((JobPhase.SUCCEEDED, NOW), (JobPhase.UNREADABLE, NOW - timedelta(hours=1))):
        world = World(membership)
        world.answers[TakeOver] = Memory(Known("7", NOW - timedelta(hours=1)))
        world.answers[AskJobs] = {JOB: JobReport(JOB, phase)}
        assert {look.read_at for look in looks(world)} == {since}


def test_an_edit_is_acknowledged_before_a_snapshot_is_awaited_but_not_where_one_is_at_hand() -> None:
    edited = an_object(a_spec(server(1)), Status(0, last_batch=0), finalizers=(FINALIZER,))
    world = World(edited)
    world.answers |= {IsAtHand: False, ReadCluster: Awaited()}
    assert remembered(world).known == Known("2", NOW)
    assert world.names == ["WriteStatus"]
    world = World(edited)
    there = NodeTable(NOW, active([server(1)]))
    world.answers |= {IsAtHand: True, ReadCluster: ClusterView(there, PoolReport("", 1), ClusterReport("Available"))}
    world.run()
    (decided,) = [effect.status for effect in world.done if isinstance(effect, WriteStatus)]
    assert decided.members == (server(1),)


def test_the_servers_of_an_intent_are_reserved_by_the_begin_of_what_showed_no_node_of_them() -> None:
    world = World(an_old_one())
    world.run()
    assert [effect.listed for effect in world.done if isinstance(effect, Reserve)] == [NOW]


def test_who_waits_for_its_turn_asks_for_it_before_it_looks() -> None:
    world = World(an_old_one())
    world.answers[TakeWriteSlot] = WriteSlot(40.0)
    kept = remembered(world)
    assert kept.waiting == Waiting(NOW, WaitsFor.TURN)
    written = [effect.status for effect in world.done if isinstance(effect, WriteStatus)]
    meta = replace(an_old_one().metadata, resource_version="2")
    world = World(replace(an_old_one(), metadata=meta, status=written[-1]))
    world.answers |= {TakeOver: kept, AskTurn: WriteSlot(39.0)}
    assert looks(world) == []
    world.answers[AskTurn] = WriteSlot(0.0)
    assert [look.freshness for look in looks(world)] == [Freshness.RECENT, Freshness.AFTER_READ]


@pytest.mark.parametrize("awaited", [False, True])
def test_an_object_that_changed_looks_before_its_turn(awaited: bool) -> None:
    """Also where the look has to be awaited."""
    world = World(an_old_one())
    world.answers |= {
        TakeOver: Memory(Known("another", NOW), waiting=Waiting(NOW, WaitsFor.TURN)),
        AskTurn: WriteSlot(39.0),
    }
    if awaited:
        world.answers[ReadCluster] = Awaited()
        world.answers[TakeOver] = remembered(world)
    assert looks(world)


def test_what_another_let_go_of_is_looked_for_anew() -> None:
    kept = Memory(Known("1", NOW), waiting=Waiting(NOW, WaitsFor.TURN))
    assert kept.known_from(None) == kept
    assert kept.known_from(NOW) == kept
    assert kept.known_from(NOW + SECOND) == Memory(Known("1", NOW + SECOND))


def test_who_lets_go_of_something_again_and_again_keeps_nobody_from_a_listing() -> None:
    """What began after it is young enough, also if it was there before the object is read again."""
    world, freed = World(an_old_one()), NOW + 2 * SECOND
    world.answers |= {Now: NOW + 5 * SECOND, TakeOver: Memory(Known("7", NOW)).known_from(freed)}
    assert {look.read_at for look in looks(world)} == {freed}


def test_what_was_written_is_known_from_then_on() -> None:
    world = World(an_object(a_spec(server(1)), Status(1, last_batch=0)))
    world.answers[ReadCluster] = ClusterView(
        NodeTable(NOW, active([server(1)])), PoolReport("", 1), ClusterReport("Available")
    )
    assert remembered(world).known == Known("2", NOW)
