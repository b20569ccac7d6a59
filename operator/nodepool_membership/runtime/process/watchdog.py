"""A thread that says in the log where the event loop is stuck, before the kubelet ends the process.

Not for: ending it. A loop that does not run answers no probe, so liveness fails by itself; only the reason would be
missing. Nothing is said of a loop that is kept by code which does not release the interpreter.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_logger = logging.getLogger(__name__)

BLOCKED_SECONDS: Final = 10.0
"""Less than what `deploy/` gives the probe: three times 10 s."""
_FRAMES: Final = 8


@asynccontextmanager
async def watch_loop(blocked_seconds: float = BLOCKED_SECONDS) -> AsyncIterator[None]:
    """While the block runs, log an error once whenever the running loop did not run for `blocked_seconds`."""
    dog = _Watchdog(asyncio.get_running_loop(), threading.get_ident(), blocked_seconds)
    thread = threading.Thread(target=dog.run, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        dog.ended.set()


class _Watchdog:
    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int, blocked_seconds: float) -> None:
        self._loop = loop
        self._thread = thread
        self._blocked = blocked_seconds
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            ran = threading.Event()
            try:
                self._loop.call_soon_threadsafe(ran.set)
            except RuntimeError:
                # The loop is closed: nothing is left to watch.
                return
            if not ran.wait(self._blocked) and not self.ended.is_set():
                _logger.error("the event loop is blocked for %.0f s: %s", self._blocked, self._where())
                while not ran.wait(self._blocked):
                    if self.ended.is_set():
                        return
                _logger.warning("the event loop runs again")
            self.ended.wait(self._blocked / 2)

    def _where(self) -> str:
        """The innermost calls of the loop's thread, the last one first."""
        frames = sys._current_frames()  # noqa: SLF001 - documented in spite of its name, and the only way
        calls = traceback.extract_stack(frames.get(self._thread))[-_FRAMES:]
        return " < ".join(f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))
