"""A membership's durable knowledge in the form decisions work on: sets and one cause per failed server.

Not for: rules. It converts from and to `Status` and counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.failures import MAX_GROUPS, Book, Cause, fold, unfold

KEPT_FINISHED: Final = 10
_UNKNOWN: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class State:
    """Members are those recorded (rule P19); a server in an open batch may still stand in `book` with its attempts."""

    members: frozenset[str]
    book: Book
    batches: tuple[Batch, ...]
    last_batch: int
    last_job_id: str | None
    next_attempt: datetime | None
    owed: frozenset[str] = frozenset()
    """Recorded members that are to be removed (rule P18): off the list, or on deletion also those on it."""
    surplus_since: datetime | None = None
    halt: Reason | None = None
    """Why no further add starts until a spec change or a reset (rules P15, P26)."""

    @staticmethod
    def of(status: Status) -> "State":
        return State(
            members=frozenset(status.members),
            book=unfold(status.failures),
            batches=status.jobs,
            last_batch=status.last_batch or 0,
            last_job_id=status.last_job_id,
            next_attempt=status.next_attempt_time,
            surplus_since=status.surplus_since,
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
        """Servers named by an add that may still take effect."""
        return self._in_open(Operation.ADD)

    @property
    def removing(self) -> frozenset[str]:
        """Servers named by a removal that may still take effect: neither members nor eligible (rule P18)."""
        return self._in_open(Operation.REMOVE)

    @property
    def engaged(self) -> frozenset[str]:
        """Servers in an open batch, whatever it does."""
        return self.joining | self.removing

    def _in_open(self, operation: Operation) -> frozenset[str]:
        return frozenset(i for b in self.batches if b.is_open and b.operation is operation for i in b.server_ids)

    def without_queued(self) -> "State":
        """Drop the parts that are still to be sent: their servers are unplanned again."""
        return replace(self, batches=tuple(b for b in self.batches if b.phase is not Phase.QUEUED))

    def attempts(self, server_id: str) -> int:
        cause = self.book.get(server_id)
        return 0 if cause is None else cause.attempts

    def with_batch(self, batch: Batch) -> "State":
        """Replace the batch of the same number, or append a new one."""
        others = {b.batch: b for b in self.batches}
        others[batch.batch] = batch
        return replace(self, batches=tuple(others[number] for number in sorted(others)))

    def with_causes(self, causes: Iterable[tuple[str, Cause]]) -> "State":
        return replace(self, book={**self.book, **dict(causes)})

    def without_causes(self, ids: Iterable[str]) -> "State":
        gone = set(ids) & self.book.keys()
        return self if not gone else replace(self, book={i: c for i, c in self.book.items() if i not in gone})


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
    failed = {i for i, c in state.book.items() if i in desired and i not in joining and c.is_final(spec.max_attempts)}
    joined = (desired & state.members) - joining - failed if joining or failed else desired & state.members
    rest = len(desired) - len(joined) - len(joining) - len(failed)
    return Counts(len(desired), len(joined), len(joining), len(failed), rest)


def to_status(status: Status, spec: Spec, state: State) -> Status:
    """The status that stores `state`; conditions, generation and answered requests stay the caller's."""
    failures = fold(state.book) if state.book or status.failures else ()
    if len(failures) == MAX_GROUPS:
        # Servers that were folded together count as what they are now stored as.
        state = replace(state, book=unfold(failures))
    counts = count(spec, state)
    recorded = state.members if state.owed <= state.members else state.members | state.owed
    same_members = len(status.members) == len(recorded) and recorded.issuperset(status.members)
    leaving = state.owed or any(b.is_open and b.operation is Operation.REMOVE for b in state.batches)
    return replace(
        status,
        desired=counts.desired,
        joined=counts.joined,
        joining=counts.joining,
        failed=counts.failed,
        pending=counts.pending,
        surplus=len(state.owed),
        last_batch=state.last_batch,
        last_job_id=state.last_job_id,
        jobs=without_old(state.batches),
        members=status.members if same_members else tuple(sorted(recorded)),
        failures=failures,
        surplus_since=state.surplus_since if leaving else None,
        next_attempt_time=state.next_attempt,
    )
