"""`make explore`: every scenario at a time on every core, until the time is up or all within the bounds was seen.

Not for: what is explored (`search`, `scenarios`).
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from explore.moves import TICKS
from explore.scenarios import SCENARIOS, Scenario
from explore.search import FAULT, Bounds, Explored, end_with_parent, explore, replay, tell


def _play(lines: list[str]) -> int:
    """Play a printed history again, and say what is wrong with its end."""
    name = lines[0].partition(":")[0].strip()
    scenario = next(s for s in SCENARIOS if s.name == name)
    world, wrongs = replay(scenario, tuple(line.strip() for line in lines[1:] if line.strip()))
    for stored in world.objects:
        print(stored.name, stored.status)
    print("; ".join(wrongs) or "nothing is wrong")
    return 1 if wrongs else 0


def main(arguments: list[str] | None = None) -> int:
    """Explore, or play a history again; the exit status is 1 if a promise was broken."""
    options = argparse.ArgumentParser(prog="explore", description=__doc__)
    options.add_argument("--seconds", type=float, default=3600.0, help="for all scenarios together, on all cores")
    options.add_argument("--states", type=int, default=10**9, help="most states a scenario")
    options.add_argument(
        "--cost",
        type=int,
        default=10,
        help=f"of a history: {FAULT} for each fault and edit, 1 each time that time passes ({TICKS} s)",
    )
    options.add_argument("--only", help="a scenario")
    options.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options.add_argument("--play", action="store_true", help="play a printed history, given on standard input")
    given = options.parse_args(arguments)
    if given.play:
        return _play(sys.stdin.read().strip().splitlines())
    scenarios = [s for s in SCENARIOS if given.only in {None, s.name}]
    share = given.seconds * min(given.cores, len(scenarios)) / max(len(scenarios), 1)
    bounds = Bounds(given.cost, given.states, share)
    return _report(_explored(scenarios, bounds, given.cores))


def _explored(scenarios: list[Scenario], bounds: Bounds, cores: int) -> list[Explored]:
    found = []
    with ProcessPoolExecutor(cores, max_tasks_per_child=1, initializer=end_with_parent) as pool:
        for done in as_completed([pool.submit(partial(explore, s, bounds, tell)) for s in scenarios]):
            found.append(done.result())
            print(found[-1].line(), flush=True)
    return found


def _report(found: list[Explored]) -> int:
    states, seconds = sum(e.states for e in found), sum(e.seconds for e in found)
    broken = sum(len(e.broken) for e in found)
    print(f"{states} states, {states / max(seconds, 0.001):.0f} a second and core, {broken} histories broke a promise")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
