"""Who claims which ids, and how strongly: 8 bytes a claim, for 10 million ids are claimed at the largest size.

Not for: what a claim means, or who made it (`claims`). An entry is 46 bits of the id's hash, the number of the slot
that claims it, and the strength of its claim, in one of many sorted arrays, which stands for 10 more bits of the hash.

So ids are known by 56 bits of their hash. Two of 10 million different ids look alike with a probability of 1 in 1,400
(2^-56 a pair; the hash is keyed anew in every process): then a server is held back, never sent twice, until one of them
is off its list.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Set
from typing import Final

from nodepool_membership.runtime.claims.claimed import Strength

SLOT_BITS: Final = 16
_BUCKET_BITS: Final = 10
_STRENGTH_BITS: Final = 2
_HASH_BITS: Final = 64 - SLOT_BITS - _STRENGTH_BITS
_KEPT: Final = (1 << _HASH_BITS) - 1
_SAME_ID: Final = 1 << SLOT_BITS + _STRENGTH_BITS
_STRENGTH: Final = (1 << _STRENGTH_BITS) - 1
_SLOT: Final = (1 << SLOT_BITS) - 1
_FULL: Final = 500
"""Claims per array, on average, before there is one array more. Arrays that only grow would leave holes in memory."""

Shared = Callable[[int, Iterable[tuple[int, Strength]]], None]
"""Told of a slot that claims an id, before it does, and of those that claim it already, with their strengths."""


class Index:
    """Claims by the hash of their ids. `shared` is told of each id that is claimed once more."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._buckets = [array("Q") for _ in range(1 << _BUCKET_BITS)]
        self._claims = 0

    def __len__(self) -> int:
        return self._claims

    @property
    def buckets(self) -> int:
        return len(self._buckets)

    def set(self, number: int, digest: int, strength: Strength | None) -> bool:
        """Claim an id, or give it up; whether the claim became weaker."""
        # `_place`, but for its call: most of what the first read of all memberships costs is here.
        buckets = self._buckets
        at = digest & (1 << (len(buckets) - 1).bit_length()) - 1
        if at >= len(buckets):
            at &= (1 << at.bit_length() - 1) - 1
        bucket, base = buckets[at], (digest >> _BUCKET_BITS & _KEPT) << SLOT_BITS + _STRENGTH_BITS
        entry = base | number << _STRENGTH_BITS
        at = bisect_left(bucket, entry)
        following = bucket[at] if at < len(bucket) else -1
        if entry <= following <= entry | _STRENGTH:
            if strength is None:
                del bucket[at]
                self._claims -= 1
                return True
            bucket[at] = entry | strength
            return strength < following & _STRENGTH
        if strength is not None:
            if base <= following < base + _SAME_ID or (at and bucket[at - 1] >= base):
                self._shared(number, self._run(bucket, base, at))
            bucket.insert(at, entry | strength)
            self._claims += 1
            if self._claims > _FULL * len(buckets):
                self._grow()
        return False

    def of(self, digest: int) -> Iterable[tuple[int, Strength]]:
        """Slots that claim an id, and how strongly."""
        bucket, base = self._place(digest)
        return self._run(bucket, base, bisect_left(bucket, base))

    def sweep(self, first: int, last: int, numbers: Set[int]) -> None:
        """Take the claims of some slots out of some buckets."""
        for at in range(first, last):
            bucket = self._buckets[at]
            kept = [entry for entry in bucket if entry >> _STRENGTH_BITS & _SLOT not in numbers]
            if len(kept) < len(bucket):
                self._claims -= len(bucket) - len(kept)
                self._buckets[at] = array("Q", kept)

    def _place(self, digest: int) -> tuple["array[int]", int]:
        """The bucket of an id, and its entry there but for slot and strength."""
        # Linear hashing: as many low bits as there are arrays for, one less where that array is not made yet.
        index = digest & (1 << (len(self._buckets) - 1).bit_length()) - 1
        if index >= len(self._buckets):
            index &= (1 << index.bit_length() - 1) - 1
        return self._buckets[index], (digest >> _BUCKET_BITS & _KEPT) << SLOT_BITS + _STRENGTH_BITS

    def _grow(self) -> None:
        """Make one array more, out of the one whose claims it is to share."""
        high = 1 << len(self._buckets).bit_length() - 1
        index = len(self._buckets) - high
        mark = high >> _BUCKET_BITS << SLOT_BITS + _STRENGTH_BITS
        old = self._buckets[index]
        self._buckets[index] = array("Q", [entry for entry in old if not entry & mark])
        self._buckets.append(array("Q", [entry for entry in old if entry & mark]))

    def _run(self, bucket: "array[int]", base: int, at: int) -> Iterable[tuple[int, Strength]]:
        """Slots and strengths of one id, those before `at` first, backwards, then the others."""
        low = at
        while low > 0 and bucket[low - 1] >= base:
            low -= 1
            yield bucket[low] >> _STRENGTH_BITS & _SLOT, Strength(bucket[low] & _STRENGTH)
        while at < len(bucket) and bucket[at] < base + _SAME_ID:
            yield bucket[at] >> _STRENGTH_BITS & _SLOT, Strength(bucket[at] & _STRENGTH)
            at += 1
