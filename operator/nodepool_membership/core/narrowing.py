"""Finding the servers that a refused call is about: by the ids that the error names, else by halving; and whether it is
about servers at all, by asking for a few of them alone (rule P15).

Not for: which refusals are about servers (`catalogue`), or sending the parts (`plan`). The write that records a refusal
is the split, so the state of the search survives a crash at any point.
"""

import re
import zlib
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

_TAKEN_APART: Final = 16
"""Of so many named servers it is found out one by one which clash only with one another; of more, one is spared."""
_SEVERAL: Final = re.compile(r"<id>(?:(?:[\s,;]|and)+<id>)+")
"""Several ids, as `plain_text` leaves them."""
_DIGITS: Final = re.compile(r"\d+")

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
    found = named(said, ids)
    culprits, parts = _sorted_out(ids, ids if len(ids) == 1 else found, cause)
    alone = len(ids) == 1 and cause.reason is not FailureReason.SERVER_IN_USE
    again = alone and ids[0] in _blamed(state, cause)
    message = plain_text(_AGAIN + cause.message) if again else cause.message
    state = _closed(state, intent, message, now).with_causes((server_id, cause) for server_id in culprits)
    for part in parts:
        state = _queue(state, intent.attempt, part)
    told = found and _was_named_among_others(state, cause.message)
    return _unless_about_the_pool(state, cause) if alone and not again and not told else state


def _was_named_among_others(state: State, text: str) -> bool:
    """Whether a refusal named several servers with what this text says of one: then it is about them, not the pool."""
    return any(
        b.phase is Phase.REFUSED
        and b.servers > 1
        and b.message != text
        and _SEVERAL.sub("<id>", b.message or "") == text
        for b in state.batches
    )


def _sorted_out(ids: Sequence[str], named: Sequence[str], cause: Cause) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Whom to blame, and the parts that are asked for next: the last one first, depth first."""
    rest = [server_id for server_id in ids if server_id not in set(named)]
    if not named:
        return (), _halves(rest)
    if len(named) == 1 or cause.reason is FailureReason.SERVER_IN_USE:
        return named, [rest] if rest else []
    # They may clash with one another only: then the first of them is fit.
    if rest:
        return (), [named[1:], sorted([*rest, named[0]])]
    if len(named) <= _TAKEN_APART:
        return (), _halves(named)
    return named[:-1], [named[-1:]]


def _halves(ids: Sequence[str]) -> list[Sequence[str]]:
    half = (len(ids) + 1) // 2
    return [ids[half:], ids[:half]]


def ask(state: State, intent: Batch, said: str, cause: Cause, now: datetime) -> State | None:
    """Close a batch that was refused for a cause of which it is not known whether it is about one server or about all.

    A few servers are asked for alone. None if it is about all, as far as can be told: they were all refused with this
    text, or nobody is left to tell them from.
    """
    ids, text = intent.server_ids, cause.message
    asked = _closed(state, intent, text, now)
    accepted = _accepted_in_search(asked, text, loosely=True)
    if len(ids) > 1 and (accepted or named(said, ids)):
        return narrow(state, intent, said, cause, now)
    if len(ids) == 1:
        about_all = _singles_in_a_row(asked, text, loosely=True) >= SINGLES if asked.queued else not accepted
        return None if about_all else asked.with_causes([(ids[0], cause)])
    probes = _probes(ids, intent.batch)
    rest = [server_id for server_id in ids if server_id not in set(probes)]
    for part in [rest, *([probe] for probe in probes)]:
        if part:
            asked = _queue(asked, intent.attempt, part)
    return asked


def _probes(ids: Sequence[str], seed: int) -> Sequence[str]:
    """From all over the list, and others each time: bad servers may be neighbours, and stay bad."""
    return sorted(ids, key=lambda server_id: zlib.crc32(f"{seed} {server_id}".encode()))[:SINGLES]


def searched(state: State, intent: Batch, cause: Cause) -> tuple[State, dict[str, Cause]]:
    """End a search that found a refusal to be about all: everybody whom it still was to ask for has the same cause."""
    causes = {i: replace(cause, attempts=part.attempt) for part in state.queued for i in part.server_ids}
    return state.without_queued(), {**causes, **dict.fromkeys(intent.server_ids, cause)}


def _closed(state: State, intent: Batch, message: str, now: datetime) -> State:
    return state.with_batch(replace(intent, phase=Phase.REFUSED, server_ids=(), finish_time=now, message=message))


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


def _is_same(one: str | None, other: str, *, loosely: bool) -> bool:
    """Whether two refusals say the same; `loosely`: whatever figures they give, as of a quota."""
    if one is None or not loosely:
        return one == other
    return _DIGITS.sub("0", one) == _DIGITS.sub("0", other)


def _accepted_in_search(state: State, text: str, *, loosely: bool = False) -> bool:
    """Whether a call was accepted after one was refused with this text."""
    adds = [b for b in state.batches if b.operation is Operation.ADD and b.phase not in {Phase.QUEUED, Phase.WITHDRAWN}]
    search = dropwhile(lambda b: b.phase is not Phase.REFUSED or not _is_same(b.message, text, loosely=loosely), adds)
    return any(batch.phase is not Phase.REFUSED for batch in search)


def _singles_in_a_row(state: State, text: str, *, loosely: bool = False) -> int:
    run = 0
    for batch in reversed(state.batches):
        if batch.operation is not Operation.ADD or batch.phase in {Phase.QUEUED, Phase.WITHDRAWN}:
            continue
        if batch.phase is not Phase.REFUSED:
            break
        run += batch.servers == 1 and _is_same(batch.message, text, loosely=loosely)
    return run


def in_doubt(state: State, now: datetime) -> State:
    """Parts whose servers show in the node list: the refusal was not atomic, so what became of them is unknown."""
    for part in state.queued:
        text = "the refused call seems to have been carried out in part; looking for the servers in the node list"
        state = state.with_batch(replace(part, phase=Phase.VERIFYING, submit_time=now, message=text))
    return state
