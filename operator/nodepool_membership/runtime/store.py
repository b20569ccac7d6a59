"""Every write to a membership: status, finalizer, and the record that is tried until it is stored.

Not for: what is written (`core`). Events and metrics tell of a status only after it is stored.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import EventReason
from nodepool_membership.api.status import Batch, Status
from nodepool_membership.core import story
from nodepool_membership.core.calls import Accepted, Answer, record
from nodepool_membership.core.settings import Settings
from nodepool_membership.kube.errors import KubeError, StaleError
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims import Claims
from nodepool_membership.runtime.metrics import Metrics

_log = logging.getLogger(__name__)

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 5.0
"""Of a few records only; the process ends about 15 s after its last call when one cannot be stored."""


def about(membership: Membership, batch: Batch | None = None) -> dict[str, str | int | None]:
    """Log fields of an object and, if given, of one of its batches."""
    fields: dict[str, str | int | None] = {"object": f"{membership.metadata.namespace}/{membership.metadata.name}"}
    if batch is not None:
        fields["batch"] = batch.batch
        if batch.job_id:
            fields["jobID"] = batch.job_id
    return fields


class Store:
    """Writes through guarded patches, each of which returns the membership as it is afterwards."""

    def __init__(
        self,
        memberships: Memberships,
        events: Events,
        metrics: Metrics,
        settings: Settings,
        claims: Claims,
        *,
        now: Callable[[], datetime],
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._memberships = memberships
        self._events = events
        self._metrics = metrics
        self._settings = settings
        self._claims = claims
        self._now = now
        self._first_wait = first_wait

    async def status(self, membership: Membership, status: Status) -> Membership:
        """Write a status, if it differs.

        Raises:
            KubeError: it is not stored, or (`UnansweredError`) may not be.
        """
        old = membership.status
        if status == old:
            return membership
        version = await self._memberships.write_status(membership.metadata, old, status)
        meta = replace(membership.metadata, resource_version=version)
        stored = replace(membership, metadata=meta, status=status)
        self._claims.stored(membership, stored)
        for note in story.notes(old, status):
            if note.reason is EventReason.FOREIGN_ADD:
                _log.warning(note.text, extra=about(membership))
            self._events.post(meta, note.reason.value, note.kind, "Reconcile", note.text)
        self._metrics.stored(meta.namespace, meta.name, old, status)
        return stored

    async def hold(self, membership: Membership) -> Membership:
        """Put the finalizer on the object (rule P2)."""
        return await self._with_finalizers(membership, *membership.metadata.finalizers, FINALIZER)

    async def release(self, membership: Membership) -> Membership:
        """Take the finalizer off the object."""
        return await self._with_finalizers(membership, *(f for f in membership.metadata.finalizers if f != FINALIZER))

    async def _with_finalizers(self, membership: Membership, *finalizers: str) -> Membership:
        meta = membership.metadata
        if FINALIZER in finalizers:
            version = await self._memberships.add_finalizer(meta)
        else:
            version = await self._memberships.remove_finalizer(meta)
        return replace(membership, metadata=replace(meta, resource_version=version, finalizers=finalizers))

    async def answer(self, membership: Membership, intent: Batch, answer: Answer) -> None:
        """Record the answer to a call, however long that takes, unless the object is gone (rule P9).

        An unanswered write is made again from a fresh read: `record` says the same whatever the status holds.
        Cancelled, it says what is not recorded.
        """
        try:
            await self._answer(membership, intent, answer)
        except asyncio.CancelledError:
            text = "the process ends before the answer to a call is stored: %s; the next one looks for its servers"
            extra = {**about(membership, intent), **({"jobID": answer.job_id} if isinstance(answer, Accepted) else {})}
            _log.error(text, answer, extra=extra)
            raise

    async def _answer(self, membership: Membership, intent: Batch, answer: Answer) -> None:
        current: Membership | None = membership
        wait = self._first_wait
        while current is not None:
            status = record(current, intent, answer, self._now().replace(microsecond=0), self._settings)
            try:
                await self.status(current, status)
            except StaleError:
                pass
            except KubeError as error:
                _log.error("the answer to a call is not stored yet: %s", error, extra=about(current, intent))
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                return
            current = await self._read_again(current)
        extra = about(membership, intent)
        _log.error("the object is gone, the answer to its call is kept nowhere: %s", answer, extra=extra)

    async def _read_again(self, membership: Membership) -> Membership | None:
        meta = membership.metadata
        wait = self._first_wait
        while True:
            try:
                found = await self._memberships.read(meta.namespace, meta.name)
            except KubeError as error:
                _log.error("the object cannot be read: %s", error, extra=about(membership))
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
                continue
            if found is None or found.metadata.uid != meta.uid:
                return None
            if isinstance(found, UnreadableStatus):
                # Somebody broke the status meanwhile: it is as good as lost, and rebuilt from the answer on (rule P24).
                return Membership(found.metadata, found.spec)
            return found
