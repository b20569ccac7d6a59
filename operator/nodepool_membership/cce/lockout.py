"""A key whose signature is refused again and again is left alone, before the gateway locks it for all its users (P23).

Not for: what a refused key means for a membership (`runtime.troubles`). The gateway locks a key for 5 minutes after
more than 5 wrong signatures in a row (docs/cloud-facts.md, Authentication).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from nodepool_membership.cce.errors import CloudError, EndedKeyError, NotSentError, UnauthenticatedError

WRONG_IN_A_ROW: Final = 3
PAUSE_SECONDS: Final = 300.0
_FORGET_SECONDS: Final = 3600.0

_WRONG: Final = (401, "APIGW.0301")
_EXPIRED: Final = "signature expired"
"""The key may be good: one of the clocks is wrong."""
_LET_IN: Final = frozenset({400, 403, 404})
"""Refusals that come after the signature was found good."""
_TEXT: Final = (
    f"; not called again: refused {WRONG_IN_A_ROW} times in a row, the cloud would lock the key; it is used when its"
    f" Secret changes, or {PAUSE_SECONDS / 60:.0f} minutes after the last refusal"
)


class Lockout:
    """One endpoint and one Secret's content."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong = 0
        self._last = CloudError("")
        self._until = float("-inf")
        self._used = clock()
        self._proven = False
        self._inside = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def call(self, *, changes: bool) -> AsyncIterator[None]:
        """Make a call in the block; what `CloudError` leaves it is counted.

        Reads wait until no more of them are under way than may yet be wrong. A call that `changes` something does not:
        its signature ages, and reads went before it.

        Raises:
            UnauthenticatedError: the key is not used for the time being.
            NotSentError: the same, for a call that changes something.
        """
        self._used = self._clock()
        if not changes:
            async with self._changed:
                await self._changed.wait_for(self._may_read)
                self._inside += 1
        try:
            self._check(changes=changes)
            async with self._counted():
                yield
        finally:
            if not changes:
                self._inside -= 1
                async with self._changed:
                    self._changed.notify_all()

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        try:
            yield
        except CloudError as error:
            self._note(error)
            raise
        else:
            self._passed()

    def _check(self, *, changes: bool) -> None:
        if self.is_closed:
            kind = NotSentError if changes else UnauthenticatedError
            raise kind(f"{self._last.message}{_TEXT}", status=self._last.status, code=self._last.code)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is called."""
        return self._clock() < self._until

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten: unused for longer than it can be closed."""
        return not self._inside and self._clock() >= self._used + _FORGET_SECONDS

    def _may_read(self) -> bool:
        return self._proven or self.is_closed or self._inside < max(WRONG_IN_A_ROW - self._wrong, 1)

    def _note(self, error: CloudError) -> None:
        if isinstance(error, EndedKeyError):
            return
        if (error.status, error.code) == _WRONG and _EXPIRED not in error.message:
            self._proven = False
            self._last = error
            self._wrong += 1
            if self._wrong >= WRONG_IN_A_ROW:
                self._until = self._clock() + PAUSE_SECONDS
        elif error.status in _LET_IN:
            self._passed()

    def _passed(self) -> None:
        self._proven = True
        self._wrong = 0


class Lockouts:
    """One per endpoint and fingerprint of a source: a Secret that changes is tried at once."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lockouts: dict[tuple[str, str], Lockout] = {}

    def get(self, endpoint: str, fingerprint: str) -> Lockout:
        """The one of a key, made when it is first asked for; idle ones are dropped then."""
        key = (endpoint, fingerprint)
        if key not in self._lockouts:
            self._lockouts = {k: lockout for k, lockout in self._lockouts.items() if not lockout.is_idle}
            self._lockouts[key] = Lockout(clock=self._clock)
        return self._lockouts[key]
