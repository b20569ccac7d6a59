"""Whether every membership was read once since the start: before that nobody knows what the others claim (rule P16).

Not for: the claims (`claims`). A new leader starts anew: what it has not read, another process may have changed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
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
        self._listed = False
        self._unread: set[Key] = set()
        """Those that were listed, and are to be read by themselves."""
        self._read: set[Key] = set()
        self._held: set[Key] = set()
        self._progress = clock()

    @property
    def is_complete(self) -> bool:
        return self._listed and not self._unread

    async def take(self, note: Callable[[Membership | UnreadableStatus], None]) -> None:
        """List the memberships that are there, however long that takes.

        `note` is told of each that was not read yet: it calls `read`, or the object is to be read by itself.
        """
        self._progress = self._clock()
        wait = _RETRY
        while not self._listed:
            try:
                await self._list(note)
            except KubeError as error:
                _log.warning("the memberships cannot be listed, so nothing is added yet: %s", error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_RETRY)
        for key in self._unread:
            self._wake(key)
        self._go_on()

    async def _list(self, note: Callable[[Membership | UnreadableStatus], None]) -> None:
        async for found in self._memberships.all(self._namespaces):
            key = (found.metadata.namespace, found.metadata.name)
            # Whoever was read since the start may have been written since it was listed.
            if key not in self._read:
                self._unread.add(key)
                # The watch may have begun after it was gone.
                self._held.add(key)
                note(found)
                # Others have their turn: each may have ten thousand ids.
                await asyncio.sleep(0)
        self._listed = True

    def read(self, key: Key) -> None:
        """A membership was read, is gone, or can never be read."""
        if self.is_complete:
            return
        self._read.add(key)
        if key in self._unread:
            self._unread.remove(key)
            self._progress = self._clock()
        self._go_on()

    def wait_for_others(self, key: Key) -> float | None:
        """Seconds for which work on this key waits for the first reads of the others, at most; None when it need not.

        One that is to be read by itself need not.

        It is woken when all were read. When they get no further the work goes on, without adds: rule P16 is kept there.
        """
        if self._listed and (not self._unread or key in self._unread):
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
