"""A key whose signature is refused again and again is left alone, before the gateway locks it for all its users (P23).

Not for: what a refused key means for a membership (`runtime.cloud.error_mapping`). The gateway locks a key for 5
minutes after more than 5 wrong signatures in a row (docs/cloud-facts.md, Authentication).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from nodepool_membership.cce.errors import CloudError, EndedKeyError, NotSentError, UnauthenticatedError

WRONG_IN_A_ROW: Final = 3
WRONG_BY_KEY: Final = 5
"""Of all contents with one access key together: the gateway bears so many."""
PAUSE_SECONDS: Final = 300.0
_FORGET_SECONDS: Final = 3600.0

_WRONG: Final = (401, "APIGW.0301")
_EXPIRED: Final = "signature expired"
"""The key may be good: one of the clocks is wrong."""
_LET_IN: Final = frozenset({400, 403, 404})
"""Refusals that come after the signature was found good."""
_TEXT: Final = (
    f"; not called again: refused {WRONG_IN_A_ROW} times in a row, the cloud would lock the key; tried again"
    f" {PAUSE_SECONDS / 60:.0f} minutes after the last refusal, or at once with other credentials"
)
_BY_OTHERS: Final = (
    f"not called: this access key was refused {WRONG_BY_KEY} times in a row with other secret keys, and the cloud would"
    f" lock it; it is tried again {PAUSE_SECONDS / 60:.0f} minutes after the last refusal"
)


class AccessKeyCount:
    """Wrong signatures with one access key at one endpoint, whoever made them.

    Anybody can put an access key, which is no secret, into a Secret of their own beside a wrong secret key: the cloud
    would lock it for its owner, too.
    """

    def __init__(self) -> None:
        self.wrong = 0
        self.until = float("-inf")
        self.inside = 0
        """Reads under way of contents that were never right."""
        self.changed = asyncio.Condition()


class Lockout:
    """One endpoint and one source."""

    def __init__(self, *, clock: Callable[[], float], key: AccessKeyCount | None = None) -> None:
        self._clock = clock
        self._key = key or AccessKeyCount()
        self._wrong = 0
        self._last = CloudError("")
        self._until = float("-inf")
        self._used = clock()
        self._proven = False
        self._inside = 0

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
            async with self._key.changed:
                await self._key.changed.wait_for(self._may_read)
                self._inside += 1
                self._key.inside += 1
        try:
            self._check(changes=changes)
            async with self._counted():
                yield
        finally:
            if not changes:
                self._inside -= 1
                self._key.inside -= 1
                async with self._key.changed:
                    self._key.changed.notify_all()

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
            own = self._clock() < self._until
            text = f"{self._last.message}{_TEXT}" if own else _BY_OTHERS
            raise kind(text, status=self._last.status, code=self._last.code)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is called. Others who are wrong with its access key stop no content that was right."""
        now = self._clock()
        return now < self._until or (not self._proven and now < self._key.until)

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten: unused for longer than it can be closed."""
        return not self._inside and self._clock() >= self._used + _FORGET_SECONDS

    def _may_read(self) -> bool:
        if self._proven or self.is_closed:
            return True
        others = self._key.inside < max(WRONG_BY_KEY - self._key.wrong, 1)
        return others and self._inside < max(WRONG_IN_A_ROW - self._wrong, 1)

    def _note(self, error: CloudError) -> None:
        if isinstance(error, EndedKeyError):
            return
        if (error.status, error.code) == _WRONG and _EXPIRED not in error.message:
            self._proven = False
            self._last = error
            self._wrong += 1
            self._key.wrong += 1
            if self._wrong >= WRONG_IN_A_ROW:
                self._until = self._clock() + PAUSE_SECONDS
            if self._key.wrong >= WRONG_BY_KEY:
                self._key.until = self._clock() + PAUSE_SECONDS
        elif error.status in _LET_IN:
            self._passed()

    def _passed(self) -> None:
        self._proven = True
        self._wrong = self._key.wrong = 0
        self._key.until = float("-inf")


class Lockouts:
    """One per endpoint and fingerprint of a source: a Secret that changes is tried at once.

    Those of one access key count its wrong signatures together.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lockouts: dict[tuple[str, str], Lockout] = {}
        self._keys: WeakValueDictionary[tuple[str, str], AccessKeyCount] = WeakValueDictionary()

    def get(self, endpoint: str, fingerprint: str, identity: str) -> Lockout:
        """The one of a content, made when it is first asked for; idle ones are dropped then.

        `identity` is its access key, or stands for its token.
        """
        key = (endpoint, fingerprint)
        if key not in self._lockouts:
            self._lockouts = {k: lockout for k, lockout in self._lockouts.items() if not lockout.is_idle}
            count = self._keys.setdefault((endpoint, identity), AccessKeyCount())
            self._lockouts[key] = Lockout(clock=self._clock, key=count)
        return self._lockouts[key]
