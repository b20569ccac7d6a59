"""Snapshots of the model cloud as one process has them: which of them answers a look.

Not for: when one is taken (`driver`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.core.observed.observation import Freshness, Trouble
from nodepool_membership.core.program.effects import ClusterView, ReadCluster
from nodepool_membership.core.state.settings import Settings
from property.cloud_model import EPOCH, Cloud

RECENT: Final = Settings().resync_interval / 10
SHARED: Final = Settings().poll_interval / 2
"""So long after its begin a snapshot proves absence to whoever did not wait for it."""
_STEP: Final = 0.1


@dataclass(slots=True)
class Snapshots:
    """The last one."""

    view: ClusterView | None = None
    taken_at: datetime = EPOCH
    """When it began, by the cloud's clock."""
    entitled: Trouble | bool = False
    """The program has waited for it, or for the reason why there is none."""

    def at_hand(self, look: ReadCluster, now: datetime) -> ClusterView | Trouble | None:
        """What answers a look at once; `now` is by the process's clock."""
        if isinstance(self.entitled, Trouble):
            return self.entitled
        view = self.view
        if view is None or view.listing.begun > now:
            return None
        recent = look.freshness is Freshness.RECENT
        young = view.listing.begun >= now - (RECENT if recent else SHARED)
        return view if (young or self.entitled) and (recent or view.listing.begun >= look.read_at) else None

    def take(self, cloud: Cloud, skew: float, trouble: Trouble | None) -> None:
        """Count, list and count again, while time passes; or be kept from it."""
        self.entitled = trouble or True
        if trouble is not None:
            return
        self.taken_at = cloud.now
        counted = cloud.pool().current_nodes
        cloud.advance(_STEP)
        table = cloud.listing(cloud.now + timedelta(seconds=skew))
        cloud.advance(_STEP)
        self.view = ClusterView(table, replace(cloud.pool(), counted_before=counted), cloud.cluster(), -skew)
