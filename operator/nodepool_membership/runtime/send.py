"""The call of a stored intent and the record of its answer, as one piece that nothing interrupts.

Not for: planning (`core`), or storing the intent (`reconcile`). Rules P5, P6, P9: signed with the stored
submitTime, sent once, never repeated here.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.cce.errors import CloudError, RefusedError, ThrottledError
from nodepool_membership.core.calls import Accepted, Answer, NotSent, Unknown, is_doubtful, too_late
from nodepool_membership.runtime import troubles
from nodepool_membership.runtime.clouds import Access
from nodepool_membership.runtime.leader import MayCall
from nodepool_membership.runtime.store import Store, about

_log = logging.getLogger(__name__)


class Sender:
    """Makes the calls that change something, and sees each through to its record."""

    def __init__(
        self, store: Store, *, now: Callable[[], datetime], monotonic: Callable[[], float], may_call: MayCall
    ) -> None:
        self._store = store
        self._may_call = may_call
        self._now = now
        self._monotonic = monotonic
        self._under_way: set[asyncio.Task[None]] = set()
        self._doubted: set[str] = set()
        self._closing = False

    async def send(self, membership: Membership, intent: Batch, access: Access) -> None:
        """Call and record; goes on when the caller is cancelled."""
        await self._shielded(self._call_and_record(membership, intent, access), intent)

    async def withdraw(self, membership: Membership, intent: Batch, why: str) -> None:
        """Record that a stored intent was certainly not sent."""
        await self._shielded(self._store.answer(membership, intent, NotSent(why, Reason.PROGRESSING)), intent)

    def doubt(self, membership: Membership) -> None:
        """Take no further refusal by this node pool for certain: one was carried out in part (rule P15)."""
        self._doubted.add(membership.spec.node_pool.node_pool_id)
        _log.warning("refusals of this node pool are not atomic", extra=about(membership))

    async def close(self) -> None:
        """Start no further call and wait for the records of those under way; cancelled, give them up, and say which."""
        self._closing = True
        try:
            while self._under_way:
                await asyncio.wait(self._under_way)
        except asyncio.CancelledError:
            given_up = list(self._under_way)
            for task in given_up:
                task.cancel()
            await asyncio.gather(*given_up, return_exceptions=True)
            raise

    async def _shielded(self, work: Coroutine[None, None, None], intent: Batch) -> None:
        task = asyncio.create_task(work, name=f"batch-{intent.batch}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _call_and_record(self, membership: Membership, intent: Batch, access: Access) -> None:
        try:
            answer = await self._call(membership, intent, access)
        except asyncio.CancelledError:
            text = "the process ends with a call under way; its intent is stored, the next one looks for the servers"
            _log.error(text, extra=about(membership, intent))
            raise
        await self._store.answer(membership, intent, answer)

    def _why_not(self, signed_at: datetime) -> str | None:
        """Why a call signed then must not be sent at this moment (rule P5)."""
        if self._closing:
            return "the operator is stopping"
        if not self._may_call():
            return "the operator lost its lease before the call was sent"
        return too_late(signed_at, self._now())

    async def _call(self, membership: Membership, intent: Batch, access: Access) -> Answer:
        pool = membership.spec.node_pool
        signed_at, what = intent.submit_time, intent.operation.value.lower()
        if signed_at is None:
            return NotSent("the intent has no time", Reason.PROGRESSING)
        if (reason := self._why_not(signed_at)) is not None:
            return NotSent(reason, Reason.PROGRESSING)

        def fence() -> str | None:
            return self._why_not(signed_at)

        client, cluster_id = access.client, pool.cluster_id
        try:
            if intent.operation is Operation.REMOVE:
                accepted = await client.remove_nodes(cluster_id, intent.node_ids, signed_at=signed_at, fence=fence)
            else:
                accepted = await client.add_nodes(
                    cluster_id, pool.node_pool_id, intent.server_ids, signed_at=signed_at, fence=fence
                )
        except CloudError as error:
            if isinstance(error, ThrottledError):
                access.budget.throttled(self._monotonic(), error.retry_after)
            elif isinstance(error, RefusedError):
                access.budget.passed()
            extra = {**about(membership, intent), "requestID": error.request_id}
            _log.warning("%s call: %s", what, troubles.said(error), extra=extra)
            answer = troubles.of_call(error)
            doubted = pool.node_pool_id in self._doubted and is_doubtful(answer)
            return Unknown(troubles.said(error)) if doubted else answer
        except Exception:  # noqa: BLE001 - a call of unknown outcome must be recorded as one, whatever was raised
            # The request may have left: the servers are looked for, not sent again (rule P6).
            _log.exception("%s call: unexpected error, its outcome is unknown", what, extra=about(membership, intent))
            return troubles.UNEXPECTED
        access.budget.passed()
        # Before the first try to store it: a job id that is nowhere else must be in the log at least (rule P9).
        extra = {**about(membership, intent), "jobID": accepted.job_id, "requestID": accepted.request_id}
        _log.info("%s call accepted", what, extra=extra)
        return Accepted(accepted.job_id)
