"""What a process of the operator remembers of claims, as a value that can be kept and compared.

Not for: what is done with it (`process`).
"""

import pickle
from array import array
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from explore.objects import EPOCH, Object
from explore.world import Process
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.claims.index import Index

SETTLE_WINDOW: Final = Settings().settle_window


def fresh(objects: tuple[Object, ...], skew: int = 0) -> Process:
    """A process that has just started."""
    there = frozenset(i for i, o in enumerate(objects) if o.there)
    empty = Claims(lambda _: None, SETTLE_WINDOW, now=lambda: EPOCH)
    # A thousand empty arrays, which the size of a real index needs, take longer to pack than all else here.
    empty._index._buckets = [array("Q")]
    nothing = (None,) * len(objects)
    return Process(there, nothing, nothing, packed(empty), skew=skew, noted=nothing)


def packed(claims: Claims) -> bytes:
    """Claims as a value."""
    index = {name: value for name, value in vars(claims._index).items() if name != "_shared"}
    rest = {name: value for name, value in vars(claims).items() if name not in {"_wake", "_now", "_index"}}
    return pickle.dumps((rest, index))


def unpacked(blob: bytes, now: Callable[[], datetime]) -> Claims:
    """Claims from their value, with a clock."""
    claims, index = Claims.__new__(Claims), Index.__new__(Index)
    known, claimed = pickle.loads(blob)  # noqa: S301 - this process packed it itself
    vars(index).update(claimed, _shared=claims._flag)
    vars(claims).update(known, _wake=lambda _: None, _now=now, _index=index)
    return claims


@lru_cache(maxsize=200_000)
def _claims_without_time(blob: bytes) -> tuple[Any, tuple[int, ...], tuple[datetime | None, ...]]:
    claims = unpacked(blob, lambda: EPOCH)
    slots = sorted(claims._slots.items(), key=lambda item: (item[1].key, item[1].uid, item[1].over or EPOCH))
    order = {number: index for index, (number, _) in enumerate(slots)}
    buckets = claims._index._buckets
    entries = sorted((entry >> 18, order[entry >> 2 & 0xFFFF], entry & 3) for bucket in buckets for entry in bucket)
    aside = sorted((order[n], sorted(digests)) for kept in claims._aside.values() for n, digests in kept.items())
    told = [
        (
            *(s.key, s.uid, s.digest, sorted(s.reserved), s.contested),
            *(s.live, s.lost, s.called, s.trusted, s.hides, claims._binds(s)),
        )
        for _, s in slots
    ]
    overs = tuple(-1 if s.over is None else int((s.over - EPOCH).total_seconds()) for _, s in slots)
    return (told, entries, aside), overs, (claims._freed, *(s.freed for _, s in slots))


def comparable(process: Process, now: int) -> tuple[object, ...]:
    """The claims of a process in a form that is the same where the same follows."""
    told, overs, freed = _claims_without_time(process.claims)
    begun = EPOCH if process.seen is None else process.seen.begun
    return (
        told,
        [at is not None and at > begun for at in freed],
        [over if over < 0 else max(over - now, 0) for over in overs],
    )
