"""The call of a stored intent, and the part of a program from the call to its record, which nothing interrupts.

Not for: the order of intent, call and record (`core.program.calling`). Rules P5, P6, P9: signed with the stored
submitTime, sent once, never repeated here.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Final, TypeVar

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import NodePoolRef
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.cce.errors import CloudError, RefusedError, ThrottledError
from nodepool_membership.core.decision.record import Accepted, Answer, NotNow, NotSent, Refused, Unknown, too_late
from nodepool_membership.runtime.cloud import error_mapping
from nodepool_membership.runtime.cloud.clouds import Access
from nodepool_membership.runtime.reconcile import audit
from nodepool_membership.runtime.reconcile.store import about
from nodepool_membership.runtime.scheduling.leader import MayCall

_log = logging.getLogger(__name__)

T = TypeVar("T")

_STAGES: Final = {NotSent: "notSent", NotNow: "refused", Refused: "refused", Unknown: "unknown", Accepted: "accepted"}


class Sender:
    """Makes the calls that change something, and sees each through to its record."""

    def __init__(self, *, now: Callable[[], datetime], monotonic: Callable[[], float], may_call: MayCall) -> None:
        self._may_call = may_call
        self._now = now
        self._monotonic = monotonic
        self._under_way: set[asyncio.Task[object]] = set()
        self._doubted: set[NodePoolRef] = set()
        self._closing = False

    async def shielded(self, work: Coroutine[None, None, T], intent: Batch) -> T:
        """Run the part of a program that sees a call through; it goes on when the caller is cancelled."""
        task = asyncio.create_task(work, name=f"batch-{intent.batch}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    def doubt(self, membership: Membership) -> None:
        """Take no further refusal by this node pool for certain: one was carried out in part (rule P15)."""
        self._doubted.add(membership.spec.node_pool)
        _log.warning("refusals of this node pool are not atomic", extra=about(membership))

    def is_doubted(self, pool: NodePoolRef) -> bool:
        return pool in self._doubted

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

    def _why_not(self, signed_at: datetime) -> str | None:
        """Why a call signed then must not be sent at this moment (rule P5)."""
        if self._closing:
            return "the operator is stopping"
        if not self._may_call():
            return "the operator lost its lease before the call was sent"
        return too_late(signed_at, self._now())

    async def call(self, membership: Membership, intent: Batch, access: Access) -> Answer:
        """Send the call, once, unless it must not be sent any more; what comes of it is the answer."""
        pool = membership.spec.node_pool
        signed_at, what = intent.submit_time, intent.operation.value.lower()
        reason = "the intent has no time" if signed_at is None else self._why_not(signed_at)
        if signed_at is None or reason is not None:
            audit.answered(membership, intent, "notSent")
            return NotSent(reason or "", Reason.PROGRESSING)

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
            _log.warning("%s call: %s", what, error_mapping.said(error), extra=extra)
            answer = error_mapping.of_call(error)
            audit.answered(membership, intent, _STAGES[type(answer)], request_id=error.request_id)
            return answer
        except Exception:  # noqa: BLE001 - a call of unknown outcome must be recorded as one, whatever was raised
            # The request may have left: the servers are looked for, not sent again (rule P6).
            _log.exception("%s call: unexpected error, its outcome is unknown", what, extra=about(membership, intent))
            audit.answered(membership, intent, "unknown")
            return error_mapping.UNEXPECTED
        access.budget.passed()
        # Before the first try to store it: a job id that is nowhere else must be in the log at least (rule P9).
        extra = {**about(membership, intent), "jobID": accepted.job_id, "requestID": accepted.request_id}
        _log.info("%s call accepted", what, extra=extra)
        audit.answered(membership, intent, "accepted", job_id=accepted.job_id, request_id=accepted.request_id)
        return Accepted(accepted.job_id)
