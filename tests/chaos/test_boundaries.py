"""The short form of `boundaries`: many writes of the plain scenario, the main call of every other one.

Not for: the full form, `make chaos`. Rules P1..P12, P16, P18, P20.
"""

import asyncio
from dataclasses import replace

import pytest

from chaos.boundaries import PAIRS_OF, some, sweep, sweep_pairs
from chaos.boundaries_effects import Crash, Effect, Effects, Fate, Hit, Side
from chaos.boundaries_scenario import SCENARIOS, Scenario
from chaos.boundaries_time import VirtualClock, run
from chaos.boundaries_verdict import WrongError
from chaos.boundaries_world import play

PLAIN = next(scenario for scenario in SCENARIOS if scenario.name == "plain")
TWICE = [scenario for scenario in SCENARIOS if scenario.name in PAIRS_OF]


def test_the_operator_recovers_from_whatever_happens_at_a_write() -> None:
    swept = sweep(PLAIN, some(1, writes=30, reads=4))
    swept.check()
    assert swept.runs > 40


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_operator_recovers_from_what_happens_at_some_boundaries(scenario: Scenario) -> None:
    swept = sweep(scenario, some(1, writes=1, reads=0))
    swept.check()
    assert swept.runs > 10


@pytest.mark.parametrize("scenario", TWICE, ids=lambda scenario: scenario.name)
def test_the_operator_recovers_from_a_crash_while_it_recovers(scenario: Scenario) -> None:
    swept = sweep_pairs(scenario, some(2, writes=1, reads=0))
    swept.check()
    assert swept.runs > 15


def test_a_hit_that_never_strikes_is_not_survived() -> None:
    beyond = Effect(99_999, "cloud addNodes", writes=True, cloud=True)
    with pytest.raises(WrongError, match=r"did not strike: crash before effect 99999 \(cloud addNodes\); of \d+ eff"):
        play(PLAIN, (Hit(beyond, Side.BEFORE, Fate.CRASH),))


def test_a_run_that_goes_another_way_than_the_one_it_repeats_is_told() -> None:
    add = next(effect for effect in play(PLAIN) if effect.what == "cloud addNodes")
    other = replace(add, what="cloud removeNodes")
    with pytest.raises(WrongError, match=r"another way: Effect\(.*cloud addNodes"):
        play(PLAIN, (Hit(other, Side.BEFORE, Fate.LOST),))


def test_a_crash_ends_every_task_where_it_stands_whatever_it_catches() -> None:
    clock, ticks = VirtualClock(), list[float]()

    def die() -> None:
        raise Crash

    async def other() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(clock.seconds)

    async def crashes() -> None:
        try:
            await asyncio.sleep(3.5)
            die()
        except Exception:  # noqa: BLE001 - a crash must not be caught here
            await asyncio.sleep(100)

    async def main() -> None:
        tasks = [asyncio.create_task(other()), asyncio.create_task(crashes())]
        await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))

    with pytest.raises(Crash):
        run(clock, main())
    assert ticks == [1, 2, 3]
    assert clock.seconds == 3.5


async def test_a_dead_process_has_no_effect() -> None:
    effects, acts = Effects.of(()), list[str]()

    async def act() -> None:
        acts.append("done")

    number = effects.begin()
    await effects.make(number, "a write", act, writes=True, lost=TimeoutError(), unsent=None)
    effects.end()
    with pytest.raises(Crash):
        await effects.make(number, "a write", act, writes=True, lost=TimeoutError(), unsent=None)
    assert (acts, len(effects.done)) == (["done"], 1)
