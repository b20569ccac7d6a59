"""Every server of a membership with what is known of it, in one row.

Not for: what would be done with it (`plan`). Pure. The states of listed servers add up as the counts of the status do.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.state import Held, State

TITLES: Final = ("SERVER", "STATE", "BATCH", "ATTEMPTS", "RETRY", "REASON", "MESSAGE")


class Where(StrEnum):
    """Where a server is."""

    JOINED = "Joined"
    JOINING = "Joining"
    FAILED = "Failed"
    RETRYING = "Retrying"
    QUEUED = "Queued"
    HELD = "Held"
    PENDING = "Pending"
    REMOVING = "Removing"
    SURPLUS = "Surplus"
    UNLISTED = "Unlisted"


@dataclass(frozen=True, slots=True)
class Row:
    """One server. `batch` is the one that names it; `held`, that no add may name it yet."""

    server_id: str
    where: Where
    batch: Batch | None = None
    cause: Cause | None = None
    held: Held | None = None

    def cells(self) -> tuple[str, ...]:
        """For `TITLES`."""
        cause = self.cause
        retry = "" if cause is None or cause.retry_at is None else rfc3339(cause.retry_at)
        return (
            self.server_id,
            str(self.where),
            "" if self.batch is None else str(self.batch.batch),
            "" if cause is None else str(cause.attempts),
            retry,
            "" if cause is None else str(cause.reason),
            self._message(),
        )

    def _message(self) -> str:
        if self.cause is not None:
            return self.cause.message
        if self.batch is not None and self.batch.job_id:
            return f"job {self.batch.job_id}"
        if self.held is not None:
            return "no add names it" + (
                "" if self.held.since is None else f"; its node is gone since {rfc3339(self.held.since)}"
            )
        return ""

    def document(self) -> dict[str, object]:
        """For programs; what is not known is left out."""
        cause, batch = self.cause, self.batch
        found: dict[str, object] = {"serverID": self.server_id, "state": str(self.where)}
        if batch is not None:
            found |= {"batch": batch.batch, "jobID": batch.job_id}
        if cause is not None:
            retry = None if cause.retry_at is None else rfc3339(cause.retry_at)
            found |= {
                "reason": str(cause.reason),
                "message": cause.message,
                "attempts": cause.attempts,
                "retryTime": retry,
            }
        if self.held is not None and self.held.since is not None:
            found["nodeGoneSince"] = rfc3339(self.held.since)
        return {name: value for name, value in found.items() if value is not None}


def rows(membership: Membership, only: Collection[str] = ()) -> Iterator[Row]:
    """A row for every server that the membership lists or knows, or for `only` these; in the order of their ids."""
    status, spec = membership.status, membership.spec
    state = State.of(status)
    batches = {i: b for b in status.jobs if b.is_open or b.phase is Phase.QUEUED for i in b.server_ids}
    known = spec.server_ids.union(state.members, batches, state.failures, state.holds)
    for server_id in sorted(known if not only else {i.lower() for i in only}):
        batch, cause, held = batches.get(server_id), state.failures.get(server_id), state.holds.get(server_id)
        where = _where(server_id, membership, state, batch, cause, held)
        yield Row(server_id, where, batch, cause, held)


def _where(  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
    server_id: str, membership: Membership, state: State, batch: Batch | None, cause: Cause | None, held: Held | None
) -> Where:
    listed, member = server_id in membership.spec.server_ids, server_id in state.members
    is_open = batch is not None and batch.is_open
    if batch is not None and is_open and batch.operation is Operation.REMOVE:
        return Where.REMOVING
    if is_open and not member:
        return Where.JOINING
    if listed and cause is not None:
        return Where.FAILED if cause.is_final(membership.spec.max_attempts) else Where.RETRYING
    if member:
        return Where.JOINED if listed else Where.SURPLUS
    if not listed:
        return Where.UNLISTED
    if batch is not None:
        return Where.QUEUED
    return Where.PENDING if held is None else Where.HELD
