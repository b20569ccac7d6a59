"""The write budget: never more than N writes in any 60 s, and what a throttled answer does to it (rule P23).

Not for: who asks for a place, and when.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.cce.budget import Budgets, Taken, WriteBudget

LOW, HIGH = 0.0, math.nextafter(1.0, 0.0)
"""The ends of the jitter."""


def budget(per_minute: int = 10, jitter: float = LOW) -> WriteBudget:
    return WriteBudget(per_minute, random=lambda: jitter)


def take(of: WriteBudget, now: float) -> Taken:
    place = of.try_take(now)
    assert isinstance(place, Taken), f"to wait {place} s"
    return place


def wait(of: WriteBudget, now: float) -> float:
    seconds = of.try_take(now)
    assert isinstance(seconds, float)
    return seconds


steps = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.001, 1.0, 59.0, 59.999, 60.0)) | st.floats(0, 70, allow_subnormal=False),
        st.sampled_from(("take", "take", "take", "wait", "give back", "throttled", "passed")),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=80,
)


@given(per_minute=st.integers(1, 5), start=st.floats(0, 1e7), steps=steps)
def test_never_more_than_n_in_any_minute(per_minute: int, start: float, steps: list[tuple[float, str, float]]) -> None:
    now, number = start, 0.5
    under_test = WriteBudget(per_minute, random=lambda: number)
    held: list[Taken] = []
    closed_until = -math.inf
    for elapsed, action, number in steps:
        now += elapsed
        match action:
            case "take" | "wait":
                found = under_test.try_take(now)
                if isinstance(found, float):
                    assert found > 0
                    if action == "take":
                        continue
                    now += found
                    # Waiting as long as told is enough, but for the last bit of the sum.
                    found = under_test.try_take(math.nextafter(now, math.inf))
                assert isinstance(found, Taken)
                assert now >= closed_until - 1e-6
                held.append(found)
            case "give back" if held:
                under_test.give_back(held.pop(int(number * len(held))))
            case "throttled":
                under_test.throttled(now, None)
                closed_until = max(closed_until, now + 60)
            case _:
                under_test.passed()
        for place in held:
            assert sum(place.at <= other.at < place.at + 60 for other in held) <= per_minute


def test_the_wait_is_until_the_oldest_place_is_free() -> None:
    of = budget(2)
    take(of, 100.0)
    take(of, 130.0)
    assert wait(of, 140.0) == 20.0
    assert 0 < wait(of, math.nextafter(160.0, 0.0)) < 1e-9
    take(of, 160.0)
    assert wait(of, 160.0) == 30.0


def test_a_place_given_back_is_free_at_once_and_only_once() -> None:
    of = budget(1)
    place = take(of, 0.0)
    of.give_back(place)
    take(of, 0.0)
    of.give_back(place)
    assert wait(of, 0.0) == 60.0


def test_places_taken_at_the_same_moment_are_different_ones() -> None:
    of = budget(2)
    first, second = take(of, 0.0), take(of, 0.0)
    of.give_back(first)
    of.give_back(first)
    take(of, 0.0)
    assert wait(of, 0.0) == 60.0
    assert first != second


def test_a_throttled_answer_closes_for_a_minute_doubling_to_ten() -> None:
    of = budget()
    now = 0.0
    for seconds in (60, 120, 240, 480, 600, 600, 600):
        of.throttled(now, None)
        assert wait(of, now) == seconds
        now += seconds
        take(of, now)


def test_a_write_that_passed_starts_the_doubling_anew() -> None:
    of = budget()
    of.throttled(0.0, None)
    of.throttled(60.0, None)
    assert wait(of, 60.0) == 120.0
    of.passed()
    of.throttled(180.0, None)
    assert wait(of, 180.0) == 60.0


def test_answers_of_calls_under_way_together_count_once() -> None:
    """Ten calls in flight when the limit is met must not close the budget for ten minutes."""
    of = budget()
    for late in range(10):
        of.throttled(float(late), None)
    assert wait(of, 9.0) == 60.0
    of.throttled(69.0, None)
    assert wait(of, 69.0) == 120.0


@pytest.mark.parametrize(("asked", "closed"), [(None, 60.0), (1.0, 60.0), (56.818, 60.0), (61.5, 61.5), (600.0, 600.0)])
def test_what_the_cloud_asks_for_is_the_least(asked: float | None, closed: float) -> None:
    of = budget()
    of.throttled(0.0, asked)
    assert wait(of, 0.0) == closed


def test_a_call_that_passed_late_does_not_shorten_what_follows() -> None:
    of = budget()
    of.throttled(0.0, None)
    of.passed()
    of.throttled(1.0, None)
    assert wait(of, 1.0) == 60.0


def test_a_shorter_closing_does_not_open_a_longer_one() -> None:
    of = budget()
    of.throttled(0.0, 300.0)
    of.throttled(1.0, None)
    assert wait(of, 1.0) == 299.0


@pytest.mark.parametrize("asked", [None, 90.0, 600.0])
def test_jitter_only_adds_and_at_most_a_tenth(asked: float | None) -> None:
    low, high = budget(jitter=LOW), budget(jitter=HIGH)
    low.throttled(0.0, asked)
    high.throttled(0.0, asked)
    seconds = wait(low, 0.0)
    assert seconds < wait(high, 0.0) <= seconds * 1.1


# One budget per endpoint and key.


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def budgets(clock: Clock) -> Budgets:
    return Budgets(1, random=lambda: LOW, clock=clock)


def test_a_key_has_one_budget_per_endpoint() -> None:
    found = budgets(Clock())
    one = found.get("https://a", "AK")
    assert found.get("https://a", "AK") is one
    assert found.get("https://b", "AK") is not one
    assert found.get("https://a", "other") is not one


@pytest.mark.parametrize("use", ["take", "throttled"])
def test_a_budget_is_forgotten_only_when_that_changes_nothing(use: str) -> None:
    """Not while a call for which a place was taken may still be under way, and not while it is closed."""
    clock = Clock()
    found = budgets(clock)
    one = found.get("https://a", "AK")
    if use == "take":
        take(one, clock.now)
    else:
        one.throttled(clock.now, 600.0)
    clock.now += 599.0
    found.get("https://a", "makes room")
    assert found.get("https://a", "AK") is one
    clock.now += 1.0
    found.get("https://a", "makes room again")
    assert found.get("https://a", "AK") is not one


def test_rotated_tokens_leave_nothing_behind() -> None:
    clock = Clock()
    found = budgets(clock)
    for day in range(1000):
        found.get("https://a", f"token:{day}").throttled(clock.now, None)
        clock.now += 86_400
    assert len(found._budgets) <= 2
