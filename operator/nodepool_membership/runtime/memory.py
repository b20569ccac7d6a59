"""What the process remembers of memberships: their claims, who was read, what the last reconcile left behind.

Not for: what outlives the process, which stands in the status. A new leader begins with none of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.core.program.effects import Key, Memory
from nodepool_membership.core.rivals import Rivals
from nodepool_membership.runtime.census import Census
from nodepool_membership.runtime.claims import Claims
from nodepool_membership.runtime.clouds import Clouds
from nodepool_membership.runtime.metrics import Metrics


@dataclass(slots=True)
class _Tracked:
    uid: str
    recalled: bool = False
    """Its earlier calls are in the write budget (rule P23)."""
    memory: Memory = field(default_factory=Memory)


class Memories:
    """By key, with the parts of the process that are told of every object that is read."""

    def __init__(
        self, claims: Claims, census: Census, clouds: Clouds, metrics: Metrics, *, now: Callable[[], datetime]
    ) -> None:
        self._claims = claims
        self._census = census
        self._clouds = clouds
        self._metrics = metrics
        self._now = now
        self._tracked: dict[Key, _Tracked] = {}

    async def note(self, found: Membership | UnreadableStatus) -> Memory:
        """Take over what an object says to all memberships; called for every read, it costs next to nothing."""
        key = (found.metadata.namespace, found.metadata.name)
        self._claims.note(found)
        if key in self._tracked and self._tracked[key].uid != found.metadata.uid:
            self._drop(key)
        tracked = self._tracked.setdefault(key, _Tracked(found.metadata.uid))
        if isinstance(found, Membership):
            if not tracked.recalled:
                await self._clouds.recall(found, self._now())
                tracked.recalled = True
            self._metrics.show(*key, found.status)
        self._census.read(key)
        return tracked.memory

    def remember(self, key: Key, memory: Memory) -> None:
        """Keep this until the object is read again, unless it is gone or another by now."""
        if key in self._tracked:
            self._tracked[key].memory = memory

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._drop(key)
        self._claims.drop(key)
        self._census.read(key)
        self._metrics.forget(*key)

    def _drop(self, key: Key) -> None:
        tracked = self._tracked.pop(key, None)
        if tracked is not None:
            self._clouds.forget(tracked.uid)

    def rivals(self, membership: Membership) -> Rivals | None:
        """Servers that others claim, too; None while not all were read once (rule P16)."""
        return self._claims.rivals(membership) if self._census.is_complete else None
