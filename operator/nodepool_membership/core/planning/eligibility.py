"""Which servers an add may name next, and whether it fits: rules P1, P3, P4, P12.

Not for: what became of earlier batches (`batches`), or what else must be so before a call (`gates`).
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.names import MAX_JOBS, MAX_OBJECT_BYTES
from nodepool_membership.api.reasons import PREFLIGHT
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.observed.observation import NodeTable
from nodepool_membership.core.state.failures import MAX_GROUPS
from nodepool_membership.core.state.state import BYTES_PER_ID, State, without_called, without_old

BYTES_PER_OUTCOME: Final = 2_600
"""A finished batch or a group of failures, with a long message of three bytes a character."""
PARTS_PER_REFUSAL: Final = 2
"""What a refused call adds to the batches beside itself, at most: its halves (rule P15)."""
KEPT_FOR_REMOVALS: Final = 400 * BYTES_PER_ID + 2 * BYTES_PER_OUTCOME
"""Bytes that adds leave free, so that a removal, after which the object is smaller, always fits."""


@dataclass(frozen=True, slots=True)
class Eligible:
    """Servers that may be named in an add call now, all with the same number of attempts behind them."""

    ids: frozenset[str]
    attempt: int
    part: int | None = None
    """The queued batch that they are."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Nothing is eligible now, but failed servers will be at this moment."""

    moment: datetime


def candidates(state: State, spec: Spec) -> frozenset[str]:
    """THE rule of who may be named, but for the listing: listed, no member, in no queued part, and not live (P1)."""
    named = {i for b in state.batches for i in b.server_ids}
    return spec.server_ids - state.members - named - state.holds.keys()


def rests(server_id: str, state: State, resting: Set[str]) -> bool:
    """Whether the server was read and not sent a short while ago, and nobody has asked to look at it again."""
    cause = state.failures.get(server_id) if server_id in resting else None
    return cause is not None and cause.reason in PREFLIGHT and cause.retry_at is None


def may_come(server_id: str, state: State, spec: Spec) -> bool:
    """Whether one that is free may be sent sooner or later without anything else happening to it."""
    return state.attempts(server_id) < spec.max_attempts


def eligible(
    state: State, spec: Spec, table: NodeTable, now: datetime, resting: Set[str] = frozenset()
) -> Eligible | RetryAt | None:
    """Apply rule P1 to a complete listing begun after the object was read; fresh servers come before retries.

    `resting`: servers that were read and not sent a short while ago.
    """
    free = candidates(state, spec)
    absent = free - table.present(free)
    fresh, in_use = set[str](), list[tuple[datetime, str]]()
    retries: dict[int, set[str]] = {}
    waits: list[datetime] = []
    for server_id in absent:
        cause = state.failures.get(server_id)
        if cause is None:
            fresh.add(server_id)
        elif cause.attempts >= spec.max_attempts or rests(server_id, state, resting):
            continue
        elif cause.retry_at is not None and cause.retry_at > now:
            waits.append(cause.retry_at)
        elif cause.asked:
            in_use.append((cause.retry_at or now, server_id))
        else:
            retries.setdefault(cause.attempts, set()).add(server_id)
    if fresh:
        return Eligible(frozenset(fresh), 1)
    if retries:
        fewest = min(retries)
        return Eligible(frozenset(retries[fewest]), fewest + 1)
    if in_use:
        # Known to be in use elsewhere: with others in one call it would keep them out again.
        one = min(in_use)[1]
        return Eligible(frozenset({one}), state.attempts(one) + 1)
    return RetryAt(min(waits)) if waits else None


def shows(parts: Iterable[Batch], table: NodeTable, pool_id: str) -> bool:
    """Whether a server of a refused batch has a node after all. One in another pool is somebody else's work."""
    ids = table.present({server_id for part in parts for server_id in part.server_ids})
    return any(node.pool_id in {pool_id, ""} for node in table.nodes(ids).values())


def without_idle_parts(state: State, spec: Spec, resting: Set[str] = frozenset()) -> State:
    """Drop queued parts of which nothing is left to send (rule P7: an edit during the wait is honoured)."""
    idle = {part.batch for part in state.queued if not _sendable(part, state, spec, resting)}
    return replace(state, batches=tuple(b for b in state.batches if b.batch not in idle)) if idle else state


def _sendable(part: Batch, state: State, spec: Spec, resting: Set[str]) -> frozenset[str]:
    """Those of a queued part that may still be named: listed, fit, no members, not live (rule P1)."""
    free = (spec.server_ids & frozenset(part.server_ids)) - state.live - state.members
    return frozenset(i for i in free if may_come(i, state, spec) and not rests(i, state, resting))


def next_part(state: State, spec: Spec, resting: Set[str] = frozenset()) -> Eligible | None:
    """The queued part that is sent next, depth first; a listing has shown that none of its servers has a node."""
    if not state.queued:
        return None
    part = state.queued[-1]
    return Eligible(_sendable(part, state, spec, resting), part.attempt, part.batch)


def fits(object_bytes: int, state: State, servers: int, *, spare: int = 0) -> bool:
    """Whether the object still fits with the worst outcome of every open batch and one more of so many servers (P4).

    An add may have a server in the holds and, with what its job said, among the failures; a removal names its node.
    """
    texts = len(state.open_batches) + 1 + MAX_GROUPS
    ids = 2 * servers + sum(len(batch.server_ids) for batch in state.open_batches)
    worst = without_called(object_bytes, state.batches) + BYTES_PER_ID * ids + BYTES_PER_OUTCOME * texts
    return worst + spare <= MAX_OBJECT_BYTES


def has_room(state: State) -> bool:
    """Whether one more batch can be listed even if every call without an answer is refused and cut in two (rule P4).

    Only in two: parts are asked about again, each before its own call.
    """
    unanswered = 1 + sum(1 for b in state.open_batches if b.job_id is None and b.settling_since is None)
    return len(without_old(state.batches)) + 1 + PARTS_PER_REFUSAL * unanswered <= MAX_JOBS


def next_number(state: State) -> int:
    """The number of the next batch. After a lost status one may have been recorded without the counter (rule P2)."""
    return max(state.last_batch, *(b.batch for b in state.batches), 0) + 1


def intend(state: State, chosen: Eligible, ids: Iterable[str], now: datetime, template: str) -> tuple[State, Batch]:
    """The intent to add those of the chosen, all with the same attempt number; `now` is its date."""
    ids = sorted(ids)
    number = next_number(state)
    # What is left of a queued part is unplanned.
    state = replace(state, batches=tuple(b for b in state.batches if b.batch != chosen.part))
    batch = Batch(
        batch=number,
        operation=Operation.ADD,
        attempt=chosen.attempt,
        phase=Phase.SUBMITTING,
        servers=len(ids),
        server_ids=tuple(ids),
        submit_time=now,
        part=True if chosen.part is not None else None,
        template=template,
    )
    return replace(state, last_batch=number).without_waits(Operation.ADD).with_batch(batch), batch
