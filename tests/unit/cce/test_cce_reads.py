"""The read budget: never more than N reads in any second, and what a throttled one does to all (rule P23).

Not for: what is read, or what a membership is told of it (`test_runtime_clouds`).
"""

import asyncio
from bisect import bisect_left
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodepool_membership.cce.errors import PausedError, ThrottledError
from nodepool_membership.cce.reads import (
    PAUSE_SECONDS,
    RECOVERY_SECONDS,
    WINDOW_SECONDS,
    ReadBudget,
    ReadBudgets,
)
from times import Clock


@dataclass
class Site:
    """A budget in virtual time: who sleeps sets the clock on."""

    per_second: int = 10
    clock: Clock = field(default_factory=Clock)
    began: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = ReadBudget(self.per_second, clock=self.clock, sleep=self._sleep, waited=self.waited.append)

    async def _sleep(self, seconds: float) -> None:
        self.clock.now += seconds

    async def read(self, error: ThrottledError | None = None) -> None:
        async with self.budget.read():
            self.began.append(self.clock.now)
            if error is not None:
                raise error

    async def throttled(self, retry_after: float | None = None) -> float | None:
        """How long whoever read is to wait."""
        with pytest.raises(ThrottledError) as caught:
            await self.read(ThrottledError("slow down", status=429, code="APIGW.0308", retry_after=retry_after))
        return caught.value.retry_after


@settings(max_examples=100)
@given(per_second=st.integers(1, 5), random=st.randoms(use_true_random=False))
def test_never_more_than_n_in_any_second(per_second: int, random: Random) -> None:
    site = Site(per_second)

    async def reads() -> None:
        for _ in range(40):
            site.clock.now += random.choice((0.0, 0.0, 0.1, 0.7))
            await site.read()

    asyncio.run(reads())
    for index, begun in enumerate(site.began):
        # A thousandth less than a second: times are sums of floats.
        assert bisect_left(site.began, begun + WINDOW_SECONDS - 0.001) - index <= per_second


async def test_who_reads_seldom_waits_for_nothing() -> None:
    site = Site(2)
    for _ in range(5):
        await site.read()
        await site.read()
        site.clock.now += WINDOW_SECONDS
    assert site.waited == []
    await site.read()
    await site.read()
    await site.read()
    assert site.waited == [WINDOW_SECONDS]


async def test_all_that_ask_at_once_get_places_in_their_order() -> None:
    clock, order = Clock(), list[int]()
    begins: list[float] = []

    async def noted(seconds: float) -> None:
        begins.append(seconds)

    of = ReadBudget(2, clock=clock, sleep=noted)

    async def read(who: int) -> None:
        async with of.read():
            order.append(who)

    await asyncio.gather(*(read(who) for who in range(6)))
    assert (order, begins) == (list(range(6)), [1.0, 1.0, 2.0, 2.0])


@pytest.mark.parametrize(("asked", "pause"), [(None, PAUSE_SECONDS), (1.0, PAUSE_SECONDS), (56.818, 56.818)])
async def test_a_throttled_read_stops_all_of_that_user_for_as_long_as_the_cloud_asks(
    asked: float | None, pause: float
) -> None:
    site = Site()
    assert await site.throttled(asked) == pause
    site.clock.now += 1
    with pytest.raises(PausedError, match="slow down") as caught:
        await site.read()
    assert caught.value.retry_after == pytest.approx(pause - 1)
    assert (caught.value.status, caught.value.code, len(site.began)) == (429, "APIGW.0308", 1)
    site.clock.now += pause - 1
    await site.read()


async def test_who_waits_for_a_place_meanwhile_is_stopped_too() -> None:
    site = Site(1)
    await site.read()
    waiting = site.budget

    async def throttled_meanwhile(_: float) -> None:
        waiting._throttled(ThrottledError("slow down"))

    waiting._sleep = throttled_meanwhile
    with pytest.raises(PausedError):
        await site.read()
    assert len(site.began) == 1


async def test_there_are_half_as_many_afterwards_and_twice_as_many_after_a_while() -> None:
    site = Site(10)
    rates = []
    for _ in range(5):
        await site.throttled()
        rates.append(site.budget.rate)
        site.clock.now += PAUSE_SECONDS
    assert rates == [5, 2, 1, 1, 1]
    for rate in (1, 2, 4, 8, 10, 10):
        assert site.budget.rate == rate
        site.clock.now += RECOVERY_SECONDS
        await site.read()


async def test_answers_to_reads_that_were_under_way_count_as_one() -> None:
    site = Site(16)

    async def one() -> None:
        async with site.budget.read():
            await asyncio.sleep(0)
            raise ThrottledError("slow down")

    await asyncio.gather(*(one() for _ in range(8)), return_exceptions=True)
    assert site.budget.rate == 8


async def test_each_user_of_each_service_has_a_budget_of_its_own_and_idle_ones_are_dropped() -> None:
    clock = Clock()
    of = ReadBudgets(5, clock=clock)
    first = of.get("https://cce", "one")
    assert of.get("https://cce", "one") is first
    assert of.get("https://cce", "other") is not first
    assert of.get("https://ecs", "one") is not first
    clock.now += 3600
    of.get("https://cce", "third")
    assert of.get("https://cce", "one") is not first


def test_less_than_one_is_no_budget() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ReadBudget(0, clock=Clock())
