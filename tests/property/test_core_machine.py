"""The state machine over the decisions, and a search through all that a cloud may answer.

Not for: what may happen (`machine`), or chains of events that were found once (`test_core_scenarios`).
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from property.cloud_model import CallPlan
from property.machine import MOST, PLANS, a_machine
from property.words import WordMachine

TestMachine = WordMachine.TestCase
# The larger profile must not be held to what CI has time for.
# Hundreds of histories: on a machine that is busy with other suites they take longer than one test may.
pytestmark = pytest.mark.timeout(1800)
TestMachine.settings = settings(max_examples=max(300, settings().max_examples), stateful_step_count=30)


@given(
    plans=st.lists(PLANS, max_size=3),
    weather=PLANS,
    servers=st.integers(1, MOST),
    size=st.integers(1, 4),
    parallel=st.integers(1, 3),
    attempts=st.integers(1, 3),
)
@settings(max_examples=max(80, settings().max_examples))
def test_whatever_the_cloud_answers_it_ends_well(
    plans: list[CallPlan], weather: CallPlan, servers: int, size: int, parallel: int, attempts: int
) -> None:
    machine = a_machine(servers, batchSize=size, maxParallelJobs=parallel, maxAttempts=attempts)
    machine.most_attempts = attempts
    machine.cloud.next_calls, machine.cloud.weather = plans, weather
    for _ in range(3):
        machine.run(90)
        machine.attempts_are_bounded()
    machine.ends_well()
