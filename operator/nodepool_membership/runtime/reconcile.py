"""One reconcile of one membership: read, observe, decide, store, call, record - in the write-ahead order.

Not for: what is decided (`core.decide`), or when keys are worked (`queue`, `process`). The order is the promise: the
intent is stored before the call is made, the answer is recorded before the key is let go (rules P2, P3, P9).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import InvalidObjectError, Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Status
from nodepool_membership.core import conditions
from nodepool_membership.core.carry import unhandled_reset
from nodepool_membership.core.decide import Decision, Pace, acknowledge, decide
from nodepool_membership.core.drift import Absences
from nodepool_membership.core.observation import Look, Observation, Trouble
from nodepool_membership.core.settings import Settings
from nodepool_membership.kube.errors import StaleError, UnansweredError
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime import leftovers
from nodepool_membership.runtime.census import Census
from nodepool_membership.runtime.claims import Claims
from nodepool_membership.runtime.clouds import Access, Clouds
from nodepool_membership.runtime.leader import MayCall
from nodepool_membership.runtime.looking import Looking
from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.pace import Clock
from nodepool_membership.runtime.send import Sender
from nodepool_membership.runtime.store import Store, about

_log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""


_CLOCK_WENT_BACK: Final = Trouble(
    Reason.CLOCK_SKEW,
    "a look that was just made counts as older than the read before it: the clock of the operator's node went back; it"
    " looks again by itself",
)


@dataclass(slots=True)
class _Tracked:
    """What the process remembers of an object from one reconcile to the next; losing it costs a wait at most."""

    uid: str
    recalled: bool = False
    """Its earlier calls are in the write budget (rule P23)."""
    failed_looks: int = 0
    backoffs: int = 0
    """Decisions in a row that something was in the way."""
    unreadable: str | None = None
    absences: Absences = field(default_factory=dict)


class Reconciler:
    """Works keys; the queue sees to it that a key is never worked twice at once."""

    def __init__(
        self,
        memberships: Memberships,
        store: Store,
        sender: Sender,
        clouds: Clouds,
        metrics: Metrics,
        settings: Settings,
        clock: Clock,
        claims: Claims,
        census: Census,
        *,
        now: Callable[[], datetime],
        may_call: MayCall,
    ) -> None:
        self._memberships = memberships
        self._may_call = may_call
        self._store = store
        self._sender = sender
        self._clouds = clouds
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self._claims = claims
        self._census = census
        self._taking: asyncio.Task[None] | None = None
        self._now = now
        self._tracked: dict[Key, _Tracked] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Work one key; returns the seconds until the next look, None when the object is gone.

        Raises:
            KubeError: the API server refused or did not answer; the key is to be tried again.
            InvalidObjectError: the object does not read.
        """
        async with self._open(key) as found:
            if found is None:
                self._forget(key)
                self._claims.drop(key)
                self._census.read(key)
                self._metrics.forget(*key)
                return None
            tracked = await self._take_note(key, found)
            wait = self._census.wait_for_others(key)
            if wait is not None:
                return wait
            try:
                if isinstance(found, UnreadableStatus):
                    return await self._report(found, tracked)
                return await self._work(found, tracked)
            except StaleError:
                _log.debug("the object changed meanwhile, reading again", extra={"object": "/".join(key)})
                return 0.0

    def start(self) -> None:
        """Keys are about to be worked: find out which there are, for nothing is added before all were read once."""
        self._taking = asyncio.create_task(self._census.take(), name="census")

    async def close(self) -> None:
        """Start no further call and wait for the records of those under way (SIGTERM)."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait((self._taking,))
        await self._sender.close()

    @asynccontextmanager
    async def _open(self, key: Key) -> AsyncIterator[Membership | UnreadableStatus | None]:
        async with AsyncExitStack() as stack:
            try:
                found = await stack.enter_async_context(self._memberships.open(*key))
            except InvalidObjectError:
                # What it claims nobody will ever know: the others must not wait for it.
                self._census.read(key)
                raise
            yield found

    async def _take_note(self, key: Key, found: Membership | UnreadableStatus) -> _Tracked:
        """Take over what an object says to all memberships; at the start the work on any waits until all have said it.

        It is called for every read, and costs next to nothing where nothing has changed.
        """
        self._claims.note(found)
        if key in self._tracked and self._tracked[key].uid != found.metadata.uid:
            self._forget(key)
        tracked = self._tracked.setdefault(key, _Tracked(found.metadata.uid))
        if not tracked.recalled and isinstance(found, Membership):
            await self._clouds.recall(found, self._now())
            tracked.recalled = True
        self._census.read(key)
        return tracked

    def _forget(self, key: Key) -> None:
        tracked = self._tracked.pop(key, None)
        if tracked is not None:
            self._clouds.forget(tracked.uid)

    async def _work(self, membership: Membership, tracked: _Tracked) -> float | None:
        self._metrics.show(membership.metadata.namespace, membership.metadata.name, membership.status)
        look = Looking(
            self._clouds,
            self._memberships,
            membership,
            Observation(self._now(), membership.wire_bytes, absences=tracked.absences),
            tracked.failed_looks,
        )
        try:
            decision = await self._decide(look)
            membership = look.membership
            tracked.absences = decision.absences
            if decision.doubted:
                # Before a call: a removal may be part of the same decision.
                self._sender.doubt(membership)
            leftovers.tell_of_failed(membership, decision.status, look.seen)
            if decision.intent is not None and look.access is not None and look.taken is not None:
                place, look.taken = look.taken, None
                try:
                    await self._carry_out(membership, decision, decision.intent, look.access)
                finally:
                    self._clouds.ended(look.access, place)
                return 0.0
        finally:
            look.give_back()
        tracked.failed_looks = tracked.failed_looks + 1 if look.seen.trouble is not None else 0
        growing = decision.pace is Pace.BACKOFF and (look.seen.trouble is not None or decision.delay is None)
        tracked.backoffs = tracked.backoffs + 1 if growing else 0
        if membership.metadata.deleting and not decision.holds:
            await self._let_go(membership, decision.status, look.seen)
            return None
        membership = await self._store.status(membership, decision.status)
        if decision.must_hold(membership):
            membership = await self._store.hold(membership)
        if not decision.holds and FINALIZER in membership.metadata.finalizers:
            membership = await self._store.release(membership)
            self._clouds.forget(membership.metadata.uid)
        return self._wait(membership, decision, tracked)

    async def _decide(self, look: Looking) -> Decision:
        answered: list[Look] = []
        while True:
            membership = look.membership
            rivals = self._claims.rivals(membership) if self._census.is_complete else None
            look.seen = replace(look.seen, rivals=rivals)
            match decide(membership, look.seen, self._second(), self._settings):
                case Decision() as decision:
                    return decision
                case Look() as wanted:
                    unseen = membership.status.observed_generation != membership.metadata.generation
                    if unseen and not await look.is_at_hand(wanted):
                        # Before the cloud is asked, which may take long: a user sees at once that the edit arrived.
                        status = acknowledge(membership, self._second(), self._settings)
                        look.membership = await self._store.status(membership, status)
                    if wanted in answered:
                        look.give_up(_CLOCK_WENT_BACK)
                        continue
                    answered.append(wanted)
                    await look.answer(wanted)

    async def _carry_out(self, membership: Membership, decision: Decision, intent: Batch, access: Access) -> None:
        """Finalizer, intent, call, record: each only after the one before is stored (rules P2, P3)."""
        if FINALIZER not in membership.metadata.finalizers:
            if membership.status.last_batch is None:
                # The witness of rule P2: a finalizer without this counter means a lost status.
                membership = await self._store.status(
                    membership, acknowledge(membership, self._second(), self._settings)
                )
            membership = await self._store.hold(membership)
        if not self._may_call():
            _log.warning("no intent is stored: the lease is lost", extra=about(membership, intent))
            return
        if not self._claims.reserve(membership, intent):
            _log.info("another membership has taken a server of the plan meanwhile", extra=about(membership, intent))
            return
        try:
            membership = await self._store.status(membership, decision.status)
        except UnansweredError:
            # It counts as written: what may stand there is withdrawn, since nothing was sent.
            await self._withdraw_if_stored(membership, intent)
            raise
        await self._sender.send(membership, intent, access)

    async def _withdraw_if_stored(self, membership: Membership, intent: Batch) -> None:
        found = await self._memberships.read(membership.metadata.namespace, membership.metadata.name)
        if (
            isinstance(found, Membership)
            and found.metadata.uid == membership.metadata.uid
            and intent in found.status.jobs
        ):
            await self._sender.withdraw(found, intent, "the API server did not answer when the intent was stored")

    async def _let_go(self, membership: Membership, status: Status, seen: Observation) -> None:
        """Let a deleted object go; what it leaves behind is in the log (rules P19, P20)."""
        if FINALIZER in membership.metadata.finalizers:
            leftovers.tell_on_release(membership, status, seen)
            await self._store.release(membership)
            self._clouds.forget(membership.metadata.uid)

    async def _report(self, found: UnreadableStatus, tracked: _Tracked) -> float | None:
        """Say that the status cannot be understood; nothing is called for it (rule P24)."""
        meta = found.metadata
        limit = self._settings.settle_window + timedelta(seconds=found.spec.join_timeout_seconds)
        extra = {"object": f"{meta.namespace}/{meta.name}"}
        if meta.deletion_timestamp is not None and self._now() > meta.deletion_timestamp + limit:
            _log.warning("released with a status that cannot be understood: %s", found.problem, extra=extra)
            await self._memberships.remove_finalizer(meta)
            return None
        if unhandled_reset(meta, found.handled_reset) is not None:
            await self._rebuild(found)
            return 0.0
        if tracked.unreadable != meta.resource_version:
            verdict = conditions.stalled(
                Reason.STATUS_INVALID,
                f"the status cannot be understood ({found.problem}); nothing is called: correct it with"
                " kubectl edit --subresource=status, or set the reset annotation to start over with an empty one",
            )
            wanted = conditions.conditions(Status(), verdict, meta.generation, self._second())
            tracked.unreadable = await self._memberships.write_conditions_only(meta, meta.generation, wanted)
            _log.warning("the status cannot be understood: %s", found.problem, extra=extra)
        return self._clock.until_resync(found.spec.node_pool, meta.uid, self._now().timestamp())

    async def _rebuild(self, found: UnreadableStatus) -> None:
        """Start over with an empty status: the finalizer is the witness that one was lost (rules P2, P24)."""
        membership = Membership(found.metadata, found.spec)
        if FINALIZER not in membership.metadata.finalizers and not membership.metadata.deleting:
            membership = await self._store.hold(membership)
        await self._store.status(membership, acknowledge(membership, self._second(), self._settings))
        _log.warning("a status that cannot be understood was given up: %s", found.problem, extra=about(membership))

    def _wait(self, membership: Membership, decision: Decision, tracked: _Tracked) -> float:
        pool, uid = membership.spec.node_pool, membership.metadata.uid
        resync = self._clock.until_resync(pool, uid, self._now().timestamp())
        if decision.pace is Pace.RESYNC and decision.delay is None:
            return resync
        wait = self._clock.seconds(decision.pace, backoffs=tracked.backoffs)
        if decision.delay is None:
            return wait
        if tracked.failed_looks:
            # The cloud may have asked for the delay: it is for looks, too.
            return max(decision.delay, wait)
        # A call that waits for its time must keep neither an open job from being asked nor the rest from its resync.
        if membership.status.open_batches:
            return min(decision.delay, wait)
        return min(max(decision.delay, wait) if decision.pace is Pace.BACKOFF else decision.delay, resync)

    def _second(self) -> datetime:
        return self._now().replace(microsecond=0)
