"""Every boundary of every scenario: the operator dies, is stopped, or loses an answer there, and has to recover.

Not for: what a run is (`boundaries_world`) or kills of the real process (`kills`). All time is virtual.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Final

from chaos.boundaries_effects import Effect, Fate, Hit, Side
from chaos.boundaries_scenario import SCENARIOS, Scenario
from chaos.boundaries_world import WrongError, play

PAIRS_OF: Final = "plain"
"""The scenario in which the operator also dies a second time, while it recovers from the first."""

READS: Final = 6
"""Of the reads between two writes, so many from each end are boundaries."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What came of all runs of one scenario. `wrongs`: one text for each run that broke a promise."""

    scenario: str
    boundaries: int
    """Effects of the run in which nothing is hit, without the repeated reads of long waits."""
    runs: int
    wrongs: tuple[str, ...]

    def line(self) -> str:
        verdict = f"{len(self.wrongs)} WRONG" if self.wrongs else "all converged"
        return f"{self.scenario:32} {self.boundaries:4} boundaries {self.runs:5} runs, {verdict}"


@dataclass(frozen=True, slots=True)
class BoundaryReport:
    """What came of all scenarios."""

    sweeps: tuple[Sweep, ...] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        boundaries, runs = sum(s.boundaries for s in self.sweeps), sum(s.runs for s in self.sweeps)
        wrongs = [wrong for sweep in self.sweeps for wrong in sweep.wrongs]
        total = f"{boundaries} boundaries x {len(self.sweeps)} scenarios, {runs} runs: {len(wrongs)} wrong"
        return [*(sweep.line() for sweep in self.sweeps), total]

    def check(self) -> None:
        """Raises AssertionError if any run broke a promise."""
        wrongs = [wrong for sweep in self.sweeps for wrong in sweep.wrongs]
        assert not wrongs, f"{len(wrongs)} runs broke a promise, the first: {wrongs[0]}"


def hits(effect: Effect) -> Iterator[Hit]:
    """Everything that can go wrong at one effect; to lose the answer of a read is as good as not to read."""
    sides = Side if effect.writes else (Side.BEFORE,)
    for side in sides:
        yield Hit(effect, side, Fate.CRASH)
        yield Hit(effect, side, Fate.LOST)
    yield Hit(effect, Side.BEFORE, Fate.STOP)
    if effect.writes:
        yield Hit(effect, Side.BEFORE, Fate.CANCEL)
    if effect.writes and effect.cloud:
        yield Hit(effect, Side.BEFORE, Fate.NOT_SENT)


def boundaries(effects: Sequence[Effect]) -> list[Effect]:
    """All writes; of the reads between two writes the first and the last: those of a long wait are alike."""
    chosen: list[Effect] = []
    for writes, group in groupby(effects, key=lambda effect: effect.writes):
        run = list(group)
        chosen += run if writes or len(run) <= 2 * READS else [*run[:READS], *run[-READS:]]
    return chosen


def sweep(scenario: Scenario, choose: Callable[[Sequence[Hit]], Sequence[Hit]] = lambda every: every) -> Sweep:
    """Hit one run of the scenario after another, each at one boundary of those that are chosen."""
    with _silence():
        try:
            effects = boundaries(play(scenario))
        except WrongError as error:
            return Sweep(scenario.name, 0, 1, (str(error),))
        chosen = choose([hit for effect in effects for hit in hits(effect)])
        outcomes = [_outcome(scenario, (hit,)) for hit in chosen]
    return Sweep(scenario.name, len(effects), 1 + len(chosen), tuple(filter(None, outcomes)))


def sweep_pairs(scenario: Scenario, choose: Callable[[Sequence[Hit]], Sequence[Hit]] = lambda every: every) -> Sweep:
    """Let the operator die at a write, and again at a write of its recovery."""
    with _silence():
        effects = [effect for effect in play(scenario) if effect.writes]
        firsts = choose([hit for effect in effects for hit in hits(effect) if hit.fate is Fate.CRASH])
        pairs: list[tuple[Hit, ...]] = []
        for first in firsts:
            later = [effect for effect in play(scenario, (first,))[first.effect.number + 1 :] if effect.writes]
            seconds = [hit for effect in later for hit in hits(effect) if hit.fate is Fate.CRASH]
            pairs += [(first, second) for second in choose(seconds)]
        outcomes = [_outcome(scenario, pair) for pair in pairs]
    name = f"{scenario.name}, crashed twice"
    return Sweep(name, len(effects), 1 + len(firsts) + len(pairs), tuple(filter(None, outcomes)))


def _outcome(scenario: Scenario, struck: Iterable[Hit]) -> str | None:
    try:
        play(scenario, struck)
    except WrongError as error:
        return str(error)
    return None


@contextmanager
def _silence() -> Iterator[None]:
    """What the operator logs of thousands of crashes is read by nobody, and takes as long as the runs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def some(seed: int, writes: int, reads: int) -> Callable[[Sequence[Hit]], Sequence[Hit]]:
    """All hits at the first call to the cloud and its record; so many others at writes, and at reads."""
    draw = random.Random(seed)  # noqa: S311 - which boundaries a short run tries is no secret

    def choose(every: Sequence[Hit]) -> Sequence[Hit]:
        first = _first_call([hit.effect for hit in every])
        rest = [hit for hit in every if hit.effect not in first]
        at_writes = [hit for hit in rest if hit.effect.writes]
        at_reads = [hit for hit in rest if not hit.effect.writes]
        return [
            *(hit for hit in every if hit.effect in first),
            *draw.sample(at_writes, min(writes, len(at_writes))),
            *draw.sample(at_reads, min(reads, len(at_reads))),
        ]

    return choose


def _first_call(effects: Sequence[Effect]) -> set[Effect]:
    """The first call to the cloud that changes something, and the write of a status after it."""
    call = next((effect for effect in effects if effect.cloud and effect.writes), None)
    if call is None:
        return set()
    later = (effect for effect in effects if effect.number > call.number)
    return {call} | {next(effect for effect in later if effect.what.endswith("status"))}


def run(say: Say, scenarios: Sequence[Scenario] = SCENARIOS) -> BoundaryReport:
    """Everything: every boundary of every scenario, and all pairs of crashes of the plain one; on every core."""
    works = [partial(sweep, scenario) for scenario in scenarios]
    works += [partial(sweep_pairs, scenario) for scenario in scenarios if scenario.name == PAIRS_OF]
    sweeps: list[Sweep] = []
    with ProcessPoolExecutor() as pool:
        for done in as_completed([pool.submit(work) for work in works]):
            sweeps.append(done.result())
            say(sweeps[-1].line())
    return BoundaryReport(tuple(sorted(sweeps, key=lambda swept: swept.scenario)))
