"""The short form of `boundaries`: all boundaries of the plain scenario, some of every other one.

Not for: the full form, `make chaos`. Rules P1..P12, P20.
"""

import pytest

from chaos.boundaries import PAIRS_OF, some, sweep, sweep_pairs
from chaos.boundaries_scenario import SCENARIOS, Scenario

PLAIN = next(scenario for scenario in SCENARIOS if scenario.name == PAIRS_OF)


def test_the_operator_recovers_from_whatever_happens_at_any_boundary() -> None:
    swept = sweep(PLAIN)
    assert swept.boundaries > 50
    assert swept.runs > 3 * swept.boundaries
    assert not swept.wrongs, f"{len(swept.wrongs)} of {swept.runs} runs: " + "\n".join(swept.wrongs[:3])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_operator_recovers_from_what_happens_at_some_boundaries(scenario: Scenario) -> None:
    swept = sweep(scenario, some(1, writes=12, reads=3))
    assert swept.runs == 1 + 12 + 3
    assert not swept.wrongs, f"{len(swept.wrongs)} of {swept.runs} runs: " + "\n".join(swept.wrongs[:3])


def test_the_operator_recovers_from_a_crash_while_it_recovers() -> None:
    swept = sweep_pairs(PLAIN, some(2, writes=1, reads=0))
    assert swept.runs > 80
    assert not swept.wrongs, f"{len(swept.wrongs)} of {swept.runs} runs: " + "\n".join(swept.wrongs[:3])
