"""Every boundary of every scenario: the operator dies, is stopped, or loses an answer there, and has to recover.

Not for: what a run is (`boundaries_world`) or kills of the real process (`kills`). All time is virtual.
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Final

from chaos.boundaries_effects import Effect, Fate, Hit, Side
from chaos.boundaries_scenario import SCENARIOS, Scenario
from chaos.boundaries_verdict import BrokenRun, Promise, WrongError
from chaos.boundaries_world import play

PAIRS_OF: Final = ("plain", "removal")
"""The scenarios in which the operator also dies a second time, while it recovers from the first."""

_REMOVE: Final = "cloud removeNodes"
_SHOWN: Final = 2000
"""Characters of a broken run: it shows whole statuses."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What came of all runs of one scenario. `broken`: the runs that broke a promise."""

    scenario: str
    boundaries: int
    """Of the run in which nothing is hit: its effects, without those that are like others."""
    runs: int
    broken: tuple[BrokenRun, ...]

    def line(self) -> str:
        verdict = f"{len(self.broken)} BROKEN" if self.broken else "all converged"
        return f"{self.scenario:42} {self.boundaries:4} boundaries {self.runs:5} runs, {verdict}"

    def check(self) -> None:
        """Raises AssertionError if any run broke a promise."""
        first = "\n".join(str(run)[:_SHOWN] for run in self.broken[:3])
        assert not self.broken, f"{len(self.broken)} of {self.runs} runs broke a promise, the first: {first}"


@dataclass(frozen=True, slots=True)
class BoundaryReport:
    """What came of all scenarios."""

    sweeps: tuple[Sweep, ...] = field(default_factory=tuple)

    def broken(self, promise: Promise) -> int:
        """Runs that broke this promise."""
        every = (run for swept in self.sweeps for run in swept.broken)
        return sum(any(wrong.promise is promise for wrong in run.wrongs) for run in every)

    def lines(self) -> list[str]:
        boundaries, runs = sum(s.boundaries for s in self.sweeps), sum(s.runs for s in self.sweeps)
        broken = ", ".join(f"{promise} {self.broken(promise)}" for promise in Promise)
        total = f"{boundaries} boundaries x scenarios ({len(self.sweeps)}) covered, {runs} runs"
        return [*(swept.line() for swept in self.sweeps), total, f"runs with {broken}"]

    def check(self) -> None:
        """Raises AssertionError if any run broke a promise."""
        for swept in self.sweeps:
            swept.check()


def hits(effect: Effect) -> Iterator[Hit]:
    """What can go wrong at one effect, without what comes to the same.

    To lose the answer of a read is as good as not to read. An Event is never read, and nothing waits for it.
    """
    yield Hit(effect, Side.BEFORE, Fate.CRASH)
    yield Hit(effect, Side.BEFORE, Fate.LOST)
    if effect.is_event:
        return
    yield Hit(effect, Side.BEFORE, Fate.STOP)
    if not effect.writes:
        return
    yield Hit(effect, Side.BEFORE, Fate.CANCEL)
    yield Hit(effect, Side.AFTER, Fate.CRASH)
    yield Hit(effect, Side.AFTER, Fate.LOST)
    if effect.cloud:
        yield Hit(effect, Side.BEFORE, Fate.NOT_SENT)


def boundaries(effects: Sequence[Effect]) -> list[Effect]:
    """All writes; of the reads and Events between two of them the first and the last of each kind.

    Those of a long wait are alike.
    """
    chosen: list[Effect] = []
    for writes, group in groupby(effects, key=_changes):
        run = list(group)
        first = {effect.what: effect for effect in reversed(run)}
        last = {effect.what: effect for effect in run}
        chosen += run if writes else sorted({*first.values(), *last.values()}, key=lambda effect: effect.number)
    return chosen


def _changes(effect: Effect) -> bool:
    return effect.writes and not effect.is_event


def sweep(scenario: Scenario, choose: Callable[[Sequence[Hit]], Sequence[Hit]] = lambda every: every) -> Sweep:
    """Hit one run of the scenario after another, each at one boundary of those that are chosen."""
    with _silence():
        try:
            effects = boundaries(play(scenario))
        except WrongError as error:
            return Sweep(scenario.name, 0, 1, (_broken(scenario, (), error),))
        chosen = choose([hit for effect in effects for hit in hits(effect)])
        outcomes = [_outcome(scenario, (hit,)) for hit in chosen]
    return Sweep(scenario.name, len(effects), 1 + len(chosen), tuple(filter(None, outcomes)))


def sweep_pairs(scenario: Scenario, choose: Callable[[Sequence[Hit]], Sequence[Hit]] = lambda every: every) -> Sweep:
    """Let the operator die at a write, and again at a write of its recovery."""
    broken: list[BrokenRun] = []
    runs = 1
    with _silence():
        effects = [effect for effect in play(scenario) if _changes(effect)]
        for first in choose([hit for effect in effects for hit in hits(effect) if hit.fate is Fate.CRASH]):
            runs += 1
            try:
                recovery = play(scenario, (first,))[first.effect.number + 1 :]
            except WrongError as error:
                broken.append(_broken(scenario, (first,), error))
                continue
            later = [effect for effect in recovery if _changes(effect)]
            seconds = choose([hit for effect in later for hit in hits(effect) if hit.fate is Fate.CRASH])
            runs += len(seconds)
            broken += filter(None, (_outcome(scenario, (first, second)) for second in seconds))
    return Sweep(f"{scenario.name}, crashed twice", len(effects), runs, tuple(broken))


def _outcome(scenario: Scenario, struck: Sequence[Hit]) -> BrokenRun | None:
    try:
        play(scenario, struck)
    except WrongError as error:
        return _broken(scenario, struck, error)
    return None


def _broken(scenario: Scenario, struck: Sequence[Hit], error: WrongError) -> BrokenRun:
    where = ", then ".join(map(str, struck)) or "nothing hit"
    return BrokenRun(f"{scenario.name}, {where}", error.wrongs)


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
    """All hits at the call that matters most and its record; so many others at writes, and at reads."""
    draw = random.Random(seed)  # noqa: S311 - which boundaries a short run tries is no secret

    def choose(every: Sequence[Hit]) -> Sequence[Hit]:
        first = _main_call([hit.effect for hit in every])
        rest = [hit for hit in every if hit.effect not in first]
        at_writes = [hit for hit in rest if hit.effect.writes]
        at_reads = [hit for hit in rest if not hit.effect.writes]
        return [
            *(hit for hit in every if hit.effect in first),
            *draw.sample(at_writes, min(writes, len(at_writes))),
            *draw.sample(at_reads, min(reads, len(at_reads))),
        ]

    return choose


def _main_call(effects: Sequence[Effect]) -> set[Effect]:
    """The first removal, where there is none the first add; and the write of a status after it."""
    calls = [effect for effect in effects if effect.cloud and effect.writes]
    main = [*(effect for effect in calls if effect.what == _REMOVE), *calls][:1]
    records = [e for e in effects if main and e.number > main[0].number and e.what.endswith("status")]
    return {*main, *records[:1]}


def run(say: Say, scenarios: Sequence[Scenario] = SCENARIOS) -> BoundaryReport:
    """Everything: every boundary of every scenario, and all pairs of crashes of some; on every core."""
    works = [partial(sweep_pairs, scenario) for scenario in scenarios if scenario.name in PAIRS_OF]
    works += [partial(sweep, scenario) for scenario in scenarios]
    sweeps: list[Sweep] = []
    with ProcessPoolExecutor() as pool:
        for done in as_completed([pool.submit(work) for work in works]):
            sweeps.append(done.result())
            say(sweeps[-1].line())
    return BoundaryReport(tuple(sorted(sweeps, key=lambda swept: swept.scenario)))
