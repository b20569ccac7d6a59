"""The write budget: never more than N writes in any 60 s, and what a throttled answer does to it (rule P23).

Not for: who asks for a place, and when.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodepool_membership.cce.budget import KEPT_SECONDS, WINDOW_SECONDS, Budgets, Taken, WriteBudget
from times import Clock

LOW, HIGH = 0.0, math.nextafter(1.0, 0.0)
"""The ends of the jitter."""


def budget(per_minute: int = 10, jitter: float = LOW) -> WriteBudget:
    return WriteBudget(per_minute, random=lambda: jitter)


def take(of: WriteBudget, now: float, who: str = "somebody", namespace: str = "ns") -> Taken:
    place = of.try_take(now, who, namespace)
    assert isinstance(place, Taken), f"to wait {place} s"
    return place


def call(of: WriteBudget, now: float, who: str = "somebody", namespace: str = "ns") -> None:
    """A call that takes no time."""
    of.ended(take(of, now, who, namespace), now)


def wait(of: WriteBudget, now: float, who: str = "somebody", namespace: str = "ns") -> float:
    seconds = of.try_take(now, who, namespace)
    assert isinstance(seconds, float)
    return seconds


class Rivals:
    """Memberships that share a budget, each with calls to make, in virtual time; they come when they were told to."""

    def __init__(self, per_minute: int, namespaces: list[list[int]], draw: Callable[[], float]) -> None:
        """`namespaces`: the calls of each membership of each."""
        self.budget = WriteBudget(per_minute, random=lambda: LOW)
        self.draw = draw
        self.left = {(f"n{n}", f"n{n}-m{m}"): c for n, calls in enumerate(namespaces) for m, c in enumerate(calls)}
        self.overtaken: dict[tuple[str, str], Counter[str]] = {}
        """Who was told to wait, and how often each rival of its namespace took a place and left none for the waiter."""
        self.had: dict[str, Counter[str]] = {}
        """By namespace of which somebody waits: how many places each had since that is so."""
        self.per_minute = per_minute
        self.calls: list[tuple[float, float]] = []
        """When each began and ended."""
        self._serial = 0
        self._due: list[tuple[float, int, tuple[str, str], Taken | None]] = []
        for who in self.left:
            self._later(draw(), who)

    def _later(self, moment: float, who: tuple[str, str], place: Taken | None = None) -> None:
        self._serial += 1
        heapq.heappush(self._due, (moment, self._serial, who, place))

    def run(self) -> None:
        while self._due:
            now, _, who, place = heapq.heappop(self._due)
            if place is None:
                self._ask(now, who)
            else:
                self.calls.append((place.at, now))
                self.budget.ended(place, now)

    def _ask(self, now: float, who: tuple[str, str]) -> None:
        found = self.budget.try_take(now, who[1], who[0])
        if isinstance(found, float):
            assert found > 0
            if who not in self.overtaken:
                self.had.setdefault(who[0], Counter())
                self.overtaken[who] = Counter()
            self._later(now + found + self.draw() * KEPT_SECONDS, who)
            return
        self.overtaken.pop(who, None)
        self._count(who[0])
        for waiter in [w for w in self.overtaken if w[0] == who[0] and self._must_wait(now, w)]:
            self.overtaken[waiter][who[1]] += 1
            assert self.overtaken[waiter][who[1]] <= 1, f"{waiter} is overtaken twice by {who}"
        self.left[who] -= 1
        self._later(now + 20 * self.draw(), who, found)
        if self.left[who]:
            self._later(now + self.draw(), who)

    def _count(self, namespace: str) -> None:
        self.had = {name: had for name, had in self.had.items() if any(w[0] == name for w in self.overtaken)}
        for name, had in self.had.items():
            had[namespace] += 1
            # What is free at once goes to those who come first; the others catch up in the next minute.
            assert had[namespace] <= had[name] + 2 * self.per_minute, (
                f"{namespace} has more than its share beside {name}"
            )

    def _must_wait(self, now: float, who: tuple[str, str]) -> bool:
        return isinstance(deepcopy(self.budget).try_take(now, who[1], who[0]), float)


@settings(max_examples=150)
@given(
    per_minute=st.integers(1, 5),
    namespaces=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=5), min_size=1, max_size=3),
    random=st.randoms(use_true_random=False),
)
def test_never_more_than_n_in_any_minute_and_nobody_is_overtaken_twice(
    per_minute: int, namespaces: list[list[int]], random: Random
) -> None:
    """Of one namespace; and no namespace has more than its share while somebody of another one waits."""
    rivals = Rivals(per_minute, namespaces, random.random)
    rivals.run()
    assert set(rivals.left.values()) == {0}
    for begun, _ in rivals.calls:
        # Each may have arrived at any moment between its begin and its end: those that may fall into one minute.
        together = [1 for other, ended in rivals.calls if other <= begun < ended + WINDOW_SECONDS]
        assert len(together) <= per_minute


def test_one_with_many_calls_does_not_starve_one_with_one() -> None:
    of = budget(2)
    call(of, 0.0, "many")
    call(of, 0.0, "many")
    assert wait(of, 0.0, "many") == 60.0
    assert wait(of, 1.0, "one") == 59.0
    # It asks again and again: two places are free, and one of them is kept.
    call(of, 60.0, "many")
    assert wait(of, 60.0, "many") == 60.0
    call(of, 61.0, "one")


def test_a_namespace_with_two_hundred_who_wait_keeps_no_other_from_the_next_place() -> None:
    of = budget(10)
    for number in range(10):
        call(of, 0.0, f"many-{number}", "many")
    for number in range(10, 200):
        wait(of, 0.0, f"many-{number}", "many")
    assert wait(of, 1.0, "one", "other") == 59.0
    # All come as soon as they may, and again at once: of two places one is for the other namespace.
    taken = Counter[str]()
    for minute in range(1, 5):
        now = minute * 60.0
        for number in range(10, 200):
            for who, namespace in ((f"many-{number}", "many"), ("one", "other")):
                if isinstance(place := of.try_take(now, who, namespace), Taken):
                    of.ended(place, now)
                    taken[namespace] += 1
        assert taken.total() == minute * 10
        assert abs(taken["many"] - taken["other"]) <= 2, minute


def test_namespaces_that_wait_have_a_place_each_before_any_has_two() -> None:
    of, asking = budget(2), [("a", n) for n in range(9)] + [("b", n) for n in range(3)] + [("c", 0)]
    call(of, 0.0, "before", "a")
    call(of, 0.0, "before", "b")
    served = []
    for minute in range(5):
        for namespace, number in asking:
            of.until_turn(minute * 60.0, f"{namespace}{number}", namespace)
        for namespace, number in list(asking):
            if isinstance(place := of.try_take((minute + 1) * 60.0, f"{namespace}{number}", namespace), Taken):
                of.ended(place, (minute + 1) * 60.0)
                served.append(namespace)
                asking.remove((namespace, number))
    assert [sorted(served[at : at + 2]) for at in range(0, 10, 2)] == [
        ["a", "b"],
        ["a", "c"],
        ["a", "b"],
        ["a", "b"],
        ["a", "a"],
    ]


def test_what_a_namespace_did_not_use_gives_it_no_more_than_its_share_later() -> None:
    of = budget(1)
    for minute in range(50):
        call(of, minute * 60.0, "busy", "busy")
    served, now = [], 50 * 60.0
    for _ in range(6):
        for who in ("idle", "busy"):
            of.until_turn(now - 30.0, who, who)
        for who in ("idle", "busy"):
            if isinstance(place := of.try_take(now, who, who), Taken):
                of.ended(place, now)
                served.append(who)
        now += 60.0
    assert served.count("idle") == served.count("busy") == 3


def test_who_asks_for_its_turn_keeps_it_and_takes_no_place() -> None:
    of = budget(1)
    call(of, 0.0, "a")
    assert (of.until_turn(0.0, "b", "ns"), wait(of, 0.0, "c")) == (60.0, 60.0)
    assert of.until_turn(60.0, "b", "ns") == 0.0
    assert wait(of, 60.0 + KEPT_SECONDS, "c") > 0
    call(of, 60.0 + KEPT_SECONDS, "b")


def test_turns_go_round_between_those_who_have_many() -> None:
    of, served = budget(1), []
    call(of, 0.0, "a")
    now = 0.0
    asking = ["a", "b", "c"]
    for _ in range(6):
        for who in asking:
            wait(of, now, who)
        now += 60.0
        for who in asking:
            if isinstance(place := of.try_take(now, who, "ns"), Taken):
                of.ended(place, now)
                served.append(who)
                break
    assert served == ["a", "b", "c", "a", "b", "c"]


def test_the_turn_of_one_who_does_not_come_is_over() -> None:
    of = budget(1)
    call(of, 0.0, "first")
    assert wait(of, 0.0, "gone") == 60.0
    assert wait(of, 0.0, "there") == 60.0
    assert wait(of, 60.0 + KEPT_SECONDS, "there") > 0
    call(of, math.nextafter(60.0 + KEPT_SECONDS, math.inf), "there")


def test_a_call_counts_until_a_minute_after_its_end() -> None:
    """It may have arrived at any moment until then."""
    of = budget(1)
    place = take(of, 0.0)
    assert wait(of, 50.0) == 60.0
    of.ended(place, 59.0)
    assert wait(of, 60.0) == 59.0
    call(of, 119.0)


def test_the_wait_is_until_the_oldest_place_is_free() -> None:
    of = budget(2)
    call(of, 100.0)
    call(of, 130.0)
    assert wait(of, 140.0) == 20.0
    assert 0 < wait(of, math.nextafter(160.0, 0.0)) < 1e-9
    call(of, 160.0)
    assert wait(of, 160.0) == 30.0


def test_a_place_given_back_is_free_at_once_and_only_once() -> None:
    of = budget(1)
    place = take(of, 0.0)
    of.give_back(place)
    call(of, 0.0)
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
        call(of, now)


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


def budgets(clock: Clock) -> Budgets:
    return Budgets(1, random=lambda: LOW, clock=clock)


def test_a_key_has_one_budget_per_endpoint() -> None:
    found = budgets(Clock(1000.0))
    one = found.get("https://a", "AK")
    assert found.get("https://a", "AK") is one
    assert found.get("https://b", "AK") is not one
    assert found.get("https://a", "other") is not one


@pytest.mark.parametrize("use", ["take", "throttled"])
def test_a_budget_is_forgotten_only_when_that_changes_nothing(use: str) -> None:
    """Not while a call for which a place was taken may still be under way, and not while it is closed."""
    clock = Clock(1000.0)
    found = budgets(clock)
    one = found.get("https://a", "AK")
    if use == "take":
        call(one, clock.now)
    else:
        one.throttled(clock.now, 600.0)
    clock.now += 599.0
    found.get("https://a", "makes room")
    assert found.get("https://a", "AK") is one
    clock.now += 1.0
    found.get("https://a", "makes room again")
    assert found.get("https://a", "AK") is not one


def test_rotated_tokens_leave_nothing_behind() -> None:
    clock = Clock(1000.0)
    found = budgets(clock)
    for day in range(1000):
        found.get("https://a", f"token:{day}").throttled(clock.now, None)
        clock.now += 86_400
    assert len(found._budgets) <= 2


def test_a_budget_is_not_forgotten_while_a_call_is_under_way() -> None:
    clock = Clock(1000.0)
    found = budgets(clock)
    one = found.get("https://a", "AK")
    place = take(one, clock.now)
    clock.now += 10_000.0
    found.get("https://a", "makes room")
    assert found.get("https://a", "AK") is one
    one.ended(place, clock.now)
