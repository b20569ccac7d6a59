"""A blocked event loop: the log says where, once, and that it is over."""

import asyncio
import logging
import threading
import time

import pytest

from nodepool_membership.runtime.process.watchdog import watch_loop


def stuck_here(free: threading.Event) -> None:
    free.wait(10)


async def test_where_the_loop_is_blocked_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    free = threading.Event()

    def end() -> None:
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        # A second complaint would come in this time.
        time.sleep(0.3)
        free.set()

    # Not where the loop is watched: a machine that is busy takes long to start a thread.
    threading.Thread(target=end).start()
    async with watch_loop(0.1):
        await asyncio.sleep(0.3)
        assert caplog.records == []
        stuck_here(free)
        async with asyncio.timeout(5):
            while len(caplog.records) < 2:  # noqa: ASYNC110 - written by another thread
                await asyncio.sleep(0.01)
    blocked, over = caplog.records
    assert blocked.levelno == logging.ERROR
    assert blocked.getMessage().startswith("the event loop is blocked for 0 s: wait (threading.py:")
    assert " < stuck_here (test_runtime_watchdog.py:" in blocked.getMessage()
    assert over.getMessage() == "the event loop runs again"


async def test_its_thread_ends_with_the_block() -> None:
    before = set(threading.enumerate())
    async with watch_loop(0.1):
        dogs = [thread for thread in threading.enumerate() if thread not in before]
        assert [thread.name for thread in dogs] == ["watchdog"]
    await asyncio.to_thread(dogs[0].join, 5)
    assert not dogs[0].is_alive()
