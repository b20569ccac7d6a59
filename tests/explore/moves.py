"""Everything that may happen next in a world, as text that can be read, printed and played again.

Not for: which of it is tried, or when it is too much (`search`).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from explore import judge, physics, reads
from explore.objects import deleted, looked_at, server_id, voided
from explore.points import Point, Ran
from explore.process import Run
from explore.remembered import fresh
from explore.scenarios import Scenario
from explore.snapshots import snapshot
from explore.users import CALLS, edits
from explore.world import World

TICKS = (0, 60, 360, 1860)
_SPINS = 6
"""How often an object is worked again at once within a round."""


class Next(NamedTuple):
    """A move, the world after it, and what is wrong with it."""

    move: str
    world: World
    wrongs: tuple[str, ...] = ()


def judged(before: World, world: World, wrongs: tuple[str, ...]) -> tuple[World, tuple[str, ...]]:
    """Judge the calls that met servers, and the statuses that were stored."""
    found = list(wrongs)
    for sent in world.cloud.sent:
        found += judge.of_call(sent, before.objects, {i for i in range(len(before.objects)) if world.goes(i)})
        if sent.adds and world.now >= before.burnt and not sent.late:
            found.append("more servers are wiped after a whole call was lost, and nobody said so")
        if sent.burns and len(sent.servers) >= judge.MANY:
            world = world._replace(burnt=world.now + physics.JOB_RUNS)
    for key, (old, new) in enumerate(zip(before.objects, world.objects, strict=True)):
        if new.there and new.status is not old.status and new.status != old.status:
            found += judge.of_status(new)
            there = {s for s, node in physics.shown(world.cloud, world.now) if node.pool == physics.POOL}
            world = world.with_object(key, looked_at(new, there, old.status))
    if world.cloud.sent:
        world = world._replace(cloud=world.cloud._replace(sent=()))
    return world, tuple(found)


def work(world: World, key: int, choices: dict[int, str], stop: int | None = None) -> Ran:
    """Let the leader work an object; in the round it is over, or to be worked again at once."""
    ran = Run(world, world.leader, key, choices, stop).run()
    if world.objects[key].paused and ran.world.cloud.sent:
        ran = ran._replace(wrongs=(*ran.wrongs, "a call is made although it was paused before"))
    return _after(world, ran, key)


def _after(before: World, ran: Ran, key: int) -> Ran:
    world, wrongs = judged(before, ran.world, ran.wrongs)
    rest = tuple(k for k in world.todo if k != key)
    again = ran.seconds == 0 and world.spins < _SPINS and world.objects[key].there
    world = world._replace(todo=(key, *rest) if again else rest, spins=world.spins + again)
    return Ran(world, ran.points, wrongs, ran.seconds)


def tick(world: World, seconds: int) -> Next:
    """Time passes; then every object is worked."""
    now = world.now + seconds
    held = -1 if world.paused is None or world.paused.who != world.leader else world.paused.key
    todo = tuple(i for i in range(len(world.objects)) if i != held)
    cloud = physics.advance(world.cloud, world.now, now)
    processes = world.processes
    if seconds:
        processes = tuple(p._replace(steps=0, parked=frozenset()) for p in processes)
    after = world._replace(now=now, cloud=cloud, processes=processes, todo=todo, spins=0, stirred=False)
    after, wrongs = judged(world, after, ())
    return Next(f"tick {seconds}", after, wrongs)


def usual(world: World) -> Iterator[Next]:
    """What may happen next without a fault, and without anybody doing anything."""
    if world.todo:
        key = world.todo[0]
        plain = work(world, key, {})
        yield Next(f"work {key}", plain.world, plain.wrongs)
        return
    if awaits(world):
        yield Next("snapshot", snapped(world, ""))
        return
    yield from (tick(world, seconds) for seconds in TICKS if seconds or world.stirred)
    if world.paused is not None:
        ran = resume(world, {})
        yield Next("resume", ran.world, ran.wrongs)
        yield Next("kill", kill(world))
        if world.paused.who == world.leader:
            yield Next("takeover", takeover(world))


def strange(scenario: Scenario, world: World) -> Iterator[Next]:
    """What may happen next with one fault, or one thing that somebody does."""
    if world.todo:
        yield from _works(world, world.todo[0])
        if world.todo[0] not in world.processes[world.leader].entitled:
            return
        # What it is to see was seen, and it was not read yet.
        yield from _stirred(_users(scenario, world))
        return
    if awaits(world):
        yield from (Next(f"snapshot {how}", snapped(world, how)) for how in _shown_wrong(world))
        yield from _stirred(_users(scenario, world))
        return
    yield from _stirred(_users(scenario, world))
    yield from _stirred(_world(scenario, world))
    if world.paused is not None:
        for text, ran in _chosen(partial(resume, world), "resume", resume(world, {}).points):
            yield Next(text, ran.world, ran.wrongs)


def awaits(world: World) -> bool:
    """Whether a snapshot is to be taken, now that nothing else is to be done."""
    return not world.todo and world.spins < _SPINS and bool(world.processes[world.leader].parked)


def snapped(world: World, how: str) -> World:
    """The snapshot is taken: who waits for it is worked."""
    return snapshot(world, how)._replace(spins=world.spins + 1)


def _shown_wrong(world: World) -> Iterator[str]:
    """Every way in which a snapshot may fail, or may not show what is there."""
    yield from ("trouble", "more", "fewer")
    if physics.lags(world.cloud, world.now):
        return
    servers = [s for s, node in physics.shown(world.cloud, world.now) if node.pool == physics.POOL]
    for server in servers:
        yield f"miss:{server}"
        if len(servers) > 1:
            yield f"repeat:{server}"


def _stirred(moves: Iterator[Next]) -> Iterator[Next]:
    for following in moves:
        yield following._replace(world=following.world._replace(stirred=True))


def twice_strange(world: World) -> Iterator[Next]:
    """What may happen next with two faults in one reconcile."""
    if not world.todo:
        return
    key = world.todo[0]
    plain = work(world, key, {})
    for point in plain.points:
        for how in _choices(point):
            first = {point.at: how}
            later = tuple(p for p in work(world, key, first).points if p.at > point.at)
            for text, both in _chosen(partial(_with_both, world, key, first), "", later):
                yield Next(f"work {key} {point.at}={how}{text}", both.world, both.wrongs)


def _with_both(world: World, key: int, first: dict[int, str], then: dict[int, str]) -> Ran:
    return work(world, key, first | then)


def _works(world: World, key: int) -> Iterator[Next]:
    plain = work(world, key, {})
    for text, ran in _chosen(partial(work, world, key), f"work {key}", plain.points):
        yield Next(text, ran.world, ran.wrongs)
    for point in plain.points if world.paused is None else ():
        ran = work(world, key, {}, point.at)
        yield Next(f"work {key} stop={point.at}", ran.world._replace(todo=()), ran.wrongs)


def _chosen(run: Callable[[dict[int, str]], Ran], text: str, points: tuple[Point, ...]) -> Iterator[tuple[str, Ran]]:
    """Every fault at one of these points."""
    for point in points:
        for how in _choices(point):
            yield f"{text} {point.at}={how}", run({point.at: how})


def _choices(point: Point) -> Iterator[str]:
    yield from point.more
    match point.kind:
        case "first read":
            yield "away"
        case "jobs":
            yield from ("404", "unreadable", "trouble")
        case "servers":
            yield from reads.FATES
        case "add":
            single = {"refused-part"} if len(point.servers) == 1 else set()
            yield from (fate for fate in physics.ADD_FATES if fate != "joins" and fate not in single)
        case "remove":
            yield from (fate for fate in physics.REMOVE_FATES if fate != "goes")
        case "status":
            yield from ("unanswered-stored", "unanswered-lost")


def resume(world: World, choices: dict[int, str]) -> Ran:
    """The program that stood still goes on."""
    paused = world.paused
    assert paused is not None, "nothing stands still"
    return _after(world, Run(world, paused.who, paused.key, choices, None).run(), paused.key)


def kill(world: World) -> World:
    """The leading process ends at once, and another one starts."""
    return world._replace(processes=(fresh(world.objects),), leader=0, paused=None, todo=(), spins=0, stirred=True)


def takeover(world: World) -> World:
    """The leading process stands still for so long that another one leads."""
    return world._replace(
        processes=(*world.processes, fresh(world.objects)), leader=len(world.processes), todo=(), stirred=True
    )


def _users(scenario: Scenario, world: World) -> Iterator[Next]:
    for key, stored in enumerate(world.objects):
        for text, after in edits(scenario, world, key, stored):
            yield Next(text, after)
    if world.paused is None:
        yield Next("kill", kill(world))


def _world(scenario: Scenario, world: World) -> Iterator[Next]:
    for what in scenario.others:
        for server in range(scenario.servers):
            if what == "away" and server_id(server) not in judge.members(world.objects):
                # One listing that agrees with the count proves the absence of whoever was never seen.
                continue
            if what == "foreign" and world.paused is not None:
                # Between the listing and the call nothing keeps somebody else from making the server a node.
                continue
            happens = physics.marked if what in {"mark", "unmark"} else physics.others
            cloud = happens(world.cloud, what, server, world.now)
            if cloud is not None and cloud != world.cloud:
                yield Next(f"{what} {server}", world._replace(cloud=cloud))
    cloud = physics.lagging(world.cloud, world.now)
    yield Next("the count lags", world._replace(cloud=cloud))
    if scenario.templates and not world.cloud.template and world.paused is None:
        changed = world._replace(objects=tuple(voided(o) for o in world.objects))
        yield Next("another template", changed._replace(cloud=physics.another_template(world.cloud)))
    calls = world.paused is not None and world.paused.kind in CALLS
    if scenario.deletes and not world.going and not calls and world.objects[0].there:
        yield Next("namespace", _namespace_deleted(world))
    process = world.processes[world.leader]
    for skew in scenario.clocks if world.paused is None else ():
        value = 0 if process.skew else skew
        processes = list(world.processes)
        processes[world.leader] = process._replace(skew=value)
        yield Next(f"clock {value}", world._replace(processes=tuple(processes)))


def _namespace_deleted(world: World) -> World:
    """The namespace of the first object goes, with all that is in it."""
    for key, stored in enumerate(world.objects):
        if stored.there and stored.deleted is None and stored.namespace == world.objects[0].namespace:
            world = world.with_object(key, deleted(stored, world.now))
    return world._replace(going=any(o.there for o in world.objects if o.namespace == world.objects[0].namespace))


def play(scenario: Scenario, world: World, move: str) -> Next:
    """Make one move, as it was printed.

    Raises:
        ValueError: the move cannot be made in this world.
    """
    for following in (*usual(world), *strange(scenario, world), *twice_strange(world)):
        if following.move == move:
            return following
    raise ValueError(f"{move!r} cannot be made here")
