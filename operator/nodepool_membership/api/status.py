"""What the operator knows durably: the `status` of a NodePoolMembership.

Not for: computing it (`core`), or writing it (`kube`). Field meanings: design section 2 and the CRD's descriptions.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from nodepool_membership.api.codec import WIRE, LowerID, Moment
from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason


class Phase(StrEnum):
    """Where a batch is in its life (design section 4)."""

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

    `server_ids` (sorted) is there only while the batch is open or queued; so is `node_ids`, which a removal has in the
    same order. `finish_time` of a batch in phase Verifying is the moment from which no server of it was on its way any
    more, at the earliest when its job was seen to be over; of a finished one, the moment its outcome was recorded.
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
    finish_time: Moment | None = None
    failed: int | None = None
    """Servers that failed after the call was accepted; None while there are none."""
    message: str | None = None

    def __post_init__(self) -> None:
        if self.operation is Operation.REMOVE and len(self.node_ids) != len(self.server_ids):
            raise ValueError("a removal needs as many nodeIDs as serverIDs")

    @property
    def is_open(self) -> bool:
        return self.phase in OPEN_PHASES


@dataclass(frozen=True, slots=True)
class Failure:
    """Servers that failed for one cause, with the same number of attempts used."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    reason: FailureReason
    message: str
    attempts: int
    count: int
    server_ids: tuple[LowerID, ...]


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
    """A `metav1.Condition`; Ready is always there, Reconciling and Stalled only while True."""

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
    members: tuple[LowerID, ...] = ()
    failures: tuple[Failure, ...] = ()
    surplus_since: Moment | None = None
    next_attempt_time: Moment | None = None
    last_handled_reconcile_at: str | None = None
    last_handled_reset_at: str | None = None

    def condition(self, kind: Literal["Ready", "Reconciling", "Stalled"]) -> Condition | None:
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def open_batches(self) -> tuple[Batch, ...]:
        return tuple(b for b in self.jobs if b.is_open)
