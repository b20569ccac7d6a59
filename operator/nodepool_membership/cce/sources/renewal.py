"""Keys that renew themselves: once for all who share them, at about half of their life.

Not for: how keys are had (the ways). What is kept by a source - budgets, lockout, listings - is kept by its names,
not by its keys, so a renewal resets nothing. Times are seconds of a monotonic clock.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.credentials import AccessKey, Credentials
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.exchange import TimedGrant

_log = logging.getLogger(__name__)

_HALF: Final = 0.5
_JITTER: Final = 0.1
"""Of the life, taken from the half: many sources do not renew in one moment."""
_LAST: Final = 0.05
"""With this share of the life left, but at most so many seconds, keys are not given out while new ones can be had."""
_LAST_SECONDS: Final = 30.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
IDLE_SECONDS: Final = 3600.0
_NONE: Final = IdentityError("the keys ended while new ones were asked for", reason=Reason.CLOUD_UNREACHABLE)
_UNEXPECTED: Final = IdentityError(
    "no keys: an unexpected error, see the operator's log; it is asked again", reason=Reason.CLOUD_UNREACHABLE
)


@dataclass(frozen=True, slots=True)
class _Live:
    key: AccessKey
    renew_at: float
    last_at: float
    ends_at: float


class Renewing:
    """A source (`credentials.Source`) over one way to keys."""

    def __init__(
        self,
        user: str,
        name: str,
        fetch: Callable[[], Awaitable[TimedGrant]],
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """`user` stands for whom the cloud takes us for, and counts writes of; `name` for who asks, and for what."""
        self.identity = f"source:{_hash(user)}"
        self.fingerprint = _hash(name)
        self._fetch = fetch
        self._monotonic = monotonic
        self._random = random
        self._live: _Live | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: IdentityError | None = None
        self._pauses = 0
        self._not_before = float("-inf")
        self._used = monotonic()

    async def current(self) -> AccessKey:
        """Keys that are good now.

        Raises:
            IdentityError: there are none and none can be had; also while it is waited after a failure.
        """
        self._used = now = self._monotonic()
        live = self._live
        if live is None or now >= live.last_at:
            await self._renew()
        elif now >= live.renew_at and self._may_ask():
            self._start()
        live = self._live
        if live is None or self._monotonic() >= live.ends_at:
            raise _again(self._error or _NONE)
        live.key.register()
        return live.key

    async def renewed(self, refused: Credentials) -> bool:
        """Whether there are other keys than those that were refused: asks for them, unless somebody did already.

        Raises:
            IdentityError: others are refused, too, so that those at hand are given up.
        """
        if self._live is not None and self._live.key == refused:
            await self._renew()
        if self._live is not None and self._live.key != refused:
            return True
        if self._error is not None and self._error.is_refusal:
            self._live = None
            raise _again(self._error)
        return False

    @property
    def unused(self) -> float:
        """Seconds since somebody asked."""
        return self._monotonic() - self._used

    @property
    def is_idle(self) -> bool:
        """Whether nobody has asked for an hour."""
        return self.unused >= IDLE_SECONDS

    async def close(self) -> None:
        """End an exchange under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _may_ask(self) -> bool:
        return self._monotonic() >= self._not_before

    async def _renew(self) -> None:
        """Wait for the exchange under way, or for one of our own; its failure is kept, not raised."""
        if self._task is None and not self._may_ask():
            return
        # One who gives up must not end the exchange of the others.
        await asyncio.shield(self._start())

    def _start(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.create_task(self._exchange(), name=f"renewal of {self.identity}")
        return self._task

    async def _exchange(self) -> None:
        begun = self._monotonic()
        try:
            lease = await self._fetch()
        except IdentityError as error:
            self._failed(error)
        except Exception:  # noqa: BLE001 - whoever waits for keys must not take it for an answer of the cloud
            _log.exception("an exchange for keys failed unexpectedly", extra={"source": self.identity})
            self._failed(_UNEXPECTED)
        else:
            self._error, self._pauses, self._not_before = None, 0, float("-inf")
            life = lease.seconds
            self._live = _Live(
                lease.grant.key,
                renew_at=begun + life * (_HALF - _JITTER * self._random()),
                last_at=begun + life - min(life * _LAST, _LAST_SECONDS),
                ends_at=begun + life,
            )
            _log.debug("keys renewed", extra={"source": self.identity, "seconds": round(life)})
        finally:
            self._task = None

    def _failed(self, error: IdentityError) -> None:
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._pauses, 8), _LONGEST_PAUSE) * (1 + _JITTER * self._random())
        self._pauses += 1
        self._error = error
        self._not_before = self._monotonic() + max(pause, error.retry_after or 0.0)
        if self._live is not None:
            left = max(self._live.ends_at - self._monotonic(), 0.0)
            extra = {"source": self.identity, "left": round(left)}
            _log.warning("keys not renewed, those at hand are kept: %s", error, extra=extra)


def _again(error: IdentityError) -> IdentityError:
    """The same to raise once more: one that is raised again and again would keep every frame it passed."""
    return IdentityError(error.message, reason=error.reason, retry_after=error.retry_after)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
