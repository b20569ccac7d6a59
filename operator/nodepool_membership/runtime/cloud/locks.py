"""Pools that a call found locked: all who share its credentials spend no writes on them for a while.

Not for: the wait of the membership that was refused, which is stored (`core.decision.record`).
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.snapshots import SnapshotKey
from nodepool_membership.core.decision.record import Accepted, Answer, NotNow

_POLLS: Final = 1.5
"""Poll intervals; whoever was refused itself waits for two at least."""

_Pool: TypeAlias = tuple[SnapshotKey, str]


class Locks:
    """By pool and credentials, for so many poll intervals. `poll` and `monotonic` are seconds."""

    def __init__(self, poll: float, *, monotonic: Callable[[], float]) -> None:
        self._keep = poll * _POLLS
        self._monotonic = monotonic
        self._until: dict[_Pool, float] = {}

    def left(self, key: SnapshotKey, membership: Membership) -> float:
        """Seconds for which the pool of a membership is left alone; 0: it is not."""
        until = self._until.get((key, membership.spec.node_pool.node_pool_id))
        return 0.0 if until is None else max(until - self._monotonic(), 0.0)

    def answered(self, key: SnapshotKey, membership: Membership, answer: Answer) -> None:
        """A call to the pool was answered."""
        now, pool = self._monotonic(), (key, membership.spec.node_pool.node_pool_id)
        self._until = {of: until for of, until in self._until.items() if until > now}
        if isinstance(answer, NotNow) and answer.reason is Reason.LOCKED:
            self._until[pool] = now + self._keep
        elif isinstance(answer, Accepted):
            self._until.pop(pool, None)
