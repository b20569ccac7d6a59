"""Signs of life of a piece of work: it began, or a request that it made came to an end, whatever the outcome.

Not for: what is made of them (`workers`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final


class Progress:
    """When the last sign came, on `clock` (seconds)."""

    __slots__ = ("_clock", "_last")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = clock()

    def made(self) -> None:
        self._last = self._clock()

    def age(self) -> float:
        """Seconds since the last sign."""
        return self._clock() - self._last

    @contextmanager
    def current(self) -> Iterator[None]:
        """Requests made in this block, and in tasks that are started in it, are signs of this work."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: Final[ContextVar[Progress | None]] = ContextVar("progress", default=None)


def request_ended() -> None:
    """To be called after every request of the process, in the task that made it."""
    progress = _current.get()
    if progress is not None:
        progress.made()
