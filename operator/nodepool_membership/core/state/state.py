"""A membership's durable knowledge in the form decisions work on: sets, and one entry per server.

Not for: rules. It converts from and to `Status`, answers what is live, and counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy, Spec
from nodepool_membership.api.status import (
    ApprovedPlan,
    Batch,
    Failure,
    Finding,
    Halt,
    Hold,
    Operation,
    Phase,
    Recovery,
    Search,
    Status,
    Wait,
)
from nodepool_membership.core.state.failures import MAX_GROUPS, Cause, Failures, causes_of, fold, shortened, unfold

KEPT_FINISHED: Final = 10
BYTES_PER_ID: Final = 40
ROOM_FOR_CALLED: Final = 1_000_000
"""Bytes of an object up to which finished batches keep the ids that they named."""
MAX_HOLDS: Final = 16
"""Groups of `status.holds`; where there are more moments than that, the older ones are merged to the later."""
_UNKNOWN: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """Why no add may name a server that is in no open batch: see `api.status.Hold`."""

    since: datetime | None = None
    mass: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Members are those recorded (rule P19). A server in an open batch may still stand in `failures`."""

    members: frozenset[str]
    failures: Failures
    batches: tuple[Batch, ...]
    holds: Mapping[str, Held]
    """Servers in no open batch that no add may name yet (rule P8)."""
    last_batch: int
    last_job_id: str | None = None
    waits: Mapping[Operation, Wait] = field(default_factory=dict)
    halt: Halt | None = None
    recovery: Recovery | None = None
    search: Search | None = None
    findings: tuple[Finding, ...] = ()
    proven_template: str | None = None
    """A server joined by a call that was made after the pool's template was read so (rule P28)."""
    approved: ApprovedPlan | None = None
    surplus: frozenset[str] = frozenset()
    """Recorded members that are to be removed (rule P18): off the list, or on deletion also those on it."""
    surplus_since: datetime | None = None
    removal_policy: RemovalPolicy = RemovalPolicy.RETAIN
    """`spec.removalPolicy` as it was when what is recorded was last held against the spec."""

    @staticmethod
    def of(status: Status) -> "State":
        return State(
            members=frozenset(status.members),
            failures=causes_of(status),
            batches=status.jobs,
            holds=_held(status.holds),
            last_batch=status.last_batch or 0,
            last_job_id=status.last_job_id,
            waits={wait.operation: wait for wait in status.waits},
            halt=status.halt,
            recovery=status.recovery,
            search=status.search,
            findings=status.findings,
            proven_template=status.proven_template,
            approved=status.approved_plan,
            surplus_since=status.surplus_since,
            removal_policy=status.observed_removal_policy or RemovalPolicy.RETAIN,
        )

    @property
    def open_batches(self) -> tuple[Batch, ...]:
        return tuple(b for b in self.batches if b.is_open)

    @property
    def queued(self) -> tuple[Batch, ...]:
        """Parts of a refused batch that are still to be sent."""
        return tuple(b for b in self.batches if b.phase is Phase.QUEUED)

    @property
    def joining(self) -> frozenset[str]:
        """Servers that an add may still act on and that are no members yet."""
        return self.adding - self.members

    @property
    def adding(self) -> frozenset[str]:
        """Servers that an add may still act on; members are among them while their job is overdue."""
        return self._in_open(Operation.ADD)

    @property
    def removing(self) -> frozenset[str]:
        """Servers that a removal may still act on: neither members nor eligible (rule P18)."""
        return self._in_open(Operation.REMOVE)

    @property
    def called(self) -> frozenset[str]:
        """Servers for which a call is live, whatever it does."""
        return self.adding | self.removing

    @property
    def live(self) -> frozenset[str]:
        """The ledger: no add names one of these (rule P1)."""
        return self.called.union(self.holds)

    @property
    def vanished(self) -> frozenset[str]:
        """Recorded members whose node is gone."""
        return frozenset(i for i, held in self.holds.items() if held.since is not None and i in self.members)

    def _in_open(self, operation: Operation) -> frozenset[str]:
        return frozenset(i for b in self.batches if b.is_open and b.operation is operation for i in b.server_ids)

    def without_queued(self) -> "State":
        """Drop the parts that are still to be sent: their servers are unplanned again."""
        return replace(self, batches=tuple(b for b in self.batches if b.phase is not Phase.QUEUED))

    def attempts(self, server_id: str) -> int:
        cause = self.failures.get(server_id)
        return 0 if cause is None else cause.attempts

    def with_batch(self, batch: Batch) -> "State":
        """Replace the batch of the same number, or append a new one; what is open holds its servers by itself."""
        others = {b.batch: b for b in self.batches}
        others[batch.batch] = batch
        state = self.without_holds(batch.server_ids) if batch.is_open else self
        return replace(state, batches=tuple(others[number] for number in sorted(others)))

    def with_causes(self, causes: Iterable[tuple[str, Cause]]) -> "State":
        return replace(self, failures={**self.failures, **dict(causes)})

    def without_causes(self, ids: Iterable[str]) -> "State":
        gone = set(ids) & self.failures.keys()
        return replace(self, failures={i: c for i, c in self.failures.items() if i not in gone}) if gone else self

    def with_holds(self, holds: Mapping[str, Held]) -> "State":
        return replace(self, holds={**self.holds, **holds}) if holds else self

    def without_holds(self, ids: Iterable[str]) -> "State":
        gone = set(ids) & self.holds.keys()
        return replace(self, holds={i: held for i, held in self.holds.items() if i not in gone}) if gone else self

    def with_wait(self, wait: Wait) -> "State":
        return replace(self, waits={**self.waits, wait.operation: wait})

    def without_waits(self, *operations: Operation) -> "State":
        kept = {operation: wait for operation, wait in self.waits.items() if operation not in operations}
        return replace(self, waits=kept) if len(kept) < len(self.waits) else self

    def waits_until(self, operation: Operation, now: datetime) -> Wait | None:
        """Why the next call of this kind waits, if it still does."""
        wait = self.waits.get(operation)
        return wait if wait is not None and wait.until > now else None

    def recovers(self, now: datetime) -> bool:
        """Whether a lost status is being waited out (rule P2)."""
        return self.recovery is not None and self.recovery.until > now

    def pardoned(self) -> "State":
        """Lift the halt: what failed so far no longer counts for the next one (rules P26, P28)."""
        canary = self.halt is not None and self.halt.reason is Reason.CANARY_FAILED
        batches = tuple(_pardoned(b, canary=canary and b.template != self.proven_template) for b in self.batches)
        search = None if self.search is None else replace(self.search, singles=0, in_a_row=0)
        return replace(self, halt=None, batches=batches, search=search)


def _pardoned(batch: Batch, *, canary: bool) -> Batch:
    """`canary`: a person has answered for all of it, whatever is still to come."""
    all_of_it = batch.phase is Phase.FAILED or (canary and batch.is_open)
    answered = batch.servers if all_of_it and batch.operation is Operation.ADD else batch.failed or 0
    return replace(batch, pardoned=answered) if answered > (batch.pardoned or 0) else batch


def ended(batch: Batch) -> datetime:
    """When a finished batch ended; where that is not known, before all others."""
    return batch.finish_time or _UNKNOWN


def finished(batches: Iterable[Batch]) -> list[Batch]:
    """Those that are over, in the order in which they ended: a batch may end long after later ones."""
    over = (b for b in batches if not b.is_open and b.phase is not Phase.QUEUED)
    return sorted(over, key=lambda batch: (ended(batch), batch.batch))


def without_old(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """All but those that ended before the newest finished ones: what is stored of them.

    A decision drops none before it is complete: a brake must see each batch that it has ended, however many (P26).
    """
    dropped = {b.batch for b in finished(batches)[:-KEPT_FINISHED]}
    return tuple(b for b in batches if b.batch not in dropped) if dropped else batches


@dataclass(frozen=True, slots=True)
class Counts:
    """Every desired id in exactly one place: desired = joined + joining + failed + pending (rule P25)."""

    desired: int
    joined: int
    joining: int
    failed: int
    pending: int


def count(spec: Spec, state: State) -> Counts:
    """Count the desired ids; an open batch outranks a failure, a failure outranks a record."""
    desired = spec.server_ids
    joining = desired & state.joining
    failed, troubled = set[str](), set[str]()
    for server_id, cause in state.failures.items():
        if server_id in desired and server_id not in joining:
            (failed if cause.is_final(spec.max_attempts) else troubled).add(server_id)
    joined = desired & state.members
    if joining or failed or troubled:
        joined = joined - joining - failed - troubled
    rest = len(desired) - len(joined) - len(joining) - len(failed)
    return Counts(len(desired), len(joined), len(joining), len(failed), rest)


def to_status(status: Status, spec: Spec, state: State, object_bytes: int = 0) -> Status:
    """The status that stores `state`; conditions, generation and answered requests stay the caller's.

    `object_bytes`: how large the object is now. It says for how many finished batches, and how often, ids are kept.
    """
    failures = fold(state.failures) if state.failures or status.failures else ()
    if len(failures) == MAX_GROUPS:
        # Servers that were folded together count as what they are now stored as.
        state = replace(state, failures=unfold(failures))
    counts = count(spec, state)
    recorded = state.members if state.surplus <= state.members else state.members | state.surplus
    same_members = len(status.members) == len(recorded) and recorded.issuperset(status.members)
    members = status.members if same_members else tuple(sorted(recorded))
    holds = _grouped(state.holds)
    grown = object_bytes + BYTES_PER_ID * (_ids(members, holds, failures) - _ids(*_listed(status)))
    if without_called(grown, status.jobs) > ROOM_FOR_CALLED:
        failures = shortened(failures, holds, recorded)
    leaving = state.surplus or any(b.is_open and b.operation is Operation.REMOVE for b in state.batches)
    return replace(
        status,
        observed_removal_policy=state.removal_policy,
        desired=counts.desired,
        joined=counts.joined,
        joining=counts.joining,
        failed=counts.failed,
        pending=counts.pending,
        surplus=len(state.surplus),
        last_batch=state.last_batch,
        last_job_id=state.last_job_id,
        jobs=_with_called(status, without_old(state.batches), grown),
        holds=holds,
        members=members,
        failures=failures,
        halt=state.halt,
        waits=tuple(state.waits[operation] for operation in sorted(state.waits)),
        recovery=state.recovery,
        search=state.search,
        findings=state.findings,
        proven_template=state.proven_template,
        approved_plan=state.approved,
        surplus_since=state.surplus_since if leaving else None,
    )


def _listed(status: Status) -> tuple[tuple[str, ...], tuple[Hold, ...], tuple[Failure, ...]]:
    return status.members, status.holds, status.failures


def _ids(members: tuple[str, ...], holds: Iterable[Hold], failures: Iterable[Failure]) -> int:
    """How many ids these lists store."""
    lists = (members, *(hold.server_ids for hold in holds), *(group.server_ids for group in failures))
    return sum(len(ids) for ids in lists)


def without_called(object_bytes: int, batches: Iterable[Batch]) -> int:
    """The bytes of an object less those of ids that finished batches keep: they make room for all else."""
    return object_bytes - BYTES_PER_ID * sum(len(batch.called_ids) for batch in batches)


def _with_called(status: Status, batches: tuple[Batch, ...], object_bytes: int) -> tuple[Batch, ...]:
    """Batches of which something is over, with whom they named: the newest, as many as there is room for."""
    before = {batch.batch: batch for batch in status.jobs}
    room = (ROOM_FOR_CALLED - without_called(object_bytes, status.jobs)) // BYTES_PER_ID
    told = []
    for batch in reversed(batches):
        known = before.get(batch.batch)
        called = batch.called_ids
        if known is not None and not called and len(batch.server_ids) < len(known.server_ids) == known.servers:
            called = known.server_ids
        room -= len(called)
        called = called if room >= 0 else ()
        told.append(batch if called == batch.called_ids else replace(batch, called_ids=called))
    return tuple(reversed(told))


def _held(holds: Iterable[Hold]) -> dict[str, Held]:
    found: dict[str, Held] = {}
    for hold in holds:
        found.update(dict.fromkeys(hold.server_ids, Held(hold.since, bool(hold.mass))))
    return found


def _grouped(holds: Mapping[str, Held]) -> tuple[Hold, ...]:
    groups: defaultdict[Held, list[str]] = defaultdict(list)
    for server_id, held in holds.items():
        groups[held].append(server_id)
    timed = sorted((held.since, held.mass, ids) for held, ids in groups.items() if held.since is not None)
    while len(timed) > MAX_HOLDS:
        # The later moment, and a reset, are the safe ones.
        (_, one, oldest), (moment, other, ids), *rest = timed
        timed = [(moment, one or other, oldest + ids), *rest]
    present = [Hold(tuple(sorted(ids))) for held, ids in groups.items() if held.since is None]
    return (*present, *(Hold(tuple(sorted(ids)), moment, mass or None) for moment, mass, ids in timed))
