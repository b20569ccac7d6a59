"""Finding the servers that a refused call is about: by the ids that the error names, else by halving; and whether it is
about servers at all, by asking for a few of them alone (rule P15).

Not for: which refusals are about servers (`catalogue`), or sending the parts (`eligibility`). The write that records a
refusal is the split, so the state of the search survives a crash at any point.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import digest, plain_text
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Halt, Operation, Phase, Search
from nodepool_membership.core.planning.eligibility import next_number
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.state import State

SINGLES: Final = 3
"""So many single servers refused with one text, and none accepted in between, say that it is not about servers."""

_TAKEN_APART: Final = 16
"""Of so many named servers it is found out one by one which clash only with one another; of more, one is spared."""
_SEVERAL: Final = re.compile(r"<id>(?:(?:[\s,;]|and)+<id>)+")
"""Several ids, as `plain_text` leaves them."""
_DIGITS: Final = re.compile(r"\d+")
_NOT_BLAMED: Final = "the node pool refused it, and two others all alone with the same words: it is about the pool"
_KEPT_BLAMED: Final = 200

_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def named(text: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Those of `ids` that the text names, in either case; an id that is not among them means nothing."""
    mentioned = {found.lower() for found in _ID.findall(text)}
    return tuple(server_id for server_id in ids if server_id in mentioned)


def fingerprint(text: str) -> str:
    """What stands for a text of the cloud: equal marks, equal texts but for ids and figures, as of a quota."""
    return digest(_DIGITS.sub("0", _SEVERAL.sub("<id>", plain_text(text))))


def was_refused_last(state: State, refusal: str) -> bool:
    """Whether the newest call that was answered was refused so."""
    return state.search is not None and state.search.refusal == refusal and state.search.in_a_row > 0


def refused(state: State, intent: Batch, refusal: str, *, several: bool = False) -> State:
    """Note that a call was refused so; `several`: it named more than one of its servers."""
    search = state.search
    if search is None or search.refusal != refusal:
        search = Search(refusal)
    if not intent.part:
        # A new search: that a part of an earlier one was accepted says nothing about it.
        search = replace(search, accepted=False)
    return replace(state, search=replace(search, in_a_row=search.in_a_row + 1, named=search.named or several))


def accepted(state: State, intent: Batch) -> State:
    """Note that an add was accepted: it is not the pool that refuses."""
    if state.search is None:
        return state
    told = state.search.accepted or bool(intent.part)
    return replace(state, search=replace(state.search, in_a_row=0, singles=0, accepted=told))


def narrow(state: State, intent: Batch, said: str, cause: Cause, refusal: str, now: datetime) -> State:
    """Close a batch that was refused for a cause about servers: blame those found, queue the rest in parts.

    `said` is the cloud's text with its ids, `cause` what a culprit is recorded with, `refusal` the mark of its text.
    """
    ids = intent.server_ids
    found = named(said, ids)
    state = refused(state, intent, refusal, several=len(found) > 1)
    culprits, parts = _sorted_out(ids, ids if len(ids) == 1 else found, cause)
    state = _closed(state, intent, cause, now).with_causes((server_id, cause) for server_id in culprits)
    for part in parts:
        state = _queue(state, intent.attempt, part)
    told = bool(found) and state.search is not None and state.search.named
    if len(ids) > 1 or told or cause.reason is FailureReason.SERVER_IN_USE:
        return state
    return _unless_about_the_pool(state, ids[0], now)


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


def ask(state: State, intent: Batch, said: str, cause: Cause, refusal: str, now: datetime) -> State | None:
    """Close a batch that was refused for a cause of which it is not known whether it is about one server or about all.

    A few servers are asked for alone. None if it is about all, as far as can be told: they were all refused with this
    text, or nobody is left to tell them from.
    """
    ids = intent.server_ids
    asked = refused(state, intent, refusal)
    search = asked.search
    if search is None:
        raise ValueError("a refusal was noted")
    if len(ids) > 1 and (search.accepted or named(said, ids)):
        return narrow(state, intent, said, cause, refusal, now)
    asked = _closed(asked, intent, cause, now)
    if len(ids) == 1:
        singles = search.singles + 1
        about_all = singles >= SINGLES if asked.queued else not search.accepted
        asked = replace(asked, search=replace(search, singles=singles))
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
    return replace(state.without_queued(), search=None), {**causes, **dict.fromkeys(intent.server_ids, cause)}


def _closed(state: State, intent: Batch, cause: Cause, now: datetime) -> State:
    ids = intent.server_ids
    closed = replace(intent, phase=Phase.REFUSED, server_ids=(), called_ids=ids, finish_time=now, message=cause.message)
    return state.with_batch(closed)


def _queue(state: State, attempt: int, ids: Sequence[str]) -> State:
    number = next_number(state)
    part = Batch(
        batch=number,
        operation=Operation.ADD,
        attempt=attempt,
        phase=Phase.QUEUED,
        servers=len(ids),
        server_ids=tuple(ids),
        part=True,
    )
    return replace(state, last_batch=number).with_batch(part)


def _unless_about_the_pool(state: State, server_id: str, now: datetime) -> State:
    """Blame nobody when single servers are refused one after the other with the same text.

    One that was refused by itself before is known to be bad: that it is refused again says nothing about the pool.
    """
    search = state.search
    if search is None or server_id in search.server_ids:
        return state
    blamed = (*search.server_ids, server_id)[-_KEPT_BLAMED:]
    search = replace(search, singles=search.singles + 1, server_ids=blamed)
    state = replace(state, search=search)
    if search.singles < SINGLES:
        return _with_probe(state) if search.singles == SINGLES - 1 else state
    if not state.queued and search.accepted:
        # The last ones of the search: there was nobody left to tell them from the pool by, but those who joined.
        return state
    run = frozenset(blamed[-search.singles :])
    causes = [(i, c) for i, c in state.failures.items() if i in run]
    before = {
        i: replace(c, attempts=c.attempts - 1, message=_NOT_BLAMED, retry_at=None) for i, c in causes if c.attempts > 1
    }
    state = state.without_queued().without_causes(run).with_causes(before.items())
    kept = tuple(i for i in blamed if i not in run)
    text = (
        f"{search.singles} single servers in a row were refused with one and the same text, so it is about the pool,"
        " not about them: see the messages in status.jobs"
    )
    halt = Halt(Reason.POOL_REFUSES, text, now)
    return replace(state, halt=halt, search=replace(search, singles=0, server_ids=kept))


def _with_probe(state: State) -> State:
    """Have a server from elsewhere tried next: bad ones may be neighbours, which says nothing about the pool."""
    part = max(state.queued, key=lambda queued: queued.servers, default=None)
    if part is None or part.servers == 1:
        return state
    rest = replace(part, servers=part.servers - 1, server_ids=part.server_ids[:-1])
    return _queue(state.with_batch(rest), part.attempt, part.server_ids[-1:])


def in_doubt(state: State, now: datetime) -> State:
    """Parts whose servers show in the node list: the refusal was not atomic, so what became of them is unknown."""
    for part in state.queued:
        text = "the refused call seems to have been carried out in part; looking for the servers in the node list"
        state = state.with_batch(replace(part, phase=Phase.VERIFYING, submit_time=now, message=text))
    return state
