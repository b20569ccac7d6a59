"""Finding the servers that a refused call is about: by the ids that the error names, else by halving (rule P15).

Not for: which refusals are about servers (`catalogue`), or sending the parts (`plan`). The write that records a refusal
is the split, so the state of the search survives a crash at any point.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import dropwhile, islice
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.plan import next_number
from nodepool_membership.core.state import State

SINGLES: Final = 3
"""So many single servers refused with one text, and none accepted in between, say that it is not about servers."""

_AGAIN: Final = "again: "
"""Begins what a batch says of a server that was refused by itself with the same text before."""
_NOT_BLAMED: Final = "the pool refused it: "

_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def named(text: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Those of `ids` that the text names, in either case; an id that is not among them means nothing."""
    mentioned = {found.lower() for found in _ID.findall(text)}
    return tuple(server_id for server_id in ids if server_id in mentioned)


def was_refused_last(state: State, text: str) -> bool:
    """Whether the newest call that was answered was refused with this text."""
    answered = (b for b in reversed(state.batches) if b.phase not in {Phase.QUEUED, Phase.WITHDRAWN} and not b.is_open)
    return any(b.phase is Phase.REFUSED and b.message == text for b in islice(answered, 1))


def narrow(state: State, intent: Batch, said: str, cause: Cause, now: datetime) -> State:
    """Close a batch that was refused for a cause about servers: blame those found, queue the rest in parts.

    `said` is the cloud's text with its ids, `cause` what a culprit is recorded with.
    """
    ids = intent.server_ids
    culprits = ids if len(ids) == 1 else named(said, ids)
    alone = len(ids) == 1 and cause.reason is not FailureReason.SERVER_IN_USE
    again = alone and ids[0] in _blamed(state, cause)
    message = plain_text(_AGAIN + cause.message) if again else cause.message
    closed = replace(intent, phase=Phase.REFUSED, server_ids=(), finish_time=now, message=message)
    state = state.with_batch(closed).with_causes((server_id, cause) for server_id in culprits)
    rest = [server_id for server_id in ids if server_id not in set(culprits)]
    if culprits:
        parts = [rest] if rest else []
    else:
        # The second half gets the lower number: the part with the highest number is sent first, depth first.
        half = (len(rest) + 1) // 2
        parts = [rest[half:], rest[:half]]
    for part in parts:
        state = _queue(state, intent.attempt, part)
    return _unless_about_the_pool(state, cause) if alone and not again else state


def _queue(state: State, attempt: int, ids: Sequence[str]) -> State:
    number = next_number(state)
    part = Batch(
        batch=number,
        operation=Operation.ADD,
        attempt=attempt,
        phase=Phase.QUEUED,
        servers=len(ids),
        server_ids=tuple(ids),
    )
    return replace(state, last_batch=number).with_batch(part)


def _blamed(state: State, cause: Cause) -> dict[str, Cause]:
    """Servers that are recorded with the same reason and text, however often it happened."""
    return {i: c for i, c in state.book.items() if (c.reason, c.message) == (cause.reason, cause.message)}


def _unless_about_the_pool(state: State, cause: Cause) -> State:
    """Blame nobody when single servers are refused one after the other with the same text.

    One that was refused by itself before is known to be bad: that it is refused again says nothing about the pool.
    """
    blamed = _blamed(state, cause)
    # Those of an earlier run were given back: after an edit or a reset it takes as many again.
    run = min(len(blamed), _singles_in_a_row(state, cause.message))
    if run < SINGLES:
        return _with_probe(state) if run == SINGLES - 1 else state
    if not state.queued and _accepted_in_search(state, cause.message):
        # The last ones of the search: there was nobody left to tell them from the pool by, but those who joined.
        return state
    before = {
        i: replace(c, attempts=c.attempts - 1, message=plain_text(_NOT_BLAMED + c.message))
        for i, c in blamed.items()
        if c.attempts > 1
    }
    state = state.without_queued().without_causes(blamed).with_causes(before.items())
    return replace(state, halt=Reason.POOL_REFUSES)


def _with_probe(state: State) -> State:
    """Have a server from elsewhere tried next: bad ones may be neighbours, which says nothing about the pool."""
    part = max(state.queued, key=lambda queued: queued.servers, default=None)
    if part is None or part.servers == 1:
        return state
    rest = replace(part, servers=part.servers - 1, server_ids=part.server_ids[:-1])
    return _queue(state.with_batch(rest), part.attempt, part.server_ids[-1:])


def _accepted_in_search(state: State, text: str) -> bool:
    """Whether a call was accepted after one was refused with this text."""
    adds = [b for b in state.batches if b.operation is Operation.ADD and b.phase not in {Phase.QUEUED, Phase.WITHDRAWN}]
    search = dropwhile(lambda batch: batch.phase is not Phase.REFUSED or batch.message != text, adds)
    return any(batch.phase is not Phase.REFUSED for batch in search)


def _singles_in_a_row(state: State, text: str) -> int:
    run = 0
    for batch in reversed(state.batches):
        if batch.operation is not Operation.ADD or batch.phase in {Phase.QUEUED, Phase.WITHDRAWN}:
            continue
        if batch.phase is not Phase.REFUSED:
            break
        run += batch.servers == 1 and batch.message == text
    return run


def in_doubt(state: State, now: datetime) -> State:
    """Parts whose servers show in the node list: the refusal was not atomic, so what became of them is unknown."""
    for part in state.queued:
        text = "the refused call seems to have been carried out in part; looking for the servers in the node list"
        state = state.with_batch(replace(part, phase=Phase.VERIFYING, submit_time=now, message=text))
    return state
