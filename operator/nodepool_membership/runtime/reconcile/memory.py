"""What the process remembers of memberships: their claims, who was read, what the last reconcile left behind.

Not for: what outlives the process, which stands in the status. A new leader begins with none of it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.program.effects import Key
from nodepool_membership.core.program.memory import Memory
from nodepool_membership.core.state.ledger import Ledger, ledger_of
from nodepool_membership.runtime.claims.claimed import NoRoomError
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.claims.initial_sync import InitialSync
from nodepool_membership.runtime.cloud.clouds import Clouds, recent_calls
from nodepool_membership.runtime.ops.metrics import Metrics

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tracked:
    uid: str
    recalled: bool = False
    """Its earlier calls are in the write budget (rule P23)."""
    crowded: Trouble | None = None
    """There is no room for its claims."""
    owners: tuple[str, ...] = ()
    """Memberships of other namespaces that had the right to servers of it, as they were logged last."""
    memory: Memory = field(default_factory=Memory)
    ledger: Ledger | None = None


class Memories:
    """By key, with the parts of the process that are told of every object that is read."""

    def __init__(
        self,
        claims: Claims,
        initial_sync: InitialSync,
        clouds: Clouds,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._claims = claims
        self._initial_sync = initial_sync
        self._clouds = clouds
        self._metrics = metrics
        self._now = now
        self._tracked: dict[Key, _Tracked] = {}

    async def note(self, found: Membership | UnreadableStatus) -> Memory:
        """Take over what an object says to all memberships; called for every read, it costs next to nothing."""
        key = (found.metadata.namespace, found.metadata.name)
        tracked = self._track(found)
        crowded = self._claim(found, tracked.ledger)
        tracked.crowded = None if crowded is None else Trouble(Reason.TOO_MANY_MEMBERSHIPS, str(crowded))
        if isinstance(found, Membership):
            if not tracked.recalled:
                await self._clouds.recall(found, self._now())
                tracked.recalled = True
            self._metrics.show(*key, found.status)
        if crowded is None or not crowded.needed:
            self._initial_sync.read(key)
        if self._initial_sync.is_complete:
            for _ in self._claims.indexing(key[0]):
                await asyncio.sleep(0)
        tracked.memory = tracked.memory.known_from(self._claims.freed(found))
        return tracked.memory

    def note_listed(self, found: Membership | UnreadableStatus) -> None:
        """Take over what an object claims, as the first list has it; one with calls to be counted is read by itself."""
        tracked = self._track(found)
        if isinstance(found, Membership):
            tracked.ledger = ledger_of(found.status)
        crowded = self._claim(found, tracked.ledger)
        if (crowded is None or not crowded.needed) and not recent_calls(found, self._now()):
            self._initial_sync.read((found.metadata.namespace, found.metadata.name))

    def _track(self, found: Membership | UnreadableStatus) -> _Tracked:
        """What is remembered of this object, and not of an earlier one of its name."""
        key = (found.metadata.namespace, found.metadata.name)
        if key in self._tracked and self._tracked[key].uid != found.metadata.uid:
            self._drop(key)
        return self._tracked.setdefault(key, _Tracked(found.metadata.uid))

    def _claim(self, found: Membership | UnreadableStatus, known: Ledger | None) -> NoRoomError | None:
        try:
            self._claims.note(found, known)
        except NoRoomError as error:
            return error
        return None

    def remember(self, key: Key, memory: Memory) -> None:
        """Keep this until the object is read again, unless it is gone or another by now."""
        if key in self._tracked:
            self._tracked[key].memory = memory

    def recall(self, key: Key) -> Ledger | None:
        """The calls of an object, as its status had them last."""
        return self._tracked[key].ledger if key in self._tracked else None

    def keep(self, key: Key, ledger: Ledger) -> None:
        """Remember its calls, in case its status is lost."""
        if key in self._tracked:
            self._tracked[key].ledger = ledger

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._drop(key)
        self._claims.drop(key)
        self._initial_sync.read(key)
        self._metrics.forget(*key)

    def _drop(self, key: Key) -> None:
        tracked = self._tracked.pop(key, None)
        if tracked is not None:
            self._clouds.forget(tracked.uid)

    def rivals(self, membership: Membership) -> Rivals | Trouble | None:
        """Servers that others claim, too; None while not all were read once, or why it cannot claim any (rule P16)."""
        key = (membership.metadata.namespace, membership.metadata.name)
        tracked = self._tracked.get(key)
        if tracked is None or tracked.crowded is not None:
            return None if tracked is None else tracked.crowded
        if not self._initial_sync.is_complete:
            return None
        found = self._claims.rivals(membership)
        owners = tuple(sorted({rival.owner for rival in found.values() if rival.foreign and rival.better}))
        if owners != tracked.owners and owners:
            # Messages must not name them: who runs the operator has to find out.
            extra = {"object": "/".join(key), "claimedBy": list(owners)}
            _log.info("servers are claimed by memberships of other namespaces", extra=extra)
        tracked.owners = owners
        return found
