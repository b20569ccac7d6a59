"""The bound on what namespaces share: never exceeded, nobody waits for ever, nothing leaks."""

import asyncio
from contextlib import suppress

import pytest

from nodepool_membership.shares import Shares, only


async def test_never_more_than_the_limit_and_all_get_their_turn() -> None:
    budget, in_use, most, done = Shares(100), 0, 0, 0

    async def use(number: int) -> None:
        size = number * 7 % 61
        nonlocal in_use, most, done
        async with budget.hold(only(str(number % 3)), 60) as held:
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
    async with asyncio.timeout(1), budget.hold(only("a"), 100):
        pass


async def test_first_come_first_served() -> None:
    budget, order = Shares(10), list[int]()
    gate = asyncio.Event()

    async def use(number: int, size: int) -> None:
        async with budget.hold(only("a"), size):
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
    budget = Shares(10)
    async with budget.hold(only("a"), 10):
        waiting = asyncio.create_task(budget.hold(only("a"), 10).__aenter__())
        behind = asyncio.create_task(budget.hold(only("a"), 5).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await behind


async def test_cancelled_at_the_moment_of_its_turn() -> None:
    budget = Shares(10)
    async with budget.hold(only("a"), 10):
        waiting = asyncio.create_task(budget.hold(only("a"), 10).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(1), budget.hold(only("a"), 10):
        pass


async def test_more_than_the_limit_waits_for_all_of_it() -> None:
    async with asyncio.timeout(1), Shares(10).hold(only("a"), 1000) as held:
        assert held.size == 10
        held.shrink(2000)
        assert held.size == 10


async def test_what_one_namespace_waits_for_keeps_no_other_waiting() -> None:
    budget, order = Shares(40), list[str]()
    gate = asyncio.Event()

    async def use(owner: str) -> None:
        async with budget.hold(only(owner), 10):
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
    budget, over = Shares(10), asyncio.Event()

    async def use(owner: str) -> None:
        async with budget.hold(only(owner), 10):
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
    async with asyncio.timeout(1), budget.hold(only("d"), 10):
        pass


async def test_namespaces_take_turns() -> None:
    budget, order = Shares(10), list[str]()

    async def use(owner: str) -> None:
        async with budget.hold(only(owner), 10):
            order.append(owner)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(owner) for owner in ("a", "a", "a", "b", "b", "c")))
    assert order == ["a", "b", "c", "a", "b", "a"]


async def test_a_large_one_whose_turn_it_is_is_not_overtaken_for_ever() -> None:
    budget = Shares(10)
    async with budget.hold(only("a"), 5):
        large = asyncio.create_task(budget.hold(only("b"), 10).__aenter__())
        small = asyncio.create_task(budget.hold(only("c"), 5).__aenter__())
        for _ in range(4):
            await asyncio.sleep(0)
        assert not large.done()
        assert not small.done()
    held = await large
    held.shrink(5)
    await small


class Work:
    """Pieces of work, each under way until it is told to end."""

    def __init__(self, limit: int) -> None:
        self.turns = Shares(limit)
        self.begun: list[str] = []
        self.over: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, *namespaces: str) -> set[str]:
        """Whoever waits waits for these namespaces, which may become more."""
        wanted = set(namespaces)
        self.over[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._work(name, wanted))
        await asyncio.sleep(0)
        return wanted

    async def _work(self, name: str, namespaces: set[str]) -> None:
        async with self.turns.hold(lambda: namespaces):
            self.begun.append(name)
            await self.over[name].wait()

    async def end(self, name: str) -> None:
        self.over[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        await asyncio.sleep(0)


async def test_a_namespace_leaves_as_much_as_it_has() -> None:
    work = Work(4)
    for number in range(4):
        await work.ask(f"a{number}", "a")
    assert work.begun == ["a0", "a1"]
    await work.ask("b0", "b")
    await work.ask("c0", "c")
    assert work.begun == ["a0", "a1", "b0", "c0"]
    await work.end("a0")
    assert work.begun[4:] == []
    await work.end("b0")
    await work.end("c0")
    assert work.begun[4:] == ["a2"]


async def test_who_was_served_longest_ago_is_next_however_many_another_waits_for() -> None:
    work = Work(1)
    for number in range(3):
        await work.ask(f"a{number}", "a")
    for number in range(2):
        await work.ask(f"b{number}", "b")
    for _ in range(5):
        await work.end(work.begun[-1])
    assert work.begun == ["a0", "b0", "a1", "b1", "a2"]


async def test_who_waits_for_one_more_namespace_may_go_on_in_its_turn() -> None:
    work = Work(2)
    await work.ask("a0", "a")
    wanted = await work.ask("shared", "a")
    assert work.begun == ["a0"]
    wanted.add("b")
    work.turns.serve()
    await asyncio.sleep(0)
    assert work.begun == ["a0", "shared"]
    await work.ask("b0", "b")
    assert work.begun == ["a0", "shared"]
    await work.end("shared")
    assert work.begun == ["a0", "shared", "b0"]


async def test_who_gives_up_leaves_its_turn_to_others() -> None:
    work = Work(1)
    for name in ("under way", "waits", "next", "last"):
        await work.ask(name, name)
    await work.give_up("waits")
    await work.give_up("under way")
    assert work.begun == ["under way", "next"]
    # It is told to give up just when its turn comes.
    work.tasks["last"].cancel()
    await work.end("next")
    assert work.tasks["last"].cancelled()
    await work.ask("later", "later")
    assert work.begun == ["under way", "next", "later"]


async def test_who_gives_up_in_the_moment_of_its_turn_leaves_it_too() -> None:
    work = Work(1)
    await work.ask("first", "a")
    await work.ask("second", "b")
    work.over["first"].set()
    # Its turn is given when the first one has ended; it goes on one step of the loop later.
    await asyncio.sleep(0)
    await work.give_up("second")
    assert work.begun == ["first"]
    await work.ask("third", "c")
    assert work.begun[-1] == "third"
