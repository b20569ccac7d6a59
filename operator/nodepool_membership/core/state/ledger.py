"""What a process remembers of the calls of a membership, in case its status is lost or an older one restored (P2).

Not for: what is live by the status (`state`). Whoever starts with nothing in memory knows of a lost status by its
finalizer only, and of an older one not at all.
"""

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.status import Batch, Halt, Recovery, Status
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State


@dataclass(frozen=True, slots=True)
class Ledger:
    """The number of the newest batch, those that are open, and what halts adds."""

    last_batch: int
    open: tuple[Batch, ...]
    halt: Halt | None = None


def ledger_of(status: Status) -> Ledger | None:
    """None while nothing was ever counted."""
    return None if status.last_batch is None else Ledger(status.last_batch, status.open_batches, status.halt)


def is_behind(status: Status, known: Ledger | None) -> bool:
    """Whether a status lacks what was stored in it: only the operator ends batches, and numbers only grow."""
    if known is None:
        return False
    stored = {batch.batch for batch in status.jobs}
    return (status.last_batch or 0) < known.last_batch or any(batch.batch not in stored for batch in known.open)


def regained(membership: Membership, known: Ledger, now: datetime, settings: Settings) -> State:
    """What an older status says, with the calls that are open; other calls are waited out like those of a lost one.

    Who is off the list by now is let go of: the older status does not tell whether that was asked to be removed. A
    server is named once: where another process has called for it again meanwhile, by the call that the status shows.
    What halts adds, halts them still. An approval does not count any more: what came of it is not known.
    """
    state = State.of(membership.status).without_queued()
    members = state.members & membership.spec.server_ids
    state = replace(state, members=members, halt=state.halt or known.halt, approved=None)
    for batch in known.open:
        left = without_servers(batch, {i for b in state.open_batches if b.batch != batch.batch for i in b.server_ids})
        if left.server_ids:
            state = replace(state, members=state.members - set(left.server_ids)).with_batch(left)
    last = max(known.last_batch, state.last_batch)
    return replace(state, last_batch=last, recovery=Recovery(now, now + settings.settle_window))


def without_servers(batch: Batch, ids: Set[str]) -> Batch:
    """The batch without these servers, and without their nodes in a removal."""
    nodes = batch.node_ids or ("",) * len(batch.server_ids)
    left = [(i, node) for i, node in zip(batch.server_ids, nodes, strict=True) if i not in ids]
    server_ids, node_ids = tuple(i for i, _ in left), tuple(node for _, node in left if node)
    return replace(batch, server_ids=server_ids, node_ids=node_ids)
