"""Every effect of a program with the type of its answer, and the errors that may be thrown instead of one.

Not for: the order (`reconcile`, `observer`, `calling`). An interpreter performs one effect after another. What it holds
for a program (credentials, a place in the write budget) it gives back when the program is over, however it ends.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

from nodepool_membership.api.membership import Membership, Metadata, UnreadableStatus
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import NodePoolRef, PreflightMode
from nodepool_membership.api.status import Batch, Condition, Status
from nodepool_membership.core.decision.decide import Decision
from nodepool_membership.core.decision.record import Answer
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    Freshness,
    JobReport,
    NamespaceState,
    NodeTable,
    Observation,
    PoolReport,
    Trouble,
)
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.preflight.facts import Inspection
from nodepool_membership.core.program.memory import Memory
from nodepool_membership.core.state.ledger import Ledger

Key: TypeAlias = tuple[str, str]
"""Namespace and name."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class StoreError(Exception):
    """The API server did not do what was asked, or may not have."""


class ConflictError(StoreError):
    """The object changed since it was read. Nothing was written."""


class NoAnswerError(StoreError):
    """Whether a write took effect is unknown."""


class Effect(Generic[T_co]):
    """Something that is done outside of the program; it answers a `T_co`: `answer = yield from AnEffect(...)`."""

    __slots__ = ()

    def __iter__(self) -> "Program[T_co]":
        answer: T_co = yield self
        return answer


class ProcessEffect(Effect[T_co]):
    """About the process itself: its clock, its memory, its lease."""

    __slots__ = ()


class ObjectEffect(Effect[T_co]):
    """About the object on the API server. May raise a `StoreError`."""

    __slots__ = ()


class CloudEffect(Effect[T_co]):
    """About the cloud: what keeps us from an answer is an answer."""

    __slots__ = ()


class OutputEffect(Effect[None]):
    """People are told something; nothing is decided from it."""

    __slots__ = ()


# `Any`: a generator takes answers of all types; `Effect.__iter__` is the one place where they get theirs back.
Program: TypeAlias = Generator[Effect[object], Any, T]


@dataclass(frozen=True, slots=True)
class RecallLedger(ProcessEffect[Ledger | None]):
    """What the process remembers of the calls of an object; None: nothing."""

    key: Key


@dataclass(frozen=True, slots=True)
class KeepLedger(ProcessEffect[None]):
    """Remember the calls of an object as they stand in its status now."""

    key: Key
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Now(ProcessEffect[datetime]):
    """The time by the clock of the process; aware."""


@dataclass(frozen=True, slots=True)
class Sleep(ProcessEffect[None]):
    seconds: float


@dataclass(frozen=True, slots=True)
class Forget(ProcessEffect[None]):
    """The object is gone: so is what was remembered of it. What it had open stays claimed for a while."""

    key: Key


@dataclass(frozen=True, slots=True)
class TakeOver(ProcessEffect[Memory]):
    """Take over what an object that was just read says to all memberships: its claims, and the calls it made."""

    found: Membership | UnreadableStatus


@dataclass(frozen=True, slots=True)
class WaitForOthers(ProcessEffect[float | None]):
    """Seconds until the others have been read once since the start, at most; None: the work need not wait."""

    key: Key


@dataclass(frozen=True, slots=True)
class Remember(ProcessEffect[None]):
    key: Key
    memory: Memory


@dataclass(frozen=True, slots=True)
class CredentialsTried(ProcessEffect[None]):
    """The credentials of a membership were tried; `saw`: they have read its cluster and its pool (rule P16)."""

    membership: Membership
    saw: bool


@dataclass(frozen=True, slots=True)
class FindRivals(ProcessEffect[Rivals | Trouble | None]):
    """The servers of a membership that others claim, too; None while not all were read once (rule P16).

    A trouble: there is no room for its claims, so that it may not call.
    """

    membership: Membership


@dataclass(frozen=True, slots=True)
class Reserve(ProcessEffect[bool]):
    """Claim the servers of an intent that is about to be stored (rule P16).

    False: one of them is another's by now, or was when the nodes were `listed`: what became of it there, that listing
    does not show.
    """

    membership: Membership
    intent: Batch
    listed: datetime


@dataclass(frozen=True, slots=True)
class AskLease(ProcessEffect[bool]):
    """Whether this process may call (rule P22)."""


@dataclass(frozen=True, slots=True)
class Doubt(ProcessEffect[None]):
    """Take no further refusal by this node pool for certain: one was carried out in part (rule P15)."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class IsDoubted(ProcessEffect[bool]):
    pool: NodePoolRef


@dataclass(frozen=True, slots=True)
class Shield(ProcessEffect[None]):
    """From here to the end of the program nothing but the end of the process interrupts it (rule P9).

    `answer` is the one to record, where it is known without a call.
    """

    membership: Membership
    intent: Batch
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class ReadObject(ObjectEffect[Membership | UnreadableStatus | None]):
    """Read the object as it is now; None: there is none."""

    key: Key


@dataclass(frozen=True, slots=True)
class FindNaming(ObjectEffect[Key | None]):
    """Another membership that names one of these servers, among those that changed since they were read (rule P18).

    What it names, the claims do not know yet: its read waits for its turn, or its last look is still under way.
    """

    key: Key
    server_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadNamespaceState(ObjectEffect[NamespaceState]):
    """Whether what the object lives in is there to stay (rule P20)."""

    namespace: str


@dataclass(frozen=True, slots=True)
class WriteStatus(ObjectEffect[str]):
    """Store a status that differs from the one that was read, guarded; answers the new resourceVersion (rule P3)."""

    membership: Membership
    status: Status


@dataclass(frozen=True, slots=True)
class WriteConditions(ObjectEffect[str]):
    """Store conditions beside a status that cannot be understood, and nothing else (rule P24)."""

    metadata: Metadata
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AddFinalizer(ObjectEffect[str]):
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class RemoveFinalizer(ObjectEffect[str]):
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Connect(CloudEffect[Trouble | None]):
    """Get the credentials and the endpoint for all further effects; answers what keeps us from it.

    `fresh`: read the Secret in any case. After a look that failed it may have been the cause, and may be repaired.
    """

    membership: Membership
    fresh: bool


@dataclass(frozen=True, slots=True)
class AskJobs(CloudEffect[Mapping[str, JobReport] | Trouble]):
    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What a snapshot of a cluster shows to one of its memberships."""

    listing: NodeTable
    pool: PoolReport
    cluster: ClusterReport
    clock_offset_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """There is no such snapshot yet. It is ordered; the key is worked again when it is there, or cannot be had."""


@dataclass(frozen=True, slots=True)
class ReadCluster(CloudEffect[ClusterView | Trouble | Awaited]):
    """See a snapshot, where a fresh one is wanted one that began at or after `read_at`."""

    key: Key
    pool: NodePoolRef
    freshness: Freshness
    read_at: datetime


@dataclass(frozen=True, slots=True)
class InspectServers(CloudEffect[Inspection]):
    """Read servers before a call names them; what cannot be read is in the answer."""

    pool: NodePoolRef
    server_ids: frozenset[str]
    subnets: frozenset[str]
    """Of the pool, by the ids that its template has."""
    mode: PreflightMode
    turbo: bool = False
    """Their flavors are to be read, too."""


@dataclass(frozen=True, slots=True)
class IsAtHand(CloudEffect[bool]):
    """Whether such a look is answered at once."""

    look: ReadCluster


@dataclass(frozen=True, slots=True)
class WriteSlot:
    """What the write budget says: a place is held for the program if `wait` is 0, in seconds."""

    wait: float
    held_back: Reason | None = None
    """Why nobody may write: Throttled or Locked."""


@dataclass(frozen=True, slots=True)
class TakeWriteSlot(CloudEffect[WriteSlot]):
    membership: Membership


@dataclass(frozen=True, slots=True)
class AskTurn(CloudEffect[WriteSlot]):
    """How long it takes until there may be a place; none is taken."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class Call(CloudEffect[Answer]):
    """Send the call of a stored intent, once, if that may still be (rules P5, P6)."""

    membership: Membership
    intent: Batch


class LogText(StrEnum):
    """What is worth a line in the log."""

    LEASE_LOST = "no intent is stored: the lease is lost"
    NAMED_MEANWHILE = "nothing is removed: another membership names a server of the plan by now"
    TAKEN_MEANWHILE = "another membership has taken a server of the plan meanwhile"
    CHANGED_MEANWHILE = "the object changed meanwhile, reading again"
    NOT_STORED_YET = "the answer to a call is not stored yet"
    NOT_READ_YET = "the object cannot be read"
    KEPT_NOWHERE = "the object is gone, the answer to its call is kept nowhere"
    RELEASED_UNREADABLE = "released with a status that cannot be understood"
    BEHIND = "the status lacks calls that were stored in it: it was lost, or an older one was restored"
    UNREADABLE = "the status cannot be understood"
    GIVEN_UP = "a status that cannot be understood was given up"


@dataclass(frozen=True, slots=True)
class WriteLog(OutputEffect):
    remark: LogText
    key: Key
    batch: Batch | None = None
    detail: object = None


@dataclass(frozen=True, slots=True)
class TellDecided(OutputEffect):
    """A decision was made, `now` by whole seconds; nothing of it is stored yet."""

    membership: Membership
    decision: Decision
    seen: Observation
    now: datetime


@dataclass(frozen=True, slots=True)
class TellStored(OutputEffect):
    """A status was stored: Events tell what is new in it."""

    before: Membership
    after: Membership


@dataclass(frozen=True, slots=True)
class TellWithheld(OutputEffect):
    """Removals that are owed no more, because another membership names the servers, are stored as such."""

    membership: Membership
    withheld: Rivals


@dataclass(frozen=True, slots=True)
class TellReleased(OutputEffect):
    """A deleted object is about to be let go; what it leaves behind goes into the log (rules P19, P20)."""

    membership: Membership
    status: Status
    seen: Observation
