"""Namespaces take turns where little may be under way at once.

Not for: what is done in a turn (`test_cce_snapshots_time`).
"""

import asyncio
from contextlib import suppress

from nodepool_membership.cce.turns import Turns


class Work:
    """Pieces of work, each under way until it is told to end."""

    def __init__(self, limit: int) -> None:
        self.turns = Turns(limit)
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
        async with self.turns.take(lambda: namespaces):
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
