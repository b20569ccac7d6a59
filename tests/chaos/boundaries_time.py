"""Virtual time: an event loop that never waits; when nothing is ready its clock jumps to what is due next.

Not for: anything with sockets, whose answers come in real time.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)


@dataclass(slots=True)
class VirtualClock:
    """Seconds since the start of a run; outlives the loops that it is given to."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def timestamp(self) -> float:
        """Seconds since 1970."""
        return EPOCH.timestamp() + self.seconds


class _Jump(selectors.SelectSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is ready and nothing is due: the process would wait for ever")
        self._clock.seconds += max(timeout, 0.0)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Jump(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.seconds


def run(clock: VirtualClock, main: Coroutine[None, None, None]) -> None:
    """Run `main` to its end in virtual time.

    Raises:
        whatever `main` raises; and at once what asyncio lets nothing catch (SystemExit and its subclasses), wherever
        it was raised. Then every task ends where it stands: whoever raises it denies them all further effects.
    """
    loop = _Loop(clock)
    # What a killed process leaves behind is told by nobody.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        loop.run_until_complete(main)
    finally:
        ended = clock.seconds
        _unwind(loop)
        clock.seconds = ended
        loop.close()


def _unwind(loop: asyncio.AbstractEventLoop) -> None:
    """Leave nothing for the garbage collector, which would end coroutines inside the loop of the next process."""
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        with suppress(SystemExit):
            loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
