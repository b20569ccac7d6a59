"""All histories of a world within a bound on what they cost: the cheapest first.

Not for: what may happen (`moves`). A state that was reached as cheaply is not looked at again, so every history within
the bound is covered.
"""

import heapq
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Final, TypeAlias

from explore.live import Fair, of_future
from explore.moves import Next, awaits, play, snapped, strange, twice_strange, usual, work
from explore.remembered import comparable
from explore.scenarios import Scenario
from explore.users import CALLS
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
    cost: int = -1
    """All histories of this cost were covered; -1: not even those that cost nothing."""
    lived: int = 0
    """States whose future was judged."""
    seconds: float = 0.0
    """Of processor time."""
    megabytes: float = 0.0
    broken: list[History] = field(default_factory=list)
    complete: bool = False

    def line(self) -> str:
        rate = self.states / max(self.seconds, 0.001)
        covered = "all within the bounds" if self.complete else f"all of cost {self.cost}"
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


FAULT: Final = 2
"""What a fault costs, or something that somebody does; that time passes costs 1, all else nothing."""


@dataclass(frozen=True)
class Bounds:
    cost: int = 8
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
    world = _settled(world, scenario.settled, scenario.fate)
    for move in scenario.before:
        if move.startswith("settle"):
            world = _settled(world, int(move.split()[1]), scenario.fate)
        else:
            ticks = " ".join(move.split()[:2]) if move.startswith("tick") else move
            world, _, _ = _round(play(scenario, world, ticks).world, None, move[len(ticks) :].strip())
    return world


def _settled(world: World, seconds: int, fate: str) -> World:
    """The world when all has come to rest, so many seconds later."""
    fair = Fair(world, fate)
    fair.run(seconds)
    return fair.world._replace(stirred=True)


def explore(scenario: Scenario, bounds: Bounds, say: Callable[[History], None] = lambda _: None) -> Explored:
    """Search; ends with the bounds, whichever comes first."""
    return _Search(scenario, bounds, say).run()


class _Search:
    """The cheapest histories first. What a state leads to is found out when its turn has come, dear moves last."""

    def __init__(self, scenario: Scenario, bounds: Bounds, say: Callable[[History], None]) -> None:
        self._scenario = scenario
        self._bounds = bounds
        self._say = say
        self._found = Explored(scenario.name)
        self._heap: list[tuple[int, int, int, int, World, Trail]] = []
        self._seen: dict[bytes, int] = {}
        self._told: set[str] = set()
        self._serial = 0

    def run(self) -> Explored:
        begun, used = time.monotonic(), time.process_time()
        found, bounds = self._found, self._bounds
        self._reach(0, 0, beginning(self._scenario), None)
        while self._heap:
            cost, _, depth, faults, world, trail = heapq.heappop(self._heap)
            found.cost = cost - 1
            found.deepest = max(found.deepest, depth)
            full = found.states >= bounds.states or len(found.broken) >= bounds.broken
            if full or time.monotonic() - begun > bounds.seconds:
                break
            for following in self._following(world, faults):
                self._follow(following, cost, depth + 1, trail)
        else:
            found.complete = True
        found.seconds = time.process_time() - used
        found.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return found

    def _following(self, world: World, faults: int) -> Iterator[Next]:
        if faults == 1:
            return strange(self._scenario, world)
        return twice_strange(world) if faults else self._usual(world)

    def _usual(self, world: World) -> Iterator[Next]:
        yield from usual(world)
        due = self._found.states // self._bounds.live_every > self._found.lived
        if due and not world.todo and not awaits(world) and world.paused is None:
            self._found.lived += 1
            wrongs = of_future(self._scenario, world)
            if wrongs:
                yield Next("and then all goes well for hours", world, tuple(wrongs))

    def _follow(self, following: Next, cost: int, depth: int, trail: Trail) -> None:
        self._found.steps += 1
        move, world, wrongs = following
        path: Trail = (trail, move)
        passed = cost + move.startswith("tick")
        if not wrongs and passed + FAULT > self._bounds.cost and (world.todo or awaits(world)):
            # Nothing but what is usual can happen until the round is over.
            world, path, wrongs = _round(world, path)
        if wrongs:
            self._tell(History(self._scenario.name, moves_of(path), wrongs))
        elif passed <= self._bounds.cost:
            self._reach(passed, depth, world, path)

    def _reach(self, cost: int, depth: int, world: World, trail: Trail) -> None:
        key = key_of(world)
        known = self._seen.get(key)
        if known is not None and known <= cost:
            return
        self._found.states += known is None
        self._seen[key] = cost
        for faults in (0, 1, 2):
            if cost + FAULT * faults <= self._bounds.cost:
                self._serial += 1
                heapq.heappush(self._heap, (cost + FAULT * faults, self._serial, depth, faults, world, trail))

    def _tell(self, history: History) -> None:
        """Each kind once: a longer history that ends alike says nothing new."""
        if history.wrongs[0] in self._told:
            return
        self._told.add(history.wrongs[0])
        self._found.broken.append(history)
        self._say(history)


def _round(world: World, trail: Trail, fate: str = "") -> tuple[World, Trail, tuple[str, ...]]:
    while world.todo or awaits(world):
        if not world.todo:
            world, trail = snapped(world, ""), (trail, "snapshot")
            continue
        key = world.todo[0]
        ran = work(world, key, {})
        calls = [point.at for point in ran.points if point.kind in CALLS]
        if fate and calls:
            ran = work(world, key, {calls[0]: fate})
        world, trail = ran.world, (trail, f"work {key}")
        if ran.wrongs:
            return world, trail, ran.wrongs
    return world, trail, ()


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


def end_with_parent() -> None:
    """A worker whose parent was killed would search to the end of its time, for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
