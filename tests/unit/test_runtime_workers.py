"""The workers: every key is worked, a failing one costs only itself, stopping waits for what is under way."""

import asyncio
import logging

import pytest

from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.queue import Key, WorkQueue
from nodepool_membership.runtime.workers import Workers

A, B = ("ns", "a"), ("ns", "b")


class Fake:
    """Does as told for each key and notes what happened."""

    def __init__(self) -> None:
        self.looks: list[Key] = []
        self.ended: list[Key] = []
        self.gates: dict[Key, asyncio.Event] = {}
        self.fail: set[Key] = set()
        self.delay: float | None = None
        self.closed = False

    async def reconcile(self, key: Key) -> float | None:
        self.looks.append(key)
        if key in self.gates:
            await self.gates[key].wait()
        if key in self.fail:
            raise RuntimeError("broken object")
        self.ended.append(key)
        return self.delay

    async def close(self) -> None:
        self.closed = True

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.looks) < count:  # noqa: ASYNC110 - the reconciler is called, not signalled
                await asyncio.sleep(0.001)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def workers(queue: WorkQueue, fake: Fake, clock: Clock | None = None, count: int = 2) -> Workers:
    made = Workers(queue, fake, Metrics(), stuck_after_seconds=60, count=count, clock=clock or Clock())
    made.start()
    return made


async def test_a_failing_key_is_retried_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    queue, fake = WorkQueue(random=lambda: 0.99), Fake()
    fake.fail.add(A)
    pool = workers(queue, fake)
    for key in (A, B):
        queue.add(key)
    await fake.until(3)
    await pool.stop(5)
    assert fake.looks == [A, B, A]
    assert fake.ended == [B]
    failures = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert {getattr(r, "object", None) for r in failures} == {"ns/a"}


async def test_the_next_look_comes_when_the_last_one_said() -> None:
    queue, fake = WorkQueue(), Fake()
    fake.delay = 0.01
    pool = workers(queue, fake)
    queue.add(A)
    await fake.until(3)
    await pool.stop(5)
    assert set(fake.looks) == {A}


async def test_stopping_waits_for_looks_under_way_and_starts_no_other() -> None:
    queue, fake = WorkQueue(), Fake()
    fake.gates[A] = asyncio.Event()
    pool = workers(queue, fake, count=1)
    queue.add(A)
    queue.add(B)
    await fake.until(1)
    stopping = asyncio.create_task(pool.stop(5))
    await asyncio.sleep(0.01)
    assert not stopping.done()
    assert fake.closed
    fake.gates[A].set()
    await stopping
    assert fake.looks == fake.ended == [A]


async def test_patience_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    queue, fake = WorkQueue(), Fake()
    fake.gates[A] = asyncio.Event()
    pool = workers(queue, fake)
    queue.add(A)
    await fake.until(1)
    async with asyncio.timeout(5):
        await pool.stop(0.01)
    assert fake.ended == []
    assert "cancelled at the end" in caplog.text


async def test_stuck_only_when_keys_wait_and_nothing_is_finished() -> None:
    clock, fake = Clock(), Fake()
    queue = WorkQueue(clock=clock)
    fake.gates[A] = asyncio.Event()
    pool = workers(queue, fake, clock, count=1)
    queue.add(A)
    await fake.until(1)
    clock.now = 1000
    assert pool.stuck() is None
    queue.add(B)
    clock.now = 1060
    assert pool.stuck() is None
    clock.now = 1061
    reason = pool.stuck()
    assert reason is not None
    assert "1 memberships wait" in reason
    fake.gates[A].set()
    await fake.until(2)
    assert pool.stuck() is None
    await pool.stop(5)
