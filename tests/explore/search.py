"""All histories of a world within a bound on faults and on ticks: fewest faults first, then fewest ticks.

Not for: what may happen (`moves`). A state that was seen with as few ticks is not looked at again; since those with
fewer faults come first, every history within the bounds is covered.
"""

import heapq
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from explore.live import Fair, of_future
from explore.moves import Next, play, successors, work
from explore.remembered import comparable
from explore.scenarios import Scenario
from explore.world import World, canonical

Trail: TypeAlias = "tuple[Trail, str] | None"


@dataclass(frozen=True)
class History:
    """A history that broke a promise, as it can be played again."""

    scenario: str
    moves: tuple[str, ...]
    wrongs: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.scenario}: {'; '.join(self.wrongs)}", *(f"    {move}" for move in self.moves)])


def tell(history: History) -> None:
    """Print it as soon as it is found."""
    print(history, flush=True)


@dataclass
class Explored:
    """What a search came to."""

    scenario: str
    states: int = 0
    steps: int = 0
    deepest: int = 0
    """Moves of the longest history."""
    faults: int = -1
    """All histories with so many faults were covered, -1: not even those without."""
    lived: int = 0
    """States whose future was judged."""
    seconds: float = 0.0
    """Of processor time."""
    megabytes: float = 0.0
    broken: list[History] = field(default_factory=list)
    complete: bool = False

    def line(self) -> str:
        rate = self.states / max(self.seconds, 0.001)
        covered = "all within the bounds" if self.complete else f"all with {self.faults} faults"
        return (
            f"{self.scenario:36} {self.states:9} states, {self.steps:9} steps, depth {self.deepest}, {covered},"
            f" {self.lived} futures, {rate:.0f} states/s, {self.megabytes:.0f} MB, {len(self.broken)} broken"
        )


def moves_of(trail: Trail) -> tuple[str, ...]:
    moves: list[str] = []
    while trail is not None:
        trail, move = trail
        moves.append(move)
    return tuple(reversed(moves))


def key_of(world: World) -> bytes:
    return canonical(world, [comparable(p, world.now) for p in world.processes])


@dataclass(frozen=True)
class Bounds:
    faults: int = 3
    ticks: int = 7
    states: int = 50_000
    seconds: float = 60.0
    live_every: int = 200
    """Of so many states one has its future judged."""
    broken: int = 5
    """Histories after which the search ends."""


def beginning(scenario: Scenario) -> World:
    """The world at the start of a scenario."""
    world = scenario.begin()
    if not scenario.settled:
        return world
    fair = Fair(world)
    fair.run(3600)
    return fair.world._replace(stirred=True)


def explore(scenario: Scenario, bounds: Bounds, say: Callable[[History], None] = lambda _: None) -> Explored:
    """Search; ends with the bounds, whichever comes first."""
    begun, used = time.monotonic(), time.process_time()
    found = Explored(scenario.name)
    start = beginning(scenario)
    seen: dict[bytes, int] = {key_of(start): 0}
    heap: list[tuple[int, int, int, int, World, Trail]] = [(0, 0, 0, 0, start, None)]
    told: set[str] = set()
    serial = 0
    found.states = 1
    while heap:
        faults, ticks, depth, _, world, trail = heapq.heappop(heap)
        found.faults = faults - 1
        found.deepest = max(found.deepest, depth)
        if found.states >= bounds.states or time.monotonic() - begun > bounds.seconds:
            break
        for following in _following(scenario, world, bounds.faults - faults, found, bounds):
            found.steps += 1
            move, cost, after, wrongs = following
            if wrongs:
                _tell(found, told, History(scenario.name, (*moves_of(trail), move), wrongs), say)
                continue
            passed = ticks + move.startswith("tick")
            if passed > bounds.ticks:
                continue
            path: Trail = (trail, move)
            if faults + cost == bounds.faults and after.todo:
                # Nothing but what is usual can happen until the round is over.
                after, path, wrongs = _round(after, path)
                if wrongs:
                    _tell(found, told, History(scenario.name, moves_of(path), wrongs), say)
                    continue
            key = key_of(after)
            if seen.get(key, 1000) <= passed:
                continue
            if key not in seen:
                found.states += 1
            seen[key] = passed
            serial += 1
            heapq.heappush(heap, (faults + cost, passed, depth + 1, serial, after, path))
        if len(found.broken) >= bounds.broken:
            break
    else:
        found.complete = True
    found.seconds = time.process_time() - used
    found.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def _following(scenario: Scenario, world: World, faults: int, found: Explored, bounds: Bounds) -> Iterator[Next]:
    yield from successors(scenario, world, faults)
    if not world.todo and world.paused is None and found.steps // bounds.live_every > found.lived:
        found.lived += 1
        wrongs = of_future(scenario, world)
        if wrongs:
            yield Next("and then all goes well for hours", 0, world, tuple(wrongs))


def _round(world: World, trail: Trail) -> tuple[World, Trail, tuple[str, ...]]:
    while world.todo:
        key = world.todo[0]
        ran = work(world, key, {})
        world, trail = ran.world, (trail, f"work {key}")
        if ran.wrongs:
            return world, trail, ran.wrongs
    return world, trail, ()


def _tell(found: Explored, told: set[str], history: History, say: Callable[[History], None]) -> None:
    """Each kind once: a longer history that ends alike says nothing new."""
    if history.wrongs[0] in told:
        return
    told.add(history.wrongs[0])
    found.broken.append(history)
    say(history)


def replay(scenario: Scenario, moves: tuple[str, ...]) -> tuple[World, tuple[str, ...]]:
    """Play a history; the world at its end, and what is wrong with its last move.

    Raises:
        ValueError: a move cannot be made any more, or breaks a promise before the last.
    """
    world = beginning(scenario)
    wrongs: tuple[str, ...] = ()
    for move in moves:
        if wrongs:
            raise ValueError(f"before {move!r}: {'; '.join(wrongs)}")
        if move.startswith("and then"):
            return world, tuple(of_future(scenario, world))
        following = play(scenario, world, move)
        world, wrongs = following.world, following.wrongs
    return world, wrongs
