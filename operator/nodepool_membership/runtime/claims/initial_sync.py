"""Whether every membership was read once since the start: before that nobody knows what the others claim (rule P16).

Not for: the claims (`claims`). A new leader starts anew: what it has not read, another process may have changed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from nodepool_membership.kube.errors import KubeError
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.scheduling.queue import Key

_log = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds without another first read after which the wait is worth telling."""
_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 10.0


class InitialSync:
    """The memberships that there were at the start, and those read since. `wake` puts a key on the queue."""

    def __init__(
        self,
        memberships: Memberships,
        namespaces: Iterable[str],
        wake: Callable[[Key], None],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._memberships = memberships
        self._namespaces = tuple(namespaces)
        self._wake = wake
        self._clock = clock
        self._unread: dict[Key, str] | None = None
        """With the resourceVersion in the list."""
        self._read: set[Key] = set()
        self._held: set[Key] = set()
        self._progress = clock()

    @property
    def is_complete(self) -> bool:
        return self._unread is not None and not self._unread

    async def take(self) -> None:
        """List the memberships that are there, however long that takes, and have each read."""
        self._progress = self._clock()
        self._unread = {key: version for key, version in (await self._list()).items() if key not in self._read}
        for key in self._unread:
            self._wake(key)
        self._go_on()

    async def _list(self) -> dict[Key, str]:
        wait = _RETRY
        while True:
            try:
                return await self._memberships.keys(self._namespaces)
            except KubeError as error:
                _log.warning("the memberships cannot be listed, so nothing is added yet: %s", error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_RETRY)

    def read(self, key: Key) -> None:
        """A membership was read, is gone, or can never be read."""
        if self.is_complete:
            return
        if self._unread is None:
            self._read.add(key)
        elif key in self._unread:
            del self._unread[key]
            self._progress = self._clock()
        self._go_on()

    def take_version(self, key: Key) -> str:
        """As it was listed, or later, an unread membership is to be read; "" (as it is now) also when that has failed.

        Sixty of the largest keep the API server busy for seconds when it reads each of them from etcd.
        """
        version = (self._unread or {}).get(key, "")
        if self._unread and version:
            self._unread[key] = ""
        return version

    def wait_for_others(self, key: Key) -> float | None:
        """Seconds for which work on this key waits for the first reads of the others, at most; None when it need not.

        It is woken when all were read. When they get no further the work goes on, without adds: rule P16 is kept there.
        """
        if self.is_complete:
            return None
        self._held.add(key)
        left = self._progress + PATIENCE - self._clock()
        return left if left > 0 else None

    def _go_on(self) -> None:
        if self.is_complete:
            for key in self._held:
                self._wake(key)
            self._held.clear()
            self._read.clear()
