"""Which servers are sent next: eligibility, attempts, retry times and the next intent.

Not for: what became of earlier batches (`batches`). Rules P1, P3, P4, P12.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.names import MAX_JOBS, MAX_OBJECT_BYTES
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.failures import MAX_GROUPS, MAY_HAVE_NODE, Cause
from nodepool_membership.core.observation import NodeTable
from nodepool_membership.core.settings import Settings
from nodepool_membership.core.state import State, without_old

BYTES_PER_ID: Final = 40
BYTES_PER_OUTCOME: Final = 2_600
"""A finished batch or a group of failures, with a long message of three bytes a character."""
PARTS_PER_REFUSAL: Final = 2
"""What a refused call adds to the batches beside itself, at most: its halves (rule P15)."""
MAX_RETRY_WAIT: Final = timedelta(minutes=10)
MAX_SLOW_WAIT: Final = timedelta(hours=1)
_SLOWER: Final = 20


@dataclass(frozen=True, slots=True)
class Eligible:
    """Servers that may be named in an add call now, all with the same number of attempts behind them."""

    ids: frozenset[str]
    attempt: int
    total: int
    """Eligible servers of every attempt."""
    part: int | None = None
    """The queued batch that they are."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Nothing is eligible now, but failed servers will be at this moment."""

    moment: datetime


def candidates(state: State, spec: Spec) -> frozenset[str]:
    """Listed ids that are neither members nor named by a batch that is open or queued."""
    named = {i for b in state.batches for i in b.server_ids}
    free = spec.server_ids - state.members
    return free - named if named else free


def may_come(server_id: str, state: State, spec: Spec) -> bool:
    """Whether one that is free may be sent sooner or later without anything else happening to it."""
    cause = state.book.get(server_id)
    return cause is None or cause.may_be_sent(spec.max_attempts)


def eligible(
    state: State, spec: Spec, table: NodeTable, now: datetime, settings: Settings
) -> Eligible | RetryAt | None:
    """Apply rule P1 to a complete listing begun after the object was read; fresh servers come before retries."""
    free = candidates(state, spec)
    if not free:
        return None
    absent = free - table.present(free)
    fresh = absent - state.book.keys()
    retries: dict[int, set[str]] = {}
    waits: list[datetime] = []
    failed = frozenset[str]() if _is_resumed(state) else absent & state.book.keys()
    for server_id in failed:
        cause = state.book[server_id]
        if not cause.may_be_sent(spec.max_attempts):
            continue
        moment = retry_at(cause, state, now, settings)
        if moment <= now:
            retries.setdefault(cause.attempts, set()).add(server_id)
        else:
            waits.append(moment)
    total = len(fresh) + sum(map(len, retries.values()))
    if fresh:
        return Eligible(frozenset(fresh), 1, total)
    if retries:
        fewest = min(retries)
        return Eligible(frozenset(retries[fewest]), fewest + 1, total)
    return RetryAt(min(waits)) if waits else None


def _is_resumed(state: State) -> bool:
    """Whether an add that is decided in part has servers on their way again: what failures wait from is to come."""
    return any(
        b.operation is Operation.ADD and b.finish_time is None and len(b.server_ids) < b.servers
        for b in state.open_batches
    )


def shows(parts: Iterable[Batch], table: NodeTable, pool_id: str) -> bool:
    """Whether a server of a refused batch has a node after all. One in another pool is somebody else's work."""
    ids = table.present({server_id for part in parts for server_id in part.server_ids})
    return any(node.pool_id in {pool_id, ""} for node in table.nodes(ids).values())


def without_idle_parts(state: State, spec: Spec) -> State:
    """Drop queued parts of which nothing is left to send (rule P7: an edit during the wait is honoured)."""
    idle = {part.batch for part in state.queued if not _sendable(part, state, spec)}
    return replace(state, batches=tuple(b for b in state.batches if b.batch not in idle)) if idle else state


def _sendable(part: Batch, state: State, spec: Spec) -> frozenset[str]:
    """Those of a queued part that may still be named: listed, no members, in no open batch, no node held (rule P1)."""
    free = (spec.server_ids & frozenset(part.server_ids)) - state.engaged - state.members
    return frozenset(server_id for server_id in free if may_come(server_id, state, spec))


def next_part(state: State, spec: Spec) -> Eligible | None:
    """The queued part that is sent next, depth first; a listing has shown that none of its servers has a node."""
    if not state.queued:
        return None
    part = state.queued[-1]
    ids = _sendable(part, state, spec)
    return Eligible(ids, part.attempt, len(ids), part.batch)


def retry_at(cause: Cause, state: State, now: datetime, settings: Settings) -> datetime:
    """When a failed server may be named again, as far as waiting goes."""
    # A batch that is still watched has a finishTime too: the servers decided before the rest wait from then on.
    finished = [min(b.finish_time, now) for b in state.batches if b.finish_time]
    if not finished:
        return now
    # The failed server's own batch may have left the history; those that are kept ended no earlier.
    newest = max(finished)
    # `Other` may stand for a vanished node.
    if cause.reason in {FailureReason.NODE_VANISHED, FailureReason.OTHER}:
        return newest + settings.settle_window
    if cause.reason is FailureReason.SERVER_IN_USE:
        told = sum(b.phase is Phase.REFUSED and b.message == cause.message for b in state.batches)
        return newest + backoff(told, state.last_batch, settings)
    return newest + backoff(cause.attempts, state.last_batch, settings) if cause.attempts else newest


def backoff(failures: int, seed: int, settings: Settings, *, slow: bool = False) -> timedelta:
    """Two poll intervals, doubled with every failure, at most 10 minutes, plus up to a fifth of jitter; whole seconds.

    `slow` waits are 20 times as long, at most an hour: somebody has to do something first. The jitter is drawn from
    `seed` and not from a clock, so that the same decision is the same twice.
    """
    longest = MAX_SLOW_WAIT if slow else MAX_RETRY_WAIT
    poll = settings.poll_interval.total_seconds() * (_SLOWER if slow else 1)
    base = min(poll * 2.0 ** min(max(failures, 1), 16), longest.total_seconds())
    return timedelta(seconds=math.ceil(base * (1 + zlib.crc32(str(seed).encode()) / 2**32 / 5)))


def fits(object_bytes: int, state: State, servers: int) -> bool:
    """Whether the object still fits with the worst outcome of every open batch and one more of so many servers (P4).

    An add may have a server in the batch and, with what its job said, among the failures; a removal names its node.
    """
    texts = len(state.open_batches) + 1 + MAX_GROUPS
    ids = 2 * servers + sum(len(batch.server_ids) for batch in state.open_batches)
    worst = object_bytes + BYTES_PER_ID * ids + BYTES_PER_OUTCOME * texts
    return worst <= MAX_OBJECT_BYTES


def has_room(state: State) -> bool:
    """Whether one more batch can be listed even if every call without an answer is refused and cut in two (rule P4).

    Only in two: parts are asked about again, each before its own call.
    """
    unanswered = 1 + sum(1 for b in state.open_batches if b.job_id is None and b.finish_time is None)
    return len(without_old(state.batches)) + 1 + PARTS_PER_REFUSAL * unanswered <= MAX_JOBS


def next_number(state: State) -> int:
    """The number of the next batch. After a lost status one may have been recorded without the counter (rule P2)."""
    return max(state.last_batch, *(b.batch for b in state.batches), 0) + 1


def intend(state: State, spec: Spec, chosen: Eligible, now: datetime) -> tuple[State, Batch]:
    """The next intent: at most `batchSize` servers, smallest ids first, all with the same attempt number."""
    ids = sorted(chosen.ids)[: spec.batch_size]
    number = next_number(state)
    if chosen.part is not None:
        state = replace(state, batches=tuple(b for b in state.batches if b.batch != chosen.part))
    batch = Batch(
        batch=number,
        operation=Operation.ADD,
        attempt=chosen.attempt,
        phase=Phase.SUBMITTING,
        servers=len(ids),
        server_ids=tuple(ids),
        submit_time=now,
    )
    return replace(state, last_batch=number, next_attempt=None).with_batch(batch), batch


def give_attempts_back(state: State, spec: Spec) -> State:
    """A reset: failed servers on the list start counting anew; what holds a node, or drifted, stays what it is.

    So do members whose removal failed. Other failures are forgotten, since nothing else ever makes room for new ones
    (rule P4), but for those of servers that may have a node (P1) or are in an open batch.
    """
    mine = spec.server_ids | state.owed
    kept = mine | state.engaged
    book = {i: c for i, c in state.book.items() if i in kept or c.reason in MAY_HAVE_NODE}
    return replace(state, book={i: replace(c, attempts=0) if i in mine else c for i, c in book.items()})
