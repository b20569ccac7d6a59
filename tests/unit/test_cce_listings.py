"""Listings are shared: one under way per key, nobody gets one that had begun when they asked (rules P13, P14).

Not for: fetching pages; test_cce_listing.
"""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from nodepool_membership.cce.errors import UnavailableError
from nodepool_membership.cce.listings import AT_ONCE, ListingKey, Listings
from nodepool_membership.core.observed.observation import NodeTable

KEY = ListingKey("https://a", "p", "c", "k")
KEEP = 30.0


class Table(NodeTable):
    """One that can be watched for being freed."""

    __slots__ = ("__weakref__",)


class Cloud:
    """Listings that end when told; a clock that moves with each listing's begin."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)
        self.begun: list[asyncio.Future[None]] = []
        self.running = self.most = 0
        self.listings = Listings(keep_seconds=KEEP, now=lambda: self.now)

    def tick(self, seconds: float = 1) -> None:
        self.now += timedelta(seconds=seconds)

    async def fetch(self) -> NodeTable:
        begun, gate = self.now, asyncio.get_running_loop().create_future()
        self.begun.append(gate)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await gate
        finally:
            self.running -= 1
        return Table(begun, ())

    def ask(self, key: ListingKey = KEY) -> asyncio.Task[NodeTable]:
        """One who needs a listing begun from now on."""
        self.tick()
        return asyncio.create_task(self.listings.fresh(key, self.fetch, self.now))

    async def settle(self) -> None:
        """Let every task run as far as it gets without a further event."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def end(self, number: int, error: Exception | None = None) -> None:
        gate = self.begun[number]
        if error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        await self.settle()


async def asking(cloud: Cloud, count: int, key: ListingKey = KEY) -> list[asyncio.Task[NodeTable]]:
    tasks = [cloud.ask(key) for _ in range(count)]
    await cloud.settle()
    return tasks


async def test_all_who_ask_before_it_begins_share_one_listing() -> None:
    cloud = Cloud()
    tasks = await asking(cloud, 50)
    assert len(cloud.begun) == 1
    await cloud.end(0)
    tables = {id(await task) for task in tasks}
    assert len(tables) == 1


async def test_who_asks_while_one_is_under_way_gets_the_next() -> None:
    cloud = Cloud()
    (first,) = await asking(cloud, 1)
    asked = cloud.now + timedelta(seconds=1)
    late = await asking(cloud, 50)
    assert len(cloud.begun) == 1
    await cloud.end(0)
    assert first.done()
    assert not any(task.done() for task in late)
    assert len(cloud.begun) == 2
    await cloud.end(1)
    tables = [await task for task in late]
    assert all(table is tables[0] for table in tables)
    assert tables[0].begun >= asked > (await first).begun
    assert len(cloud.begun) == 2


async def test_one_under_way_per_key_however_many_ask() -> None:
    cloud = Cloud()
    tasks: list[asyncio.Task[NodeTable]] = []
    for number in range(5):
        tasks += await asking(cloud, 3)
        assert cloud.running == 1
        await cloud.end(number)
    while cloud.running:
        await cloud.end(len(cloud.begun) - 1)
    assert all(task.done() for task in tasks)
    assert cloud.most == 1


async def test_a_finished_listing_serves_who_can_do_with_its_begin() -> None:
    cloud = Cloud()
    (task,) = await asking(cloud, 1)
    await cloud.end(0)
    table = await task
    assert cloud.listings.recent(KEY) is table
    assert await cloud.listings.fresh(KEY, cloud.fetch, table.begun) is table
    assert len(cloud.begun) == 1


async def test_who_asks_for_presence_only_joins_the_listing_under_way() -> None:
    cloud = Cloud()
    (strict,) = await asking(cloud, 1)
    cloud.tick()
    lenient = asyncio.create_task(cloud.listings.any(KEY, cloud.fetch))
    await cloud.settle()
    assert len(cloud.begun) == 1
    await cloud.end(0)
    assert await lenient is await strict
    assert await cloud.listings.any(KEY, cloud.fetch) is await strict
    assert len(cloud.begun) == 1


async def test_a_listing_is_kept_from_its_end_however_long_it_took() -> None:
    cloud = Cloud()
    (task,) = await asking(cloud, 1)
    cloud.tick(KEEP * 2)
    await cloud.end(0)
    table = await task
    cloud.tick(KEEP)
    assert cloud.listings.recent(KEY) is table
    cloud.tick()
    assert cloud.listings.recent(KEY) is None


@pytest.mark.parametrize("place", range(4))
async def test_each_part_of_the_key_parts_listings(place: int) -> None:
    cloud = Cloud()
    other = ListingKey(*("x" if at == place else part for at, part in enumerate(KEY)))
    tasks = await asking(cloud, 1) + await asking(cloud, 1, other)
    assert cloud.running == 2
    await cloud.end(0)
    await cloud.end(1)
    assert await tasks[0] is not await tasks[1]
    assert cloud.listings.recent(KEY) is await tasks[0]
    assert cloud.listings.recent(other) is await tasks[1]


async def test_an_error_is_everybodys_who_waited_and_nobody_elses() -> None:
    cloud = Cloud()
    waiting = await asking(cloud, 5)
    late = await asking(cloud, 2)
    await cloud.end(0, UnavailableError("no"))
    for task in waiting:
        with pytest.raises(UnavailableError):
            await task
    await cloud.end(1)
    assert await late[0] is await late[1]


async def test_an_error_leaves_the_last_listing_and_the_next_ones_alone() -> None:
    cloud = Cloud()
    (task,) = await asking(cloud, 1)
    await cloud.end(0)
    table = await task
    (failing,) = await asking(cloud, 1)
    await cloud.end(1, UnavailableError("no"))
    with pytest.raises(UnavailableError):
        await failing
    assert cloud.listings.recent(KEY) is table
    (after,) = await asking(cloud, 1)
    await cloud.end(2)
    assert (await after).begun > table.begun


async def test_one_who_gives_up_harms_no_one() -> None:
    cloud = Cloud()
    impatient, patient = await asking(cloud, 2)
    impatient.cancel()
    await cloud.settle()
    assert impatient.cancelled()
    assert cloud.running == 1
    await cloud.end(0)
    assert (await patient).begun <= cloud.now


async def test_when_all_give_up_nothing_is_left_and_an_error_disturbs_nobody() -> None:
    """An exception that nobody fetched would be logged with a traceback when its task is freed."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    cloud = Cloud()
    for task in await asking(cloud, 2):
        task.cancel()
    await cloud.end(0, UnavailableError("no"))
    cloud.listings.prune()
    assert not cloud.listings._shared
    cloud.begun.clear()
    gc.collect()
    assert not complaints
    (task,) = await asking(cloud, 1)
    await cloud.end(0)
    assert (await task).begun <= cloud.now


async def test_only_so_many_of_an_endpoint_run_at_once() -> None:
    cloud = Cloud()
    keys = [KEY._replace(cluster_id=str(number)) for number in range(3 * AT_ONCE)]
    tasks = [cloud.ask(key) for key in keys]
    await cloud.settle()
    for number in range(len(keys)):
        assert cloud.running == min(AT_ONCE, len(keys) - number)
        await cloud.end(number)
    assert len({id(await task) for task in tasks}) == len(keys)
    assert cloud.most == AT_ONCE


async def test_an_endpoint_that_does_not_answer_keeps_nobody_waiting_but_its_own() -> None:
    cloud = Cloud()
    silent = KEY._replace(endpoint="https://silent")
    hanging = [cloud.ask(silent._replace(cluster_id=str(number))) for number in range(3 * AT_ONCE)]
    await cloud.settle()
    asked = cloud.ask()
    await cloud.settle()
    cloud.begun[-1].set_result(None)
    await asked
    for task in hanging:
        task.cancel()


async def test_who_comes_while_a_listing_waits_for_its_turn_joins_it() -> None:
    """It has not begun: its start will be later than their asking."""
    cloud = Cloud()
    others = [await asking(cloud, 1, KEY._replace(cluster_id=str(number))) for number in range(AT_ONCE)]
    early = await asking(cloud, 1)
    late = await asking(cloud, 1)
    asked = cloud.now
    assert len(cloud.begun) == AT_ONCE
    await cloud.end(0)
    assert len(cloud.begun) == AT_ONCE + 1
    await cloud.end(AT_ONCE)
    assert await early[0] is await late[0]
    assert (await late[0]).begun >= asked
    await cloud.end(1)
    assert all(task.done() for (task,) in others)


async def test_a_listing_is_freed_when_it_is_too_old_to_be_shared() -> None:
    cloud = Cloud()
    (task,) = await asking(cloud, 1)
    await cloud.end(0)
    freed = weakref.ref(await task)
    del task
    cloud.tick(KEEP)
    cloud.listings.prune()
    gc.collect()
    assert freed() is not None
    cloud.tick()
    cloud.listings.prune()
    gc.collect()
    assert freed() is None
    assert not cloud.listings._shared


async def test_it_is_freed_without_anybody_asking() -> None:
    """Between two resyncs nobody calls: a timer of the loop does it."""
    cloud = Cloud()
    called: list[tuple[float, Callable[..., object]]] = []
    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_later", lambda delay, what: called.append((delay, what)))
        (task,) = await asking(cloud, 1)
        await cloud.end(0)
        await task
    ((delay, prune),) = called
    assert delay > KEEP
    cloud.tick(delay)
    prune()
    assert not cloud.listings._shared


async def test_pruning_spares_what_is_under_way_or_waited_for() -> None:
    cloud = Cloud()
    (first,) = await asking(cloud, 1)
    (late,) = await asking(cloud, 1)
    cloud.tick(10 * KEEP)
    cloud.listings.prune()
    await cloud.end(0)
    cloud.listings.prune()
    await cloud.end(1)
    assert (await first).begun < (await late).begun
    assert cloud.most == 1


async def test_the_fetch_of_whoever_started_it_is_used() -> None:
    cloud = Cloud()
    calls: list[str] = []

    def named(name: str) -> Callable[[], Awaitable[NodeTable]]:
        async def fetch() -> NodeTable:
            calls.append(name)
            return await cloud.fetch()

        return fetch

    tasks = [asyncio.create_task(cloud.listings.fresh(KEY, named(name), cloud.now)) for name in "ab"]
    await cloud.settle()
    await cloud.end(0)
    await asyncio.gather(*tasks)
    assert calls == ["a"]


async def test_a_listing_of_before_the_clock_was_set_back_is_not_used() -> None:
    """Its begin looks later than the read that wants a newer one: it would prove absence as of too early (P13, P21)."""
    cloud = Cloud()
    (old,) = await asking(cloud, 1)
    await cloud.end(0)
    await old
    cloud.tick(-20)
    assert cloud.listings.recent(KEY) is None
    (fresh,) = await asking(cloud, 1)
    assert len(cloud.begun) == 2
    await cloud.end(1)
    assert (await fresh).begun < (await old).begun


async def test_a_listing_under_way_when_the_clock_was_set_back_is_not_joined() -> None:
    cloud = Cloud()
    (old,) = await asking(cloud, 1)
    cloud.tick(-20)
    (fresh,) = await asking(cloud, 1)
    await cloud.end(0)
    assert old.done()
    assert not fresh.done()
    await cloud.end(1)
    assert await fresh is not await old
