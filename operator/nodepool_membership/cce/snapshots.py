"""Snapshots of clusters, shared by every membership of a cluster and source of credentials (rules P13, P14).

Not for: taking one (`survey`), or what it means. A snapshot proves absence only as of its start, so who wants one begun
after a moment never gets one that was under way then: all who wait share the next. Waiting is a place in a
table: `wake` is called with a key whose snapshot is there, or cannot be had.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.errors import CloudError
from nodepool_membership.core.observed.observation import ClusterReport, NodeTable, PoolReport, Trouble
from nodepool_membership.shares import Shares

AT_ONCE: Final = 3
"""Snapshots of an endpoint under way, of a namespace one less: each holds a page and a growing table, about 3 MiB for
10,000 nodes. Those of an endpoint that does not answer keep those of no other one waiting."""
BURST: Final = 4
"""So many snapshots of a cluster may begin one after another after a rest; then two a poll interval."""
SNAPSHOTS_A_POLL: Final = 2
"""So many snapshots of a cluster begin in a poll interval, on average."""
LONGEST_THROTTLE: Final = 600.0
"""Seconds for which the cloud's word may keep a cluster from being read at all."""
_ENTITLED: Final = 10
"""Who waited may come for it for so many times as long as others share it: all of them may wait for a worker."""

Who = tuple[str, str]
"""The key of a membership."""


class SnapshotKey(NamedTuple):
    """Rule P14: a credential may see less than another. `credential` is the fingerprint of its source."""

    endpoint: str
    project_id: str
    cluster_id: str
    credential: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cluster: its pools counted, its nodes listed, its pools counted again, and its phase."""

    begun: datetime
    """Before its first request."""
    nodes: NodeTable
    pools: Mapping[str, PoolReport]
    unread: Mapping[str, CloudError]
    """Pools that were asked for and cannot be read; that is none of the others' trouble."""
    cluster: ClusterReport
    clock_offset_seconds: float | None

    def has(self, pool_id: str) -> bool:
        """Whether the pool was asked for."""
        return pool_id in self.pools or pool_id in self.unread

    @property
    def doubtful(self) -> frozenset[str]:
        """Pools of which it does not prove absence: pages repeated or shifted, or both counts say otherwise."""
        return frozenset(i for i, pool in self.pools.items() if not self.nodes.is_complete_for(i, pool.counts))


T = TypeVar("T")
Outcome = Snapshot | Trouble


class Taking(NamedTuple):
    """How a snapshot is had."""

    prepare: Callable[[], Awaitable[Trouble | None]]
    """Gets keys, or says why there are none: before its turn, since that may take long."""
    take: Callable[[frozenset[str]], Awaitable[Outcome]]
    """Takes one with these pools."""


Ended = Literal["whole", "doubtful", "again", "failed", "clockSetBack"]
"""Doubtful: a pool of it is told to be in doubt. Again: another one is taken before that is told."""


class Watcher(Protocol):
    """Is told what becomes of snapshots."""

    def snapshot_ended(self, outcome: Ended, waited: int, /) -> None:
        """One came to an end, for which so many memberships waited."""
        ...

    def snapshot_used(self) -> None:
        """One answered a look."""
        ...


class Unwatched:
    """Nobody is told."""

    def snapshot_ended(self, _outcome: Ended, _waited: int, /) -> None:
        return None

    def snapshot_used(self) -> None:
        return None


class Pace:
    """How often snapshots of one cluster begin: one in `seconds` on average, `BURST` at once after a rest."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._full = float("-inf")
        """When there were `BURST` again, if none began."""

    def wait(self, now: float) -> float:
        """Seconds until one may begin."""
        return max(self._full - now - (BURST - 1) * self._seconds, 0.0)

    def begin(self, now: float) -> None:
        """One begins."""
        self._full = max(self._full, now) + self._seconds

    def is_rested(self, now: float) -> bool:
        """Whether nothing is to be remembered."""
        return now >= self._full


@dataclass(slots=True)
class _Running:
    """One that is under way, and who waits for it."""

    begun: datetime
    began: float
    pools: frozenset[str]
    waited: dict[Who, str]

    def serves(self, pool_id: str, after: datetime | None, now: datetime) -> bool:
        """Whether who asks may wait for this one: from here on it is too late only for who needs a later begin."""
        return pool_id in self.pools and (after is None or after <= self.begun <= now)


@dataclass(slots=True)
class _Shared:
    """The snapshots of one key. Times are monotonic seconds."""

    pace: Pace
    taking: Taking
    pools: dict[str, float] = field(default_factory=dict)
    """Those asked for lately, and when last."""
    waiting: dict[Who, str] = field(default_factory=dict)
    """Who waits for the next one, and for which pool."""
    running: _Running | None = None
    entitled: dict[Who, float] = field(default_factory=dict)
    """Who waited for the last one, and until when it is theirs, however old it is."""
    last: Snapshot | None = None
    began: float = 0.0
    ended: float = 0.0
    tried: float = 0.0
    """When the last one ended, whether it came to something or not."""
    failures: dict[Who, Trouble | Exception] = field(default_factory=dict)
    """Who waited for one that came to nothing, and does not know yet."""
    throttled: Trouble | None = None
    """The cloud asked for a pause: it is told to all who ask for a snapshot, and none is taken."""
    throttled_until: float = 0.0
    doubted: frozenset[str] = frozenset()
    """Pools of which the last one proved no absence."""
    again: frozenset[str] = frozenset()
    """Those of them for which another one is taken before that is told."""
    task: "asyncio.Task[None] | None" = None

    def namespaces(self) -> frozenset[str]:
        """Of those who wait for the next one."""
        return frozenset(namespace for namespace, _ in self.waiting)


class Snapshots:
    """Snapshots by key. One shows who is there for `keep_seconds` after its end; absence for `pace_seconds`."""

    def __init__(
        self,
        wake: Callable[[Who], None],
        *,
        keep_seconds: float,
        pace_seconds: float,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        watcher: Watcher | None = None,
    ) -> None:
        self._wake = wake
        self._watcher = watcher or Unwatched()
        self._keep = keep_seconds
        self._pace = pace_seconds
        self._now = now
        self._monotonic = monotonic
        self._turns: defaultdict[str, Shares] = defaultdict(lambda: Shares(AT_ONCE))
        """By endpoint; there are no more of them than the allow list has."""
        self._shared: dict[SnapshotKey, _Shared] = {}
        self._pruning: asyncio.TimerHandle | None = None

    def peek(self, key: SnapshotKey, who: Who, pool_id: str, after: datetime | None) -> Outcome | Exception | None:
        """What `find` would answer, without ordering anything."""
        shared = self._shared.get(key)
        if shared is None:
            return None
        found = self._at_hand(shared, who, pool_id, after)
        return self._throttled(shared) if found is None else found

    def _at_hand(self, shared: _Shared, who: Who, pool_id: str, after: datetime | None) -> Outcome | Exception | None:
        if (failure := shared.failures.get(who)) is not None:
            return failure
        entitled = self._monotonic() <= shared.entitled.get(who, float("-inf"))
        last = shared.last
        if last is None or not last.has(pool_id) or self._is_from_the_future(shared, last):
            return None
        if after is None:
            return last if entitled or self._monotonic() - shared.ended <= self._keep else None
        if last.begun < after or pool_id in shared.again:
            return None
        return last if entitled or self._monotonic() - shared.began <= self._pace else None

    def _throttled(self, shared: _Shared) -> Trouble | None:
        """Why none is taken for a while, with what is left of it."""
        left = shared.throttled_until - self._monotonic()
        return None if shared.throttled is None or left <= 0 else replace(shared.throttled, retry_after=left)

    def find(self, key: SnapshotKey, who: Who, pool_id: str, after: datetime | None, taking: Taking) -> Outcome | None:
        """A snapshot begun at or after a moment, or (None) a recent one; None: `wake` is called when to ask again.

        Raises:
            whatever the last `taking` raised, for everyone who waited for it.
        """
        found = self.peek(key, who, pool_id, after)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared(Pace(self._pace), taking)
        shared.pools[pool_id] = self._monotonic()
        if isinstance(found, Snapshot):
            self._watcher.snapshot_used()
            if who in shared.entitled:
                # For the rest of its look, which may ask once more.
                shared.entitled[who] = min(shared.entitled[who], self._monotonic() + self._pace)
            return found
        shared.entitled.pop(who, None)
        shared.failures.pop(who, None)
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        if found is None:
            shared.taking = taking
            self._wait(key, shared, who, pool_id, after)
        return found

    def _wait(self, key: SnapshotKey, shared: _Shared, who: Who, pool_id: str, after: datetime | None) -> None:
        running = shared.running
        if running is not None and running.serves(pool_id, after, self._now()):
            running.waited[who] = pool_id
            return
        shared.waiting[who] = pool_id
        if shared.task is None:
            shared.task = asyncio.create_task(self._run(self._turns[key.endpoint], shared), name="snapshots")
        else:
            # It may be the turn of one that has none under way.
            self._turns[key.endpoint].serve()

    async def close(self) -> None:
        """Take no further one."""
        if self._pruning is not None:
            self._pruning.cancel()
        tasks = [shared.task for shared in self._shared.values() if shared.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_from_the_future(self, shared: _Shared, last: Snapshot) -> bool:
        """Whether the clock was set back since: nobody knows how old it is (rule P21)."""
        if last.begun <= self._now():
            return False
        shared.last = None
        self._watcher.snapshot_ended("clockSetBack", 0)
        return True

    async def _run(self, turns: Shares, shared: _Shared) -> None:
        """One snapshot after another, until nobody waits."""
        while shared.waiting:
            if (told := self._throttled(shared)) is not None:
                self._tell(shared, told)
                continue
            if (seconds := shared.pace.wait(self._monotonic())) > 0:
                await asyncio.sleep(seconds)
            if (failed := await _outcome(shared.taking.prepare())) is not None:
                self._ended(shared, self._begin(shared), failed)
                continue
            async with turns.hold(shared.namespaces):
                running = shared.running = self._begin(shared)
                outcome = await _outcome(shared.taking.take(running.pools))
                shared.running = None
            self._ended(shared, running, outcome)
        shared.task = None
        self._prune_later()

    def _begin(self, shared: _Shared) -> _Running:
        """From here on it has begun: who read their object later wait for the next."""
        running = _Running(self._now(), self._monotonic(), frozenset(shared.pools), shared.waiting)
        shared.waiting = {}
        shared.pace.begin(running.began)
        return running

    def _ended(self, shared: _Shared, running: _Running, outcome: Outcome | Exception) -> None:
        now = shared.tried = self._monotonic()
        if isinstance(outcome, Snapshot):
            shared.last, shared.began, shared.ended = outcome, running.began, now
            doubtful = outcome.doubtful
            # A pool that was in doubt before is told to be; one that comes into doubt is looked at once more.
            shared.again, shared.doubted = doubtful - shared.doubted, doubtful
        else:
            shared.failures |= dict.fromkeys(running.waited, outcome)
            if isinstance(outcome, Trouble) and (outcome.reason is Reason.THROTTLED or outcome.retry_after):
                shared.throttled = outcome
                seconds = max(outcome.retry_after or 0.0, SNAPSHOTS_A_POLL * self._pace)
                shared.throttled_until = now + min(seconds, LONGEST_THROTTLE)
        self._watcher.snapshot_ended(_ended(shared, outcome), len(running.waited))
        for who, pool_id in running.waited.items():
            if isinstance(outcome, Snapshot) and pool_id in shared.again:
                shared.waiting.setdefault(who, pool_id)
                continue
            if isinstance(outcome, Snapshot):
                shared.entitled[who] = now + self._keep * _ENTITLED
            self._wake(who)

    def _tell(self, shared: _Shared, why: Trouble) -> None:
        """Whoever waits learns that there will be none for a while."""
        waiting, shared.waiting = shared.waiting, {}
        shared.failures |= dict.fromkeys(waiting, why)
        for who in waiting:
            self._wake(who)

    def _prune_later(self) -> None:
        if self._pruning is None:
            self._pruning = asyncio.get_running_loop().call_later(self._keep + 1, self._pruned)

    def _pruned(self) -> None:
        self._pruning = None
        self.prune()
        if any(shared.task is None for shared in self._shared.values()):
            self._prune_later()

    def prune(self) -> None:
        """Drop what is too old to be shared, so that its memory is free between resyncs."""
        now = self._monotonic()
        for key, shared in list(self._shared.items()):
            shared.entitled = {who: until for who, until in shared.entitled.items() if until >= now}
            if shared.ended + self._keep < now and not shared.entitled:
                shared.last = None
            if shared.tried + self._keep * _ENTITLED < now:
                shared.failures.clear()
            shared.pools = {i: at for i, at in shared.pools.items() if at + self._keep * _ENTITLED >= now}
            kept = shared.last is not None or shared.entitled or shared.failures or self._throttled(shared)
            if shared.task is None and not kept and shared.pace.is_rested(now):
                del self._shared[key]


async def _outcome(asked: Awaitable[T]) -> T | Exception:
    try:
        return await asked
    except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for it
        return error


def _ended(shared: _Shared, outcome: Outcome | Exception) -> Ended:
    if not isinstance(outcome, Snapshot):
        return "failed"
    if shared.again:
        return "again"
    return "doubtful" if shared.doubted else "whole"
