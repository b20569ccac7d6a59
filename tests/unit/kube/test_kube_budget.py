"""The bound on bytes in memory: never exceeded, nobody waits for ever, nothing leaks."""

import asyncio

import pytest

from nodepool_membership.kube.budget import ByteBudget


async def test_never_more_than_the_limit_and_all_get_their_turn() -> None:
    budget, in_use, most, done = ByteBudget(100), 0, 0, 0

    async def use(number: int) -> None:
        size = number * 7 % 61
        nonlocal in_use, most, done
        async with budget.hold(str(number % 3), 60) as held:
            in_use += 60
            most = max(most, in_use)
            held.shrink(size)
            in_use -= 60 - size
            await asyncio.sleep(0)
            in_use -= size
        done += 1

    async with asyncio.timeout(5):
        await asyncio.gather(*(use(number) for number in range(200)))
    assert done == 200
    assert most <= 100
    async with asyncio.timeout(1), budget.hold("a", 100):
        pass


async def test_first_come_first_served() -> None:
    budget, order = ByteBudget(10), list[int]()
    gate = asyncio.Event()

    async def use(number: int, size: int) -> None:
        async with budget.hold("a", size):
            order.append(number)
            if number == 0:
                await gate.wait()

    tasks = [asyncio.create_task(use(n, size)) for n, size in enumerate((8, 10, 1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [0]
    gate.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]


async def test_a_cancelled_wait_gives_nothing_away() -> None:
    budget = ByteBudget(10)
    async with budget.hold("a", 10):
        waiting = asyncio.create_task(budget.hold("a", 10).__aenter__())
        behind = asyncio.create_task(budget.hold("a", 5).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await behind


async def test_cancelled_at_the_moment_of_its_turn() -> None:
    budget = ByteBudget(10)
    async with budget.hold("a", 10):
        waiting = asyncio.create_task(budget.hold("a", 10).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(1), budget.hold("a", 10):
        pass


async def test_more_than_the_limit_waits_for_all_of_it() -> None:
    async with asyncio.timeout(1), ByteBudget(10).hold("a", 1000) as held:
        assert held.size == 10
        held.shrink(2000)
        assert held.size == 10


async def test_what_one_namespace_waits_for_keeps_no_other_waiting() -> None:
    budget, order = ByteBudget(40), list[str]()
    gate = asyncio.Event()

    async def use(owner: str) -> None:
        async with budget.hold(owner, 10):
            order.append(owner)
            await gate.wait()

    tasks = [asyncio.create_task(use(owner)) for owner in ("a", "a", "a", "a", "b", "c")]
    for _ in range(4):
        await asyncio.sleep(0)
    assert order == ["a", "a", "b", "c"]
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "c", "a", "a"]


async def test_who_is_cancelled_just_when_its_turn_comes_keeps_nothing() -> None:
    budget, over = ByteBudget(10), asyncio.Event()

    async def use(owner: str) -> None:
        async with budget.hold(owner, 10):
            await over.wait()

    first = asyncio.create_task(use("a"))
    await asyncio.sleep(0)
    second, third = asyncio.create_task(use("b")), asyncio.create_task(use("c"))
    await asyncio.sleep(0)
    # The first one ends in the step of the loop in which the second one is to learn that it is cancelled.
    over.set()
    second.cancel()
    await first
    async with asyncio.timeout(1):
        await third
    assert second.cancelled()
    async with asyncio.timeout(1), budget.hold("d", 10):
        pass


async def test_namespaces_take_turns() -> None:
    budget, order = ByteBudget(10), list[str]()

    async def use(owner: str) -> None:
        async with budget.hold(owner, 10):
            order.append(owner)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(owner) for owner in ("a", "a", "a", "b", "b", "c")))
    assert order == ["a", "a", "b", "c", "a", "b"]


async def test_a_large_one_whose_turn_it_is_is_not_overtaken_for_ever() -> None:
    budget = ByteBudget(10)
    async with budget.hold("a", 5):
        large = asyncio.create_task(budget.hold("b", 10).__aenter__())
        small = asyncio.create_task(budget.hold("c", 5).__aenter__())
        for _ in range(4):
            await asyncio.sleep(0)
        assert not large.done()
        assert not small.done()
    held = await large
    held.shrink(5)
    await small
