"""Which membership claims which server, over all namespaces, pools and clusters of the process (rule P16).

Not for: reading objects, or what a conflict means for a membership (`core.rivals`). One event loop, no locks: a method
is one step, and `reserve` checks and reserves in one.

A claim takes 8 bytes, for 10 million ids are claimed at the largest size: 46 bits of the id's hash, the slot of the
membership, and the strength of its claim, in one of many sorted arrays, which stands for 10 more bits of the hash.
Two of 10 million different ids look alike with a probability of 1 in 1,400 (2^-56 a pair; the hash is keyed anew in
every process): then a server is held back, never sent twice, until one of them is off its list.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.core.rivals import Rival, Rivals
from nodepool_membership.runtime.queue import Key

_BUCKET_BITS: Final = 10
_SLOT_BITS: Final = 16
_STRENGTH_BITS: Final = 2
_HASH_BITS: Final = 64 - _SLOT_BITS - _STRENGTH_BITS
_BUCKETS: Final = 1 << _BUCKET_BITS
_FULL: Final = 500
"""Claims per array, on average, before there is one array more. Arrays that only grow would leave holes in memory."""
_SLOTS: Final = 1 << _SLOT_BITS
_SWEPT_AT_ONCE: Final = 512
"""Buckets; so few that a step stays short at the largest size, so many that little of what is over stays."""


class Strength(IntEnum):
    """How strong a claim is; of equals the older membership has the right."""

    LISTED = 0
    HELD = 1
    """An earlier call may still act on it: nobody else may add it, but who finds it Active may record it."""
    MEMBER = 2
    OPEN = 3
    """Named by a batch that may take effect, or possibly by one that nobody can know of."""


_LINGERING: Final = frozenset({Strength.HELD, Strength.OPEN})
"""What stays claimed for a while after its object is gone."""


@dataclass(frozen=True, slots=True)
class _Named:
    """What one membership claims. `sure` is False where a batch may be open that the status does not show."""

    listed: frozenset[str]
    members: tuple[str, ...]
    open: frozenset[str]
    held: frozenset[str]
    sure: bool

    @staticmethod
    def of(found: Membership | UnreadableStatus, now: datetime) -> "_Named":
        if isinstance(found, UnreadableStatus):
            return _Named(found.spec.server_ids, (), frozenset(), frozenset(), sure=False)
        status = found.status
        lost = status.last_batch is None and FINALIZER in found.metadata.finalizers
        waits = status.recovery is not None and status.recovery.until > now
        called, held = _open_ids(found), frozenset(i for hold in status.holds for i in hold.server_ids)
        return _Named(found.spec.server_ids, status.members, called, held, sure=not lost and not waits)

    @property
    def digest(self) -> int:
        # Equal digests are taken for equal claims: a copy of the ids would cost ten times what the index does.
        return hash((self.listed, self.members, self.open, self.held, self.sure))

    def strengths(self, ids: Iterable[str]) -> Iterable[tuple[str, Strength | None]]:
        members = frozenset(self.members)
        for server_id in ids:
            if server_id in self.open or (not self.sure and server_id in self.listed):
                yield server_id, Strength.OPEN
            elif server_id in members:
                yield server_id, Strength.MEMBER
            elif server_id in self.held:
                yield server_id, Strength.HELD
            else:
                yield server_id, Strength.LISTED if server_id in self.listed else None

    def changed_from(self, old: "_Named") -> Set[str]:
        """Ids that two statuses of one spec claim differently."""
        same = self.members == old.members
        members: set[str] = set() if same else set(self.members).symmetric_difference(old.members)
        return members | (self.open ^ old.open) | (self.held ^ old.held)


def _open_ids(membership: Membership) -> frozenset[str]:
    return frozenset(i for batch in membership.status.open_batches for i in batch.server_ids)


@dataclass(slots=True)
class _Slot:
    """A membership's place in the index; one whose claims were read anew, or that is gone, gets `over`."""

    key: Key
    uid: str
    created: datetime
    digest: int
    reserved: frozenset[str] = frozenset()
    """Ids of an intent, until a status that holds them is stored or read."""
    contested: bool = False
    """Another slot may claim one of its ids. Most never are, and cost nothing after they were read."""
    over: datetime | None = None
    """Its claims count no more; from this moment on not even those of its open batches do."""

    @property
    def age(self) -> tuple[datetime, str]:
        return self.created, self.uid


@dataclass(slots=True)
class _Sweep:
    """One walk over all buckets that takes out the claims of some slots."""

    numbers: frozenset[int] = frozenset()
    next: int = 0


class Claims:
    """The index. `wake` is called with a membership that waits for servers which another may have let go.

    `linger` is how long the ids of open batches stay claimed whose record was lost: with its object, or by an edit.
    """

    def __init__(self, wake: Callable[[Key], None], linger: timedelta, *, now: Callable[[], datetime]) -> None:
        self._wake = wake
        self._linger = linger
        self._now = now
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        self._claims = 0
        self._slots: dict[int, _Slot] = {}
        self._numbers: dict[Key, int] = {}
        self._waiting: set[int] = set()
        self._over: set[int] = set()
        self._sweep = _Sweep()
        self._last = -1

    def note(self, found: Membership | UnreadableStatus) -> None:
        """Take over what a membership claims, as it was just read; one that is unchanged costs next to nothing.

        Raises:
            OverflowError: more than 65,535 memberships.
        """
        named = _Named.of(found, self._now())
        number, slot = self._find(found)
        if slot is None or number is None or slot.digest != named.digest:
            self._index(found, named)
        else:
            self._change(number, slot, named, slot.reserved)
        self._sweep_some()

    def stored(self, old: Membership, new: Membership) -> None:
        """Take over what a status write has changed; `old` is what it was made from."""
        now = self._now()
        before, after = _Named.of(old, now), _Named.of(new, now)
        number, slot = self._find(new)
        if slot is None or number is None or slot.digest != before.digest or before.sure is not after.sure:
            self._index(new, after)
        else:
            self._change(number, slot, after, after.changed_from(before) | slot.reserved)

    def drop(self, key: Key) -> None:
        """The object is gone: its claims are, too, but for the ids of batches that were open."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._end(number, self._now() + self._linger)
        self._sweep_some()

    def rivals(self, membership: Membership) -> Rivals:
        """Every server of this membership that another one claims."""
        number, slot = self._find(membership)
        if number is None or slot is None or not slot.contested:
            return {}
        found: dict[str, Rival] = {}
        known: dict[Rival, Rival] = {}
        now = self._now()
        for server_id in membership.spec.server_ids.union(membership.status.members, membership.status.live_ids):
            rival = self._rival(number, slot, server_id, now)
            if rival is not None:
                found[server_id] = known.setdefault(rival, rival)
        slot.contested = bool(found)
        if any(rival.better for rival in found.values()):
            self._waiting.add(number)
        else:
            self._waiting.discard(number)
        return found

    def reserve(self, membership: Membership, intent: Batch) -> bool:
        """Claim the intent's servers as named by an open batch; False, and nothing is, if one of them is another's.

        A removal is refused also where another merely names the server (rule P18).
        """
        number, slot = self._find(membership)
        if number is None or slot is None:
            return False
        now = self._now()
        for server_id in intent.server_ids if slot.contested else ():
            rival = self._rival(number, slot, server_id, now)
            if rival is not None and (rival.better or intent.operation is Operation.REMOVE):
                return False
        slot.reserved |= frozenset(intent.server_ids)
        for server_id in intent.server_ids:
            self._set(number, server_id, Strength.OPEN)
        return True

    def __len__(self) -> int:
        """Claims held, those not swept yet included."""
        return self._claims

    def _find(self, found: Membership | UnreadableStatus) -> tuple[int | None, _Slot | None]:
        meta = found.metadata
        number = self._numbers.get((meta.namespace, meta.name))
        slot = None if number is None else self._slots[number]
        return (number, slot) if slot is not None and slot.uid == meta.uid else (None, None)

    def _index(self, found: Membership | UnreadableStatus, named: _Named) -> None:
        """Claim everything anew in a slot of its own: which ids the one before it claims, nobody remembers."""
        meta = found.metadata
        key = (meta.namespace, meta.name)
        before = self._numbers.get(key)
        if before is not None:
            same = self._slots[before].uid == meta.uid
            self._end(before, self._now() if same and named.sure else self._now() + self._linger)
        number = self._free_number()
        self._slots[number] = _Slot(key, meta.uid, meta.creation_timestamp, named.digest)
        self._numbers[key] = number
        for server_id, strength in named.strengths(named.listed.union(named.members, named.open, named.held)):
            self._set(number, server_id, strength)

    def _change(self, number: int, slot: _Slot, named: _Named, ids: Set[str]) -> None:
        if not ids:
            return
        slot.digest, slot.reserved = named.digest, frozenset()
        for server_id, strength in named.strengths(ids):
            if self._set(number, server_id, strength) and slot.contested:
                self._wake_those_who_claim(server_id)

    def _free_number(self) -> int:
        for offset in range(1, _SLOTS + 1):
            number = (self._last + offset) % _SLOTS
            if number not in self._slots:
                self._last = number
                return number
        raise OverflowError(
            f"more than {_SLOTS - 1} memberships: give each of several operators a part of them with --namespace"
        )

    def _end(self, number: int, over: datetime) -> None:
        slot = self._slots[number]
        slot.over = over
        self._over.add(number)
        self._waiting.discard(number)
        if slot.contested:
            # Which ids it lets go is not known, so everybody who waits for one looks again.
            for other in self._waiting:
                self._wake(self._slots[other].key)

    def _place(self, server_id: str) -> tuple["array[int]", int]:
        """The bucket of an id, and its entry there but for slot and strength."""
        digest = hash(server_id)
        # Linear hashing: as many low bits as there are arrays for, one less where that array is not made yet.
        index = digest & (1 << (len(self._buckets) - 1).bit_length()) - 1
        if index >= len(self._buckets):
            index &= (1 << index.bit_length() - 1) - 1
        kept = digest >> _BUCKET_BITS & (1 << _HASH_BITS) - 1
        return self._buckets[index], kept << _SLOT_BITS + _STRENGTH_BITS

    def _grow(self) -> None:
        """Make one array more, out of the one whose claims it is to share."""
        high = 1 << len(self._buckets).bit_length() - 1
        index = len(self._buckets) - high
        mark = high >> _BUCKET_BITS << _SLOT_BITS + _STRENGTH_BITS
        old = self._buckets[index]
        self._buckets[index] = array("Q", [entry for entry in old if not entry & mark])
        self._buckets.append(array("Q", [entry for entry in old if entry & mark]))

    def _set(self, number: int, server_id: str, strength: Strength | None) -> bool:
        """Claim an id, or give it up; whether the claim became weaker."""
        bucket, base = self._place(server_id)
        entry = base | number << _STRENGTH_BITS
        at = bisect_left(bucket, entry)
        if at < len(bucket) and bucket[at] >> _STRENGTH_BITS == entry >> _STRENGTH_BITS:
            was = bucket[at] & (1 << _STRENGTH_BITS) - 1
            if strength is None:
                del bucket[at]
                self._claims -= 1
                return True
            bucket[at] = entry | strength
            return strength < was
        if strength is not None:
            self._flag(bucket, base, at, number)
            bucket.insert(at, entry | strength)
            self._claims += 1
            if self._claims > _FULL * len(self._buckets):
                self._grow()
        return False

    def _flag(self, bucket: "array[int]", base: int, at: int, number: int) -> None:
        """Mark a slot as contested, and the one that it shares an id with; of more than one all are marked already."""
        for other, entry in self._run(bucket, base, at):
            slot = self._slots[other]
            if slot.over is None or Strength(entry & (1 << _STRENGTH_BITS) - 1) in _LINGERING:
                self._slots[number].contested = slot.contested = True
                if slot.over is None:
                    return

    def _run(self, bucket: "array[int]", base: int, at: int) -> Iterable[tuple[int, int]]:
        """Slots and entries of one id, those before `at` first, backwards, then the others."""
        end = base + (1 << _SLOT_BITS + _STRENGTH_BITS)
        low = at
        while low > 0 and bucket[low - 1] >= base:
            low -= 1
            yield bucket[low] >> _STRENGTH_BITS & _SLOTS - 1, bucket[low]
        while at < len(bucket) and bucket[at] < end:
            yield bucket[at] >> _STRENGTH_BITS & _SLOTS - 1, bucket[at]
            at += 1

    def _rival(self, number: int, slot: _Slot, server_id: str, now: datetime) -> Rival | None:
        bucket, base = self._place(server_id)
        mine, best, rival = Strength.LISTED, Strength.LISTED, None
        for other, entry in self._run(bucket, base, bisect_left(bucket, base)):
            strength = Strength(entry & (1 << _STRENGTH_BITS) - 1)
            if other == number:
                mine = strength
                continue
            candidate = self._slots[other]
            if candidate.over is not None and (
                strength not in _LINGERING or candidate.over <= now or candidate.uid == slot.uid
            ):
                continue
            if rival is None or strength > best or (strength == best and candidate.age < rival.age):
                rival, best = candidate, strength
        if rival is None:
            return None
        better = best > mine or (best == mine and rival.age < slot.age)
        recorded, holds = best is Strength.MEMBER, best is Strength.HELD
        return Rival("/".join(rival.key), better, recorded=recorded, holds=holds)

    def _wake_those_who_claim(self, server_id: str) -> None:
        bucket, base = self._place(server_id)
        for other, _ in self._run(bucket, base, bisect_left(bucket, base)):
            if other in self._waiting:
                self._wake(self._slots[other].key)

    def _sweep_some(self) -> None:
        """Take the claims of slots that are over out of the next few buckets; their numbers are free after a walk."""
        sweep = self._sweep
        if not sweep.numbers:
            now = self._now()
            over = frozenset(n for n in self._over if (slot := self._slots[n]).over is not None and slot.over <= now)
            if not over:
                return
            self._sweep = sweep = _Sweep(over)
        last = min(sweep.next + _SWEPT_AT_ONCE, len(self._buckets))
        for index in range(sweep.next, last):
            bucket = self._buckets[index]
            kept = [entry for entry in bucket if entry >> _STRENGTH_BITS & _SLOTS - 1 not in sweep.numbers]
            if len(kept) < len(bucket):
                self._claims -= len(bucket) - len(kept)
                self._buckets[index] = array("Q", kept)
        sweep.next = last
        if last == len(self._buckets):
            for number in sweep.numbers:
                del self._slots[number]
            self._over -= sweep.numbers
            self._sweep = _Sweep()
