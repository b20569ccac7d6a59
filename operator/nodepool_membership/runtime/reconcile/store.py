"""Every write to a membership, and what the process takes over from it: claims, metrics, Events.

Not for: what is written (`core`), or in which order (`core.program`). Events tell of a status only after it is stored.
"""

import logging
from dataclasses import replace

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import EventReason
from nodepool_membership.api.status import Batch, Status
from nodepool_membership.core.conditions import events
from nodepool_membership.core.observed.observation import NamespaceState
from nodepool_membership.core.observed.rivals import Rivals, told_withheld
from nodepool_membership.core.program.effects import (
    AddFinalizer,
    Key,
    ObjectEffect,
    ReadNamespaceState,
    RemoveFinalizer,
    WriteConditions,
    WriteStatus,
)
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.cloud.clouds import Clouds
from nodepool_membership.runtime.ops.metrics import Metrics

_log = logging.getLogger(__name__)


def about(membership: Membership, batch: Batch | None = None) -> dict[str, str | int | None]:
    """Log fields of an object and, if given, of one of its batches."""
    return about_key((membership.metadata.namespace, membership.metadata.name), batch)


def about_key(key: Key, batch: Batch | None = None) -> dict[str, str | int | None]:
    """Log fields of the object of a key and, if given, of one of its batches."""
    fields: dict[str, str | int | None] = {"object": "/".join(key)}
    if batch is not None:
        fields["batch"] = batch.batch
        if batch.job_id:
            fields["jobID"] = batch.job_id
    return fields


class Store:
    """Writes through guarded patches, each of which answers the new resourceVersion."""

    def __init__(
        self,
        memberships: Memberships,
        events: Events,
        metrics: Metrics,
        claims: Claims,
        clouds: Clouds,
        settings: Settings,
    ) -> None:
        self._memberships = memberships
        self._events = events
        self._metrics = metrics
        self._claims = claims
        self._clouds = clouds
        self._settings = settings

    async def perform(self, effect: ObjectEffect[object]) -> str | NamespaceState:
        """Perform a write, or ask for the home of an object.

        Raises:
            KubeError: it is not stored, or (`UnansweredError`) may not be.
        """
        match effect:
            case WriteStatus(membership, status):
                return await self._status(membership, status)
            case WriteConditions(meta, conditions):
                return await self._memberships.write_conditions_only(meta, meta.generation, conditions)
            case AddFinalizer(meta):
                return await self._memberships.add_finalizer(meta)
            case RemoveFinalizer(meta):
                version = await self._memberships.remove_finalizer(meta)
                self._clouds.forget(meta.uid)
                text = "released: the deleted object goes" if meta.deleting else "released: nothing is open or owed"
                _log.info(text, extra=about_key((meta.namespace, meta.name)))
                return version
            case ReadNamespaceState(namespace):
                return await self._memberships.namespace_state(namespace)
            case _:
                raise TypeError(f"not known: {effect}")

    async def _status(self, membership: Membership, status: Status) -> str:
        version = await self._memberships.write_status(membership.metadata, membership.status, status)
        meta = replace(membership.metadata, resource_version=version)
        self._claims.stored(membership, replace(membership, metadata=meta, status=status))
        self._metrics.stored(meta.namespace, meta.name, membership.status, status)
        return version

    def tell(self, before: Membership, after: Membership) -> None:
        """Post the Events that tell a stored status from the one before it, and log them; so each change of reason."""
        turned = events.turned(before.status, after.status)
        notes = (
            *events.events_between(before.status, after.status),
            *events.surplus(before, after, self._settings),
        )
        if turned is not None and all(note.reason is not turned.reason for note in notes):
            _log.info("%s: %s", turned.reason.value, turned.message, extra=about(before))
        for note in notes:
            level = logging.WARNING if note.reason is EventReason.FOREIGN_ADD else logging.INFO
            _log.log(level, "%s: %s", note.reason.value, note.text, extra=about(before))
            self._events.post(after.metadata, note.reason.value, note.kind, "Reconcile", note.text)

    def tell_withheld(self, membership: Membership, withheld: Rivals) -> None:
        """Tell the owner of servers that they are not removed; only the log names memberships of other namespaces."""
        owners = sorted({rival.owner for rival in withheld.values()})
        extra = {**about(membership), "serverIDs": sorted(withheld), "claimedBy": owners}
        _log.warning("servers are not removed: other memberships name them", extra=extra)
        reason, text = EventReason.REMOVAL_WITHHELD.value, told_withheld(withheld)
        self._events.post(membership.metadata, reason, "Warning", "Reconcile", text)
