"""The work queue: never twice at once, nothing lost, the last timer counts, backoff bounded."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nodepool_membership.runtime.scheduling.queue import Key, WorkQueue
from times import Clock

A, B = ("ns", "a"), ("ns", "b")
keys = st.sampled_from([*(("ns", name) for name in "abc"), ("other", "a")])


class QueueMachine(RuleBasedStateMachine):
    """The queue beside a model of what it owes: keys to be worked, the moment each timer is due, keys being worked."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = WorkQueue(clock=self.clock)
        self.surplus: set[Key] = set()
        self.due: dict[Key, float] = {}
        self.busy: set[Key] = set()

    def promote(self) -> None:
        for key in [key for key, due in self.due.items() if due <= self.clock.now]:
            del self.due[key]
            self.surplus.add(key)

    @rule(key=keys)
    def add(self, key: Key) -> None:
        self.queue.add(key)
        self.surplus.add(key)

    @rule(key=keys, seconds=st.integers(-1, 5))
    def add_after(self, key: Key, seconds: int) -> None:
        self.promote()
        if seconds > 0:
            self.due[key] = self.clock.now + seconds
        else:
            self.due.pop(key, None)
            self.surplus.add(key)
        self.queue.add_after(key, seconds)

    @rule(seconds=st.integers(0, 3))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        key = self.queue.get_nowait()
        self.promote()
        if key is None:
            assert self.surplus <= self.busy
            return
        assert key not in self.busy
        assert key in self.surplus
        self.surplus.discard(key)
        self.due.pop(key, None)
        self.busy.add(key)

    @rule(key=keys)
    def finish(self, key: Key) -> None:
        if key in self.busy:
            self.busy.discard(key)
            self.queue.done(key)

    @invariant()
    def counts(self) -> None:
        assert self.queue.busy == len(self.busy)

    def teardown(self) -> None:
        """Whatever is owed comes out in the end, once."""
        self.clock.now += 100
        self.promote()
        out = []
        for key in list(self.busy):
            self.queue.done(key)
        while (taken := self.queue.get_nowait()) is not None:
            out.append(taken)
        assert sorted(out) == sorted(self.surplus)


QueueMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_first_in_first_out_and_once(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    for key in (A, B, A):
        queue.add(key)
    clock.now = 7
    assert queue.oldest_seconds() == 7
    assert len(queue) == 2
    assert [queue.get_nowait() for _ in range(3)] == [A, B, None]
    assert queue.oldest_seconds() == 0


def test_the_last_timer_counts_also_a_later_one(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    queue.add_after(A, 5)
    queue.add_after(A, 50)
    clock.now = 49
    assert queue.get_nowait() is None
    clock.now = 50
    assert queue.get_nowait() == A


def test_replaced_timers_do_not_pile_up(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    for _ in range(10_000):
        queue.add_after(A, 300)
    assert len(queue._heap) < 100


def test_backoff_doubles_up_to_five_minutes_and_starts_again(clock: Clock) -> None:
    queue = WorkQueue(clock=clock, random=lambda: 0.0)
    waits = [queue.retry(A) for _ in range(40)]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == 300
    queue.forget(A)
    assert queue.retry(A) == 1
    assert WorkQueue(random=lambda: 0.999).retry(A) > 0.5


def taken(queue: WorkQueue, count: int) -> list[Key | None]:
    """The next keys, each worked before the next is taken."""
    found = []
    for _ in range(count):
        key = queue.get_nowait()
        found.append(key)
        if key is not None:
            queue.done(key)
    return found


def test_namespaces_take_turns_however_much_one_has(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    flood: list[Key | None] = [("flood", str(n)) for n in range(100)]
    for key in (*flood, ("x", "a"), ("y", "a"), ("x", "b")):
        if key is not None:
            queue.add(key)
    assert taken(queue, 6) == [("flood", "0"), ("x", "a"), ("y", "a"), ("flood", "1"), ("x", "b"), ("flood", "2")]


def test_new_keys_come_before_known_ones_and_keep_them_from_no_turn(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    known: list[Key] = [("ns", f"known{n}") for n in range(50)]
    for key in known:
        queue.add(key)
    taken(queue, 50)
    for key in (*known, ("flood", "n0"), ("flood", "n1"), ("flood", "n2"), ("ns", "new")):
        queue.add(key)
    assert taken(queue, 6) == [
        ("flood", "n0"),
        ("ns", "known0"),
        ("ns", "new"),
        ("ns", "known1"),
        ("flood", "n1"),
        ("ns", "known2"),
    ]


def test_a_namespace_has_as_many_workers_as_are_left_for_others(clock: Clock) -> None:
    queue = WorkQueue(clock=clock, workers=8)
    for namespace in ("flood", "second", "third"):
        for number in range(20):
            queue.add((namespace, str(number)))
    busy = []
    while (key := queue.get_nowait()) is not None:
        busy.append(key)
    assert [namespace for namespace, _ in busy].count("flood") <= 4
    assert {namespace for namespace, _ in busy} == {"flood", "second", "third"}
    alone = WorkQueue(clock=clock, workers=8)
    for number in range(20):
        alone.add(("alone", str(number)))
    for _ in range(4):
        assert alone.get_nowait() is not None
    assert alone.get_nowait() is None
    alone.add(("late", "first"))
    assert alone.get_nowait() == ("late", "first")


async def test_a_worker_that_waits_for_its_namespaces_share_is_woken_when_one_is_done() -> None:
    queue = WorkQueue(workers=2)
    queue.add(A)
    queue.add(B)
    assert await queue.get() == A
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(A)
    async with asyncio.timeout(5):
        assert await waiting == B


def test_how_long_a_first_look_is_waited_for(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    queue.add(A)
    clock.now = 100
    assert queue.oldest_new_seconds() == 0
    assert queue.get_nowait() == A
    clock.now = 103
    queue.add(B)
    clock.now = 110
    assert queue.oldest_new_seconds() == 10
    queue.done(A)
    assert queue.oldest_new_seconds() == 7
    taken(queue, 1)
    assert queue.oldest_new_seconds() == 0
    queue.add(A)
    clock.now = 200
    assert queue.oldest_new_seconds() == 0
    taken(queue, 1)
    queue.gone(A)
    queue.add(A)
    clock.now = 205
    assert queue.oldest_new_seconds() == 5


async def test_a_waiting_worker_gets_what_is_added_and_what_comes_due() -> None:
    queue = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    async with asyncio.timeout(5):
        assert await waiting == A
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add_after(B, 0.02)
        assert await waiting == B


async def test_a_key_meant_for_a_cancelled_worker_goes_to_another() -> None:
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == A


async def test_closing_ends_the_wait_and_takes_nothing_in() -> None:
    queue = WorkQueue()
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add(A)
    queue.close()
    queue.add(B)
    queue.add_after(B, 0.001)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [None] * 3
        assert await queue.get() is None
