"""What the operator knows durably: the `status` of a NodePoolMembership.

Not for: computing it (`core`), or writing it (`kube`). What each field means: the descriptions in the CRD.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from nodepool_membership.api.codec import WIRE, LowerID, Moment
from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.spec import RemovalPolicy


class Phase(StrEnum):
    """Where a batch is in its life (docs/lifecycle.md)."""

    QUEUED = "Queued"
    SUBMITTING = "Submitting"
    RUNNING = "Running"
    VERIFYING = "Verifying"
    SUCCEEDED = "Succeeded"
    PARTLY_FAILED = "PartlyFailed"
    FAILED = "Failed"
    REFUSED = "Refused"
    WITHDRAWN = "Withdrawn"


OPEN_PHASES: Final = frozenset({Phase.SUBMITTING, Phase.RUNNING, Phase.VERIFYING})
"""A batch is open from its intent until its outcome is recorded."""


class Operation(StrEnum):
    """What the batch's one call to the cloud does."""

    ADD = "Add"
    REMOVE = "Remove"


@dataclass(frozen=True, slots=True)
class Batch:
    """One call to the cloud and all that becomes of it.

    `server_ids` (sorted) is there only while the batch is open or queued: the call is *live* for them (rule P8). So is
    `node_ids`, which a removal has in the same order.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    batch: int
    operation: Operation
    attempt: int
    phase: Phase
    servers: int
    job_id: str | None = None
    server_ids: tuple[LowerID, ...] = ()
    node_ids: tuple[LowerID, ...] = ()
    submit_time: Moment | None = None
    settling_since: Moment | None = None
    """Since when its job was seen to be over and none of its servers on its way; None while that is not so."""
    finish_time: Moment | None = None
    """When its outcome was recorded; None while it is open or queued."""
    failed: int | None = None
    """Servers that failed after the call was accepted; None while there are none."""
    pardoned: int | None = None
    """So many of `failed` were answered by an edit or a reset: they no longer count for the brake (rule P26)."""
    adopted: int | None = None
    """Servers whose node was there before the call (rule P10)."""
    foreign: int | None = None
    """Servers whose node was made by a job that is not ours (rule P17)."""
    part: bool | None = None
    """It is a part of a refused batch, in the search for the servers that the refusal is about (rule P15)."""
    released: bool | None = None
    """Of a removal: `spec.removalPolicy` was Retain since the call, so whom it leaves in the pool stays (rule P18)."""
    interrupted: bool | None = None
    """The operator stopped between the intent and the record of its answer."""
    template: str | None = None
    """Of an add: stands for the pool's template as it was read directly before the call (rule P28)."""
    message: str | None = None
    called_ids: tuple[LowerID, ...] = ()
    """Whom the call has named, once some or all of it is over: for people, and to know a canary that joins late (P28).

    The oldest go where the object grows.
    """

    def __post_init__(self) -> None:
        if self.operation is Operation.REMOVE and len(self.node_ids) != len(self.server_ids):
            raise ValueError("a removal needs as many nodeIDs as serverIDs")

    @property
    def is_open(self) -> bool:
        return self.phase in OPEN_PHASES


@dataclass(frozen=True, slots=True)
class Hold:
    """Servers in no open batch that no add may name yet: they have a node that is no member's, or lost one (rule P8).

    `since` is when a complete listing first lacked their nodes, None while they have one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    server_ids: tuple[LowerID, ...]
    since: Moment | None = None
    mass: bool | None = None
    """They are members that were missed while many were gone: only a reset lets them be added again (rule P13)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Servers that failed for one cause, with the same number of attempts used. For people: nothing is safe by it.

    `server_ids` is shorter than `count` where members vanished and the object is large: the holds name them all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    reason: FailureReason
    message: str
    attempts: int
    count: int
    server_ids: tuple[LowerID, ...]
    retry_time: Moment | None = None
    """When they are tried, or judged, again; None where nothing is planned."""
    asked: int | None = None
    """How often in a row they were refused without using up an attempt."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Adds have stopped until an edit of more than `spec.suspend`, or a reset (rules P15, P26)."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    reason: Reason
    message: str
    time: Moment


@dataclass(frozen=True, slots=True)
class Wait:
    """Why the next call of one kind waits, and until when at the latest."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    operation: Operation
    reason: Reason
    message: str
    until: Moment


@dataclass(frozen=True, slots=True)
class Recovery:
    """A status was lost, so calls may be under way that nobody knows of: nothing is called until then (rule P2)."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    since: Moment
    until: Moment


@dataclass(frozen=True, slots=True)
class Search:
    """The search for the servers that a refusal is about (rule P15).

    Equal marks stand for equal texts, but for ids and figures.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    refusal: str
    in_a_row: int = 0
    """Calls refused so one after the other, none accepted in between."""
    singles: int = 0
    """Those of them that named one server which was not known to be bad."""
    accepted: bool = False
    """A part was accepted since the refusal that was split."""
    named: bool = False
    """Such a refusal named several servers: then it is about them."""
    server_ids: tuple[LowerID, ...] = ()
    """Servers that were refused so all alone, at most the newest 200."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done next, by the newest look at the cloud: while suspended, and while approval is awaited."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    id: str
    add: int
    """Servers that would be WIPED, at once or after a wait."""
    calls: int
    adopt: int
    remove: int


@dataclass(frozen=True, slots=True)
class ApprovedPlan:
    """What a person has said yes to, as far as it is still to be done (rule P29).

    It is void when `scope` (the list, a deletion) or `template` is another one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    id: str
    scope: str
    template: str
    server_ids: tuple[LowerID, ...]
    """Servers that may be wiped, and members that may be removed; who becomes a member, or is removed, is taken off."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found and stops nothing: of `count` servers, some of which are named, or (0) of the pool itself."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    reason: FailureReason | FindingReason
    message: str
    count: int
    server_ids: tuple[LowerID, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A `metav1.Condition`; Ready is always there, Reconciling and Stalled only while True. Output: never read back."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    type: Literal["Ready", "Reconciling", "Stalled"]
    status: Literal["True", "False", "Unknown"]
    reason: Reason | FailureReason
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: Moment | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole status. `last_batch` is None until the operator first wrote it (the witness of rule P2)."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    observed_generation: int = -1
    observed_removal_policy: RemovalPolicy | None = None
    observed_spec: str | None = None
    """A digest of the spec last observed, without `suspend`: to stop and go on answers for no failure (P26)."""
    conditions: tuple[Condition, ...] = ()
    desired: int = 0
    joined: int = 0
    joining: int = 0
    failed: int = 0
    pending: int = 0
    surplus: int = 0
    last_batch: int | None = None
    last_job_id: str | None = None
    jobs: tuple[Batch, ...] = ()
    holds: tuple[Hold, ...] = ()
    members: tuple[LowerID, ...] = ()
    failures: tuple[Failure, ...] = ()
    halt: Halt | None = None
    waits: tuple[Wait, ...] = ()
    recovery: Recovery | None = None
    search: Search | None = None
    plan: Plan | None = None
    approved_plan: ApprovedPlan | None = None
    proven_template: str | None = None
    findings: tuple[Finding, ...] = ()
    surplus_since: Moment | None = None
    next_time: Moment | None = None
    """When something next happens by itself, as far as that is known. Output: never read back."""
    last_handled_reconcile_at: str | None = None
    last_handled_reset_at: str | None = None

    @property
    def open_batches(self) -> tuple[Batch, ...]:
        return tuple(b for b in self.jobs if b.is_open)

    @property
    def live_ids(self) -> frozenset[str]:
        """The ledger: servers that an earlier call may still act on, or that have a node which is no member's (P8)."""
        called = frozenset(i for b in self.jobs if b.is_open for i in b.server_ids)
        return called.union(*(hold.server_ids for hold in self.holds)) if self.holds else called
