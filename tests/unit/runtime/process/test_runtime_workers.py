"""The workers: every key is worked, a failing one costs only itself, stopping waits for what is under way."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

import pytest

from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.process.workers import Workers
from nodepool_membership.runtime.scheduling.queue import Key, WorkQueue
from times import Clock

A, B = ("ns", "a"), ("ns", "b")


class Fake:
    """Does as told for each key and notes what happened."""

    def __init__(self) -> None:
        self.looks: list[Key] = []
        self.ended: list[Key] = []
        self.gates: dict[Key, asyncio.Event] = {}
        self.fail: set[Key] = set()
        self.errors: dict[Key, BaseException] = {}
        self.meanwhile: Callable[[], Coroutine[None, None, None]] | None = None
        self.delay: float | None = None
        self.started = self.closed = False

    async def reconcile(self, key: Key) -> float | None:
        self.looks.append(key)
        if self.meanwhile is not None:
            await asyncio.create_task(self.meanwhile())
        if key in self.errors:
            raise self.errors[key]
        if key in self.gates:
            await self.gates[key].wait()
        if key in self.fail:
            raise RuntimeError("broken object")
        self.ended.append(key)
        return self.delay

    def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.closed = True

    async def until_ended(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.ended) < count:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.001)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.looks) < count:  # noqa: ASYNC110 - the reconciler is called, not signalled
                await asyncio.sleep(0.001)


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


async def test_a_look_that_gives_no_sign_of_life_is_named() -> None:
    clock, fake = Clock(), Fake()
    queue = WorkQueue(clock=clock)
    fake.gates[A] = asyncio.Event()
    pool = workers(queue, fake, clock)
    queue.add(A)
    await fake.until(1)
    clock.now = 40
    queue.add(B)
    await fake.until(2)
    clock.now = 60
    assert pool.stuck() is None
    clock.now = 61
    reason = pool.stuck()
    assert reason is not None
    assert "ns/a is being worked, without a sign of life for 61 s" in reason
    fake.gates[A].set()
    await fake.until_ended(2)
    assert pool.stuck() is None
    await pool.stop(5)


async def test_a_look_whose_requests_end_somehow_is_not_stuck() -> None:
    clock, fake, metrics = Clock(), Fake(), Metrics()
    queue = WorkQueue(clock=clock)
    away = fake.gates[A] = asyncio.Event()

    async def record() -> None:
        while not away.is_set():
            metrics.kube_request("status", "Unanswered", 30)
            await asyncio.sleep(0.001)

    # As a record is made: in a task of its own, begun by the look.
    fake.meanwhile = record
    pool = workers(queue, fake, clock)
    queue.add(A)
    await fake.until(1)
    for hour in range(1, 5):
        clock.now = 3600.0 * hour
        await asyncio.sleep(0.01)
        assert pool.stuck() is None
    away.set()
    await fake.until_ended(1)
    await pool.stop(5)


async def test_requests_of_others_are_no_sign_of_life() -> None:
    clock, fake, metrics = Clock(), Fake(), Metrics()
    queue = WorkQueue(clock=clock)
    fake.gates[A] = asyncio.Event()
    pool = workers(queue, fake, clock)
    queue.add(A)
    await fake.until(1)
    clock.now = 61
    metrics.kube_request("event", "ok", 0.1)
    metrics.cloud_request("list_nodes", "ok", 0.1)
    assert pool.stuck() is not None
    fake.gates[A].set()
    await pool.stop(5)


async def test_keys_that_wait_for_idle_workers_are_noticed() -> None:
    clock, queue = Clock(), WorkQueue(clock=lambda: clock.now)
    pool = Workers(queue, Fake(), Metrics(), stuck_after_seconds=60, clock=clock)
    queue.add(A)
    clock.now = 60
    assert pool.stuck() is None
    clock.now = 61
    assert pool.stuck() == "reconcile loop: 1 memberships wait, none was finished for 61 s"


class Unexpected(BaseException):
    """Not an Exception, as GeneratorExit is not."""


@pytest.mark.parametrize(
    ("error", "why"), [(Unexpected("odd"), "Unexpected('odd')"), (asyncio.CancelledError(), "it was cancelled")]
)
async def test_a_worker_that_died_is_noticed_at_once(error: BaseException, why: str) -> None:
    queue, fake = WorkQueue(), Fake()
    pool = workers(queue, fake, count=1)
    if isinstance(error, asyncio.CancelledError):
        await asyncio.sleep(0)
        pool._tasks[0].cancel()
    else:
        fake.errors[A] = error
        queue.add(A)
    async with asyncio.timeout(5):
        while (reason := pool.stuck()) is None:  # noqa: ASYNC110 - a probe is polled
            await asyncio.sleep(0.001)
    assert reason == f"reconcile loop: worker-0 died: {why}"
    await asyncio.gather(*pool._tasks, return_exceptions=True)


async def test_a_look_that_cancels_itself_costs_its_key_a_retry() -> None:
    queue, fake = WorkQueue(random=lambda: 0.99), Fake()
    fake.errors[A] = asyncio.CancelledError()
    pool = workers(queue, fake, count=1)
    queue.add(A)
    await fake.until(1)
    del fake.errors[A]
    await fake.until_ended(1)
    assert fake.looks == [A, A]
    assert pool.stuck() is None
    await pool.stop(5)
