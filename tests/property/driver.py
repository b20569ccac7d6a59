"""The reconcile loop over the model cloud: the same order of reads, decisions, writes and calls as `runtime.reconcile`.

Not for: decisions. Every store is checked here, so that no test can forget a promise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation, Status
from nodepool_membership.core.calls import Answer, NotSent, Unknown, is_doubtful, record, too_late
from nodepool_membership.core.decide import Decision, Pace, acknowledge, decide
from nodepool_membership.core.drift import Absences
from nodepool_membership.core.observation import Freshness, Look, NodeTable, Observation, Trouble
from nodepool_membership.core.rivals import Rivals
from nodepool_membership.core.settings import Settings
from property.checks import check_decision, check_status
from property.cloud_model import EPOCH, Cloud
from property.reached import note
from property.stored_object import StaleError, StoredObject

SETTINGS, RESYNC = Settings(), 300.0
RECENT: Final = timedelta(seconds=30)
_WENT_BACK: Final = Trouble(Reason.CLOCK_SKEW, "a look that was just made counts as older than the read before it")


class Boundary(StrEnum):
    """Moments between two steps, at which the process may die or freeze, or somebody may change the object."""

    READ = "after the read"
    LOOKED = "after a look"
    DECIDED = "before the first write"
    WITNESSED = "lastBatch stored, finalizer not yet"
    HELD = "before the intent"
    INTENDED = "after the intent"
    CALLED = "after the call"
    RECORDED = "after the record"
    STORED = "after the status"


class CrashError(Exception):
    """The process is killed."""


@dataclass(slots=True)
class Driver:
    """One operator process after another, over one object and one cloud."""

    stored: StoredObject
    cloud: Cloud
    interruptions: dict[Boundary, Callable[[], None]] = field(default_factory=dict)
    """Each happens once, at the next passing of its boundary."""
    unreachable: bool = False
    skew: float = 0.0
    """Our clock minus the cloud's, in seconds."""
    rivals: Rivals | None = field(default_factory=dict)
    budget_free: datetime = EPOCH
    intents: list[Batch] = field(default_factory=list)
    cached: NodeTable | None = None
    backoffs: int = 0
    failed_looks: int = 0
    absences: Absences = field(default_factory=dict)
    doubts: bool = False
    """A refusal of this pool was carried out in part: none is taken for certain any more (rule P15)."""
    uid: str = ""

    def __post_init__(self) -> None:
        self.stored.clock = lambda: self.cloud.now

    @property
    def now(self) -> datetime:
        """By our clock."""
        return self.cloud.now + timedelta(seconds=self.skew)

    def kill_at(self, boundary: Boundary) -> None:
        """Let the process die at the next passing of a boundary."""
        self.interruptions[boundary] = self._die

    def _die(self) -> None:
        raise CrashError

    def reconcile(self) -> float:
        """One reconcile; returns the seconds until the next. A crash starts a new process."""
        try:
            return self._work()
        except StaleError:
            return 0.0
        except CrashError:
            self.cached, self.doubts = None, False
            self._forget("")
            return 5.0
        finally:
            assert not self.cloud.wrongs, self.cloud.wrongs

    def _forget(self, uid: str) -> None:
        self.uid, self.backoffs, self.failed_looks, self.absences = uid, 0, 0, {}

    def run(self, seconds: float, reconciles: int, apart: float = 0.0) -> None:
        """Reconcile as the operator would for so long, at most so many times; if told, `apart` by so many seconds."""
        end = self.cloud.now + timedelta(seconds=seconds)
        for _ in range(reconciles):
            wait = max(self.reconcile(), apart)
            self.cloud.advance(max(min(wait, (end - self.cloud.now).total_seconds()), 0.0))
            if self.cloud.now >= end:
                return

    def _pass(self, boundary: Boundary) -> None:
        self.cloud.advance(0.2)
        action = self.interruptions.pop(boundary, None)
        if action is not None:
            action()

    def _second(self) -> datetime:
        return self.now.replace(microsecond=0)

    def _work(self) -> float:
        if self.stored.gone:
            return RESYNC
        membership = self.stored.read()
        if membership.metadata.uid != self.uid:
            self._forget(membership.metadata.uid)
        seen = Observation(self.now, membership.wire_bytes, absences=self.absences, rivals=self.rivals)
        self._pass(Boundary.READ)
        answered: list[Look] = []
        while True:
            now = self._second()
            step = decide(membership, seen, now, SETTINGS)
            if isinstance(step, Decision):
                break
            if membership.status.observed_generation != membership.metadata.generation and not self._at_hand(step):
                membership = self._store(membership, acknowledge(membership, now, SETTINGS))
            if step in answered:
                seen = replace(seen, trouble=_WENT_BACK, failed_looks=self.failed_looks + 1)
                continue
            answered.append(step)
            seen = self._answer(step, seen)
            self._pass(Boundary.LOOKED)
        check_decision(membership, step, seen, now)
        self.absences = step.absences
        self.doubts |= step.doubted
        self._pass(Boundary.DECIDED)
        if step.intent is not None:
            self._carry_out(membership, step, step.intent)
            return 0.0
        self.failed_looks = self.failed_looks + 1 if seen.trouble is not None else 0
        self.backoffs = self.backoffs + 1 if step.pace is Pace.BACKOFF else 0
        if membership.metadata.deleting and not step.holds:
            self._finalizers(replace(membership, status=step.status), [])
            return RESYNC
        membership = self._store(membership, step.status)
        self._pass(Boundary.STORED)
        if step.must_hold(membership):
            membership = self._finalizers(membership, [FINALIZER])
        self._decide_again(membership, step, seen, now)
        if not step.holds and FINALIZER in membership.metadata.finalizers:
            membership = self._finalizers(membership, [])
        return self._wait(membership, step)

    def _decide_again(self, membership: Membership, step: Decision, seen: Observation, now: datetime) -> None:
        """What was decided is all there is to do, until something else is seen."""
        if step.doubted:
            # Refused parts have become unknown: what that frees is planned the next time.
            return
        again = decide(membership, seen, now, SETTINGS)
        assert isinstance(again, Decision), f"a second decision on the same input asks for {again}"
        assert again.status == step.status, "a second decision on the same input writes"
        assert again.intent is None, "a second decision on the same input calls"

    def _at_hand(self, look: Look) -> bool:
        return (
            self.unreachable
            or look.write
            or look.home
            or (look.listing is Freshness.RECENT and self._recent() is not None)
        )

    def _recent(self) -> NodeTable | None:
        table = self.cached
        return table if table is not None and table.begun >= self.now - RECENT else None

    def _answer(self, look: Look, seen: Observation) -> Observation:
        if look.write:
            return replace(seen, write_wait=max((self.budget_free - self.cloud.now).total_seconds(), 0.0))
        if look.home:
            return replace(seen, home=self.stored.home)
        if self.unreachable:
            trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no route to the cloud")
            return replace(seen, trouble=trouble, failed_looks=self.failed_looks + 1)
        if look.jobs:
            return replace(seen, jobs={**seen.jobs, **{j: self.cloud.job(j) for j in look.jobs}})
        assert look.listing is not None, "a Look asks for something"
        table = self._recent() if look.listing is Freshness.RECENT else None
        self.cached = table = table or self.cloud.listing(self.now)
        if look.listing is Freshness.RECENT:
            return replace(seen, listing=table, clock_offset_seconds=-self.skew)
        pool, cluster = self.cloud.pool(), self.cloud.cluster()
        return replace(seen, listing=table, pool=pool, cluster=cluster, clock_offset_seconds=-self.skew)

    def _store(self, membership: Membership, status: Status) -> Membership:
        if status == membership.status:
            return membership
        check_status(membership, status)
        note(status)
        version = self.stored.write_status(membership.metadata.resource_version, status)
        assert self.stored.read().status == status, "a status does not read back as it was written"
        return replace(membership, metadata=replace(membership.metadata, resource_version=version), status=status)

    def _finalizers(self, membership: Membership, finalizers: list[str]) -> Membership:
        version = self.stored.write_finalizers(membership.metadata.resource_version, finalizers)
        if not finalizers and membership.status.open_batches:
            limit = SETTINGS.settle_window + timedelta(seconds=membership.spec.join_timeout_seconds)
            assert membership.metadata.deletion_timestamp is not None, "the finalizer was taken off with an open batch"
            slack = timedelta(seconds=self.stored.jumped)
            assert self.now + slack >= membership.metadata.deletion_timestamp + limit, "let go too early"
            # Nobody knows of its jobs any more: what is assumed of an add without a job holds from now on.
            self.cloud.forget_answers()
        metadata = replace(membership.metadata, resource_version=version, finalizers=tuple(finalizers))
        return replace(membership, metadata=metadata)

    def _carry_out(self, membership: Membership, decision: Decision, intent: Batch) -> None:
        if FINALIZER not in membership.metadata.finalizers:
            if membership.status.last_batch is None:
                membership = self._store(membership, acknowledge(membership, self._second(), SETTINGS))
            self._pass(Boundary.WITNESSED)
            membership = self._finalizers(membership, [FINALIZER])
        self._pass(Boundary.HELD)
        membership = self._store(membership, decision.status)
        self.intents.append(intent)
        if intent.operation is Operation.REMOVE and not membership.metadata.deleting:
            self._judge_wait(intent)
        self._pass(Boundary.INTENDED)
        answer = self._call(intent)
        self._pass(Boundary.CALLED)
        self._record(membership, intent, answer)
        self._pass(Boundary.RECORDED)

    def _judge_wait(self, intent: Batch) -> None:
        for server in intent.server_ids:
            off = self.cloud.now - self.stored.listed_until[server]
            slack = timedelta(seconds=self.stored.jumped)
            assert off + slack >= SETTINGS.removal_delay, f"removed {off} after it left the list (P18)"

    def _call(self, intent: Batch) -> Answer:
        signed_at = intent.submit_time
        assert signed_at is not None, "an intent without submitTime"
        if (reason := too_late(signed_at, self.now)) is not None:
            return NotSent(reason)
        dies = self.interruptions.get(Boundary.CALLED) == self._die
        if intent.operation is Operation.REMOVE:
            answer = self.cloud.remove(intent.node_ids, signed_at, answer_arrives=not dies)
        else:
            answer = self.cloud.add(intent.server_ids, signed_at, answer_arrives=not dies)
        return Unknown(answer.message) if self.doubts and is_doubtful(answer) else answer

    def _record(self, membership: Membership, intent: Batch, answer: Answer) -> None:
        uid = membership.metadata.uid
        while not self.stored.gone and membership.metadata.uid == uid:
            try:
                self._store(membership, record(membership, intent, answer, self._second(), SETTINGS))
            except StaleError:
                membership = self.stored.read()
            else:
                return

    def _wait(self, membership: Membership, decision: Decision) -> float:
        if decision.pace is Pace.RESYNC and decision.delay is None:
            return RESYNC
        poll = SETTINGS.poll_interval.total_seconds()
        backoff = min(poll * 2.0 ** min(self.backoffs, 16), RESYNC)
        wait = {Pace.NOW: 0.0, Pace.POLL: poll, Pace.WATCH: 2 * poll}.get(decision.pace, backoff)
        if decision.delay is None:
            return wait
        if self.failed_looks:
            return max(decision.delay, wait)
        if membership.status.open_batches:
            return min(decision.delay, wait)
        return min(max(decision.delay, wait) if decision.pace is Pace.BACKOFF else decision.delay, RESYNC)
