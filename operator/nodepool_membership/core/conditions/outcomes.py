"""What became of the servers of each call, told by the change from one status to the next.

For the log, Events and counters. Not for: deciding it (`batches`, `removals`), or words (`events`).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.state.failures import causes_of

JOINED: Final = "Joined"
"""Active in the pool, and recorded."""
RELEASED: Final = "Released"
"""Its add is over; it left the list meanwhile, so nothing more is known of it here."""
REMOVED: Final = "Removed"
"""Its node is gone; the server is REINSTALLED."""
_NOT_DONE: Final = frozenset({Phase.REFUSED, Phase.WITHDRAWN})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some servers of a batch. `result`: one of the words above, a failure's reason, or a phase."""

    batch: Batch
    result: str
    server_ids: tuple[str, ...]


def outcomes(old: Status, new: Status) -> Iterator[Outcome]:
    """One for each batch and result, of the servers whose outcome `new` tells and `old` did not."""
    after = {batch.batch: batch for batch in new.jobs}
    members = frozenset(new.members)
    causes = None
    for before in old.open_batches:
        # One that is not stored any more was displaced by newer ones: it is over.
        known = after.get(before.batch)
        batch = before if known is None else known
        left = frozenset(before.server_ids).difference(() if known is None else known.server_ids)
        if not left:
            continue
        if batch.phase in _NOT_DONE:
            yield Outcome(batch, batch.phase.value, tuple(sorted(left)))
            continue
        causes = causes_of(new) if causes is None else causes
        found: defaultdict[str, list[str]] = defaultdict(list)
        for server_id in sorted(left):
            cause = causes.get(server_id)
            reason = None if cause is None else cause.reason
            found[_result(batch.operation, reason, is_member=server_id in members)].append(server_id)
        for result, ids in sorted(found.items()):
            yield Outcome(batch, result, tuple(ids))


def _result(operation: Operation, reason: FailureReason | None, *, is_member: bool) -> str:
    if operation is Operation.REMOVE:
        return reason.value if reason is FailureReason.REMOVAL_FAILED else RELEASED if is_member else REMOVED
    if reason is not None:
        return reason.value
    return JOINED if is_member else RELEASED


def wiped(old: Status, new: Status) -> int:
    """How many servers are known to have been wiped by `new`, and were not by `old`.

    Those of an add that was accepted; where its answer was lost, those that it left with a node.
    """
    before = {batch.batch: batch for batch in old.jobs}
    count = 0
    for batch in new.jobs:
        known = before.get(batch.batch)
        if batch.operation is Operation.ADD and batch.job_id and (known is None or not known.job_id):
            count += batch.servers
    unseen = {FailureReason.NEVER_APPEARED.value, RELEASED, *_NOT_DONE}
    for outcome in outcomes(old, new):
        if outcome.batch.operation is Operation.ADD and not outcome.batch.job_id and outcome.result not in unseen:
            adopted = (outcome.batch.adopted or 0) - (before[outcome.batch.batch].adopted or 0)
            count += len(outcome.server_ids) - (adopted if outcome.result == JOINED else 0)
    return count


def removed(old: Status, new: Status) -> int:
    """How many servers are known to have been removed, and so reinstalled, by `new`, and were not by `old`."""
    return sum(len(outcome.server_ids) for outcome in outcomes(old, new) if outcome.result == REMOVED)
