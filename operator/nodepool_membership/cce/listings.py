"""Node listings shared by every membership of a cluster and credential: one under way per key (rules P13, P14).

Not for: fetching them (`client`). A listing proves absence only as of its start, so who wants one begun after a moment
never gets one that was under way at that moment: they wait for the next, together.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from nodepool_membership.core.observed.observation import NodeTable

AT_ONCE: Final = 2
"""Listings of an endpoint under way: each holds a page and a growing table, about 3 MiB for 10,000 nodes. Those of an
endpoint that does not answer keep those of no other one waiting."""


class ListingKey(NamedTuple):
    """Rule P14: a credential may see less than another. `credential` is its fingerprint."""

    endpoint: str
    project_id: str
    cluster_id: str
    credential: str


Fetch = Callable[[], Awaitable[NodeTable]]


@dataclass(slots=True)
class _Shared:
    """The listings of one key: what runs and since when, what starts next, what ended last and when."""

    running: asyncio.Task[NodeTable] | None = None
    began: datetime | None = None
    following: asyncio.Task[NodeTable] | None = None
    last: NodeTable | None = None
    ended: datetime | None = None


class Listings:
    """Listings by key; one is kept for `keep_seconds` after its end."""

    def __init__(self, *, keep_seconds: float, now: Callable[[], datetime]) -> None:
        self._keep = timedelta(seconds=keep_seconds)
        self._now = now
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        """By endpoint; there are no more of them than the allow list has."""
        self._shared: dict[ListingKey, _Shared] = {}

    def recent(self, key: ListingKey) -> NodeTable | None:
        """The listing that is kept, if any: good for what it shows, not for what it lacks."""
        self.prune()
        shared = self._shared.get(key)
        table = None if shared is None else shared.last
        # One from the future was made before the clock was set back: nobody knows how old it is (rule P21).
        return None if table is None or table.begun > self._now() else table

    async def any(self, key: ListingKey, fetch: Fetch) -> NodeTable:
        """The listing that is kept, else the one under way, else a new one.

        Raises:
            whatever `fetch` raises, for everyone who waited for that listing.
        """
        table = self.recent(key)
        if table is not None:
            return table
        shared = self._shared.setdefault(key, _Shared())
        return await asyncio.shield(shared.running or self._following(key.endpoint, shared, fetch))

    async def fresh(self, key: ListingKey, fetch: Fetch, after: datetime) -> NodeTable:
        """A listing begun at or after `after`, shared with all who wait for the same one.

        Raises:
            whatever `fetch` raises, for everyone who waited for that listing.
        """
        table = self.recent(key)
        if table is not None and table.begun >= after:
            return table
        shared = self._shared.setdefault(key, _Shared())
        in_time = shared.began is not None and after <= shared.began <= self._now()
        # One who gives up must not end the listing of the others.
        return await asyncio.shield((in_time and shared.running) or self._following(key.endpoint, shared, fetch))

    def _following(self, endpoint: str, shared: _Shared, fetch: Fetch) -> asyncio.Task[NodeTable]:
        if shared.following is None:
            shared.following = asyncio.create_task(self._run(self._slots[endpoint], shared, fetch))
            # A failure that nobody waits for any more is no news.
            shared.following.add_done_callback(lambda task: task.cancelled() or task.exception())
        return shared.following

    async def _run(self, slots: asyncio.Semaphore, shared: _Shared, fetch: Fetch) -> NodeTable:
        if shared.running is not None:
            await asyncio.wait((shared.running,))
        async with slots:
            # From here on it has begun: whoever needs a later one waits for the next.
            shared.running, shared.following, shared.began = shared.following, None, self._now()
            try:
                table = await fetch()
            finally:
                shared.running = shared.began = None
        shared.last, shared.ended = table, self._now()
        asyncio.get_running_loop().call_later(self._keep.total_seconds() + 1, self.prune)
        return table

    def prune(self) -> None:
        """Drop listings that are too old to be shared, so that their memory is free between resyncs."""
        limit = self._now() - self._keep
        for key, shared in list(self._shared.items()):
            if shared.ended is not None and shared.ended < limit:
                shared.last = shared.ended = None
            if shared.last is None and shared.running is None and shared.following is None:
                del self._shared[key]
