"""Snapshots that end when told, on a clock that moves when told.

Not for: what is shared with whom (`test_cce_snapshots`, `test_cce_snapshots_time`).
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.snapshots import Ended, Outcome, Snapshot, SnapshotKey, Snapshots, Taking, Who
from nodepool_membership.core.observed.observation import ClusterReport, NodeTable, PoolReport, Trouble

KEY = SnapshotKey("https://a", "p", "c", "k")
KEEP = 30.0
PACE = 7.5
POOL = "pool"
NO = Trouble(Reason.CLOUD_UNREACHABLE, "no")


class Table(NodeTable):
    """One that can be watched for being freed."""

    __slots__ = ("__weakref__",)


def of(begun: datetime, pools: frozenset[str], count: int) -> Snapshot:
    found = {pool: PoolReport("", count) for pool in pools}
    return Snapshot(begun, Table(begun), found, {}, ClusterReport("Available"), 0.0)


class Cloud:
    """Snapshots that end when told; a clock that only moves when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)
        self.seconds = 1000.0
        self.begun: list[asyncio.Future[int | Exception | Trouble]] = []
        self.pools: list[frozenset[str]] = []
        self.prepared = 0
        self.keys = asyncio.Event()
        """There are keys, as there are in the beginning."""
        self.keys.set()
        self.no_keys: Trouble | None = None
        self.running = self.most = 0
        self.woken: list[Who] = []
        self.ended: list[tuple[Ended, int]] = []
        self.used = 0
        self.make: Callable[[datetime, frozenset[str], int], Snapshot] = of
        self.snapshots = Snapshots(
            self.woken.append,
            keep_seconds=KEEP,
            pace_seconds=PACE,
            now=lambda: self.now,
            monotonic=lambda: self.seconds,
            watcher=self,
        )

    def snapshot_ended(self, outcome: Ended, waited: int) -> None:
        self.ended.append((outcome, waited))

    def snapshot_used(self) -> None:
        self.used += 1

    def tick(self, seconds: float = 1) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    async def prepare(self) -> Trouble | None:
        self.prepared += 1
        await self.keys.wait()
        return self.no_keys

    async def take(self, pools: frozenset[str]) -> Outcome:
        begun, gate = self.now, asyncio.get_running_loop().create_future()
        self.begun.append(gate)
        self.pools.append(pools)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            told = await gate
        finally:
            self.running -= 1
        if isinstance(told, Exception):
            raise told
        return told if isinstance(told, Trouble) else self.make(begun, pools, told)

    async def ask(
        self,
        who: str,
        *,
        after: datetime | None = None,
        key: SnapshotKey = KEY,
        pool: str = POOL,
        namespace: str = "ns",
    ) -> Outcome | None:
        """One who needs a snapshot begun from `after` on, else from now on."""
        found = self.snapshots.find(key, (namespace, who), pool, after or self.now, Taking(self.prepare, self.take))
        await self.settle()
        return found

    def recent(self, who: str = "passer-by") -> Outcome | None:
        return self.snapshots.find(KEY, ("ns", who), POOL, None, Taking(self.prepare, self.take))

    async def settle(self) -> None:
        """Let every task run as far as it gets without a further event."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def end(self, number: int, told: int | Exception | Trouble = 0) -> None:
        self.begun[number].set_result(told)
        await self.settle()

    async def taken(self, who: str = "first") -> Snapshot:
        """A snapshot that was just taken for somebody."""
        asked = self.now
        assert await self.ask(who) is None
        await self.end(len(self.begun) - 1)
        found = await self.ask(who, after=asked)
        assert isinstance(found, Snapshot)
        return found


def names(*who: str) -> list[Who]:
    return [("ns", name) for name in who]
