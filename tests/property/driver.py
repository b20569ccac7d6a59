"""The program of a reconcile over the model cloud, as one process after another runs it.

Not for: the order of effects (`core.program`) or decisions. Every store is checked here, so that no test can forget a
promise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from nodepool_membership.api.membership import Membership, Metadata, UnreadableStatus, status_json
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation, Status
from nodepool_membership.core.decision.decide import Decision, decide
from nodepool_membership.core.decision.preview import Preview
from nodepool_membership.core.decision.record import Answer, NotSent, too_late
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.program.effects import (
    AddFinalizer,
    AskJobs,
    AskLease,
    AskTurn,
    Awaited,
    Call,
    CloudEffect,
    Doubt,
    Effect,
    FindNaming,
    FindRivals,
    InspectServers,
    IsAtHand,
    IsDoubted,
    KeepLedger,
    LogText,
    Now,
    ObjectEffect,
    OutputEffect,
    ProcessEffect,
    Program,
    ReadCluster,
    ReadNamespaceState,
    ReadObject,
    RecallLedger,
    Remember,
    RemoveFinalizer,
    Reserve,
    Shield,
    StoreError,
    TakeOver,
    TakeWriteSlot,
    TellDecided,
    TellReleased,
    TellStored,
    WriteLog,
    WriteSlot,
    WriteStatus,
)
from nodepool_membership.core.program.foreseeing import foresee
from nodepool_membership.core.program.memory import Known, Memory
from nodepool_membership.core.program.reconcile import reconcile
from nodepool_membership.core.program.requeue import Intervals
from nodepool_membership.core.state.ledger import Ledger
from nodepool_membership.core.state.settings import Settings
from property.checks import check_decision, check_status, check_words
from property.cloud_model import EPOCH, Cloud
from property.reached import note
from property.snapshots import Snapshots
from property.stored_object import StoredObject

SETTINGS: Final = Settings()
INTERVALS: Final = Intervals(SETTINGS.poll_interval, SETTINGS.resync_interval)
RESYNC: Final = SETTINGS.resync_interval.total_seconds()
T = TypeVar("T")

KEY: Final = ("cce-system", "workers")


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
    rivals: Rivals | Trouble | None = field(default_factory=dict)
    budget_free: datetime = EPOCH
    intents: list[Batch] = field(default_factory=list)
    snapshots: Snapshots = field(default_factory=Snapshots)
    memory: Memory = field(default_factory=Memory)
    ledger: Ledger | None = None
    doubts: bool = False
    """A refusal of this pool was carried out in part: none is taken for certain any more (rule P15)."""
    uid: str = ""
    _decided: TellDecided | None = None
    """Of this reconcile."""
    _known: Membership | None = None
    """The object as the program knows it."""
    _called: bool = False
    """An intent is stored in this reconcile."""
    _waits: bool = False
    """The program has ended to wait for a snapshot."""

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
            return RESYNC if self.stored.gone else self._work()
        except CrashError:
            self.snapshots, self.doubts, self.uid, self.memory = Snapshots(), False, "", Memory()
            self.ledger = None
            return 5.0
        finally:
            assert not self.cloud.wrongs, self.cloud.wrongs

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

    def _work(self) -> float:
        self._begin()
        requeue = self._to_the_end(reconcile(KEY, SETTINGS))
        if self._waits:
            self._await()
            return self._work()
        self.snapshots.entitled = False
        self._decide_again()
        if requeue is None or self._known is None:
            return RESYNC
        return INTERVALS.seconds(requeue, self._known.spec.node_pool, self.uid, self.now)

    def foresee(self) -> Preview:
        """What is told of what would be done; nothing but looks is performed."""
        membership = self.stored.read()
        found: Preview | Trouble | Known = Known(membership.metadata.resource_version, self.now)
        while isinstance(found, Known):
            self._begin()
            found = self._to_the_end(foresee(membership, found, SETTINGS))
            if self._waits:
                self._await()
        assert isinstance(found, Preview), f"nothing is foreseen: {found}"
        return found

    def _await(self) -> None:
        self.snapshots.take(self.cloud, self.skew, self._trouble())
        self._pass(Boundary.LOOKED)

    def _begin(self) -> None:
        self._decided, self._known, self._called, self._waits = None, None, False, False

    def _to_the_end(self, program: Program[T]) -> T:
        answer: object = None
        error: StoreError | None = None
        while True:
            try:
                effect = program.send(answer) if error is None else program.throw(error)
            except StopIteration as end:
                ended: T = end.value
                return ended
            answer = error = None
            try:
                answer = self._perform(effect)
            except StoreError as caught:
                error = caught

    def _perform(self, effect: Effect[object]) -> object:
        match effect:
            case ObjectEffect():
                return self._of_object(effect)
            case Call(membership, intent):
                answer = self._call(membership, intent)
                self._pass(Boundary.CALLED)
                return answer
            case CloudEffect():
                return self._look(effect)
            case ProcessEffect():
                return self._of_process(effect)
            case OutputEffect():
                self._hear(effect)
                return None
        raise TypeError(f"not known: {effect}")

    def _of_object(self, effect: ObjectEffect[object]) -> object:
        match effect:
            case ReadObject():
                return self._read()
            case WriteStatus(membership, status):
                return self._store(membership, status)
            case AddFinalizer(meta):
                self._pass(Boundary.WITNESSED)
                return self._finalizers(meta, (FINALIZER,))
            case RemoveFinalizer(meta):
                self._check_release()
                return self._finalizers(meta, ())
            case FindNaming():
                return None
            case ReadNamespaceState():
                return self._looked(self.stored.namespace_state)
        raise TypeError(f"not known: {effect}")

    def _of_process(self, effect: ProcessEffect[object]) -> object:  # noqa: C901, PLR0911 - one match over all effects
        match effect:
            case Now():
                return self.now
            case TakeOver(found):
                return self._note(found)
            case RecallLedger():
                return self.ledger
            case KeepLedger(_, ledger):
                self.ledger = ledger
            case Remember(_, memory):
                self.memory = memory
            case FindRivals():
                return self.rivals
            case AskLease():
                self._pass(Boundary.HELD)
                return True
            case Reserve():
                return True
            case Shield(membership, intent):
                self._intended(membership, intent)
            case Doubt():
                self.doubts = True
            case IsDoubted():
                return self.doubts
        return None

    def _read(self) -> Membership | None:
        found = None if self.stored.gone else self.stored.read()
        if self._known is None:
            self._known = found
            self._pass(Boundary.READ)
        return found

    def _note(self, found: Membership | UnreadableStatus) -> Memory:
        if found.metadata.uid != self.uid:
            self.uid, self.memory, self.ledger = found.metadata.uid, Memory(), None
        return self.memory

    def _hear(self, effect: OutputEffect) -> None:
        match effect:
            case TellDecided(membership, decision, seen, now):
                check_decision(membership, decision, seen, now)
                unchanged = membership.metadata.resource_version == str(self.stored.version)
                if decision.intent is not None and unchanged:
                    assert self.snapshots.taken_at >= self.stored.changed_at, (
                        "a call by a snapshot older than the object"
                    )
                self._decided, self._known = effect, membership
                self._pass(Boundary.DECIDED)
            case TellStored(_, after):
                self._known = after
                self._pass(Boundary.RECORDED if self._called else Boundary.STORED)
            case TellReleased(membership, status):
                self._known = replace(membership, status=status)
            case WriteLog(LogText.CHANGED_MEANWHILE):
                self._decided = None

    def _decide_again(self) -> None:
        """What was decided is all there is to do, until something else is seen."""
        decided, membership, self._decided = self._decided, self._known, None
        if decided is None or membership is None or decided.decision.intent is not None:
            return
        if decided.decision.doubted or (membership.metadata.deleting and not decided.decision.keeps_finalizer):
            # Refused parts have become unknown: what that frees is planned the next time.
            return
        again = decide(membership, decided.seen, decided.now, SETTINGS)
        assert isinstance(again, Decision), f"a second decision on the same input asks for {again}"
        one, other = status_json(decided.decision.status), status_json(again.status)
        changed = {k: (one.get(k), other.get(k)) for k in one.keys() | other.keys() if one.get(k) != other.get(k)}
        assert not changed, f"a second decision on the same input writes {changed}"
        assert again.intent is None, "a second decision on the same input calls"

    # The cloud

    def _look(self, effect: CloudEffect[object]) -> object:
        match effect:
            case IsAtHand(look):
                return self.snapshots.at_hand(look, self.now) is not None
            case AskTurn() | TakeWriteSlot():
                return self._looked(WriteSlot(max((self.budget_free - self.cloud.now).total_seconds(), 0.0)))
            case AskJobs(job_ids):
                return self._looked(self._trouble() or {job_id: self.cloud.job(job_id) for job_id in job_ids})
            case InspectServers(pool, server_ids):
                nodes = {i: node.uid for i, node in self.cloud.nodes.items()}
                return self._looked(self.cloud.inventory.read(server_ids, self.now, pool.node_pool_id, nodes))
            case ReadCluster():
                found = self.snapshots.at_hand(effect, self.now)
                self._waits = found is None
                return self._looked(found or Awaited())
        return None

    def _looked(self, answer: T) -> T:
        self._pass(Boundary.LOOKED)
        return answer

    def _trouble(self) -> Trouble | None:
        return Trouble(Reason.CLOUD_UNREACHABLE, "no route to the cloud") if self.unreachable else None

    def _call(self, membership: Membership, intent: Batch) -> Answer:
        signed_at = intent.submit_time
        assert signed_at is not None, "an intent without submitTime"
        if (reason := too_late(signed_at, self.now)) is not None:
            return NotSent(reason)
        dies = self.interruptions.get(Boundary.CALLED) == self._die
        if intent.operation is Operation.REMOVE:
            return self.cloud.remove(intent.node_ids, signed_at, answer_arrives=not dies)
        slack = timedelta(seconds=self.stored.jumped)
        self.cloud.inventory.check(intent.server_ids, membership.spec, self.cloud.now, slack)
        return self.cloud.add(intent.server_ids, signed_at, answer_arrives=not dies)

    # The API server

    def _store(self, membership: Membership, status: Status) -> str:
        check_status(membership, status)
        note(status)
        version = self.stored.write_status(membership.metadata.resource_version, status)
        assert self.stored.read().status == status, "a status does not read back as it was written"
        return version

    def _finalizers(self, meta: Metadata, finalizers: tuple[str, ...]) -> str:
        version = self.stored.write_finalizers(meta.resource_version, list(finalizers))
        assert self._known is not None, "a write before the read"
        known = replace(meta, resource_version=version, finalizers=finalizers)
        self._known = replace(self._known, metadata=known)
        return version

    def _check_release(self) -> None:
        self._decide_again()
        membership = self._known
        assert membership is not None, "a write before the read"
        if membership.status.open_batches:
            limit = SETTINGS.settle_window + timedelta(seconds=membership.spec.join_timeout_seconds)
            assert membership.metadata.deletion_timestamp is not None, "the finalizer was taken off with an open batch"
            slack = timedelta(seconds=self.stored.jumped)
            assert self.now + slack >= membership.metadata.deletion_timestamp + limit, "let go too early"
            # Nobody knows of its jobs any more: what is assumed of an add without a job holds from now on.
            self.cloud.forget_answers()

    def _intended(self, membership: Membership, intent: Batch) -> None:
        self._called = True
        self.intents.append(intent)
        check_words(membership, intent, self.stored.covered, self.cloud.template.digest)
        if intent.operation is Operation.REMOVE and not membership.metadata.deleting:
            for server in intent.server_ids:
                off = self.cloud.now - self.stored.listed_until[server]
                slack = timedelta(seconds=self.stored.jumped)
                assert off + slack >= SETTINGS.removal_delay, f"removed {off} after it left the list (P18)"
        self._pass(Boundary.INTENDED)
