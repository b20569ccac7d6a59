"""Which membership claims which server, over all namespaces, pools and clusters of the process (rule P16).

Not for: reading objects, what one claims (`claimed`), or what a conflict means for a membership
(`core.observed.rivals`). One event loop, no locks: a method is one step, and `reserve` checks and reserves in one.

What the operator has stored (open batches, holds, members) counts against everybody. That an object merely names a
server counts in its own namespace; in others once its credentials have read the pool. A finalizer that tells of a lost
status, which users may write, counts in its own namespace only.

What a membership only lists binds nobody outside its namespace before its credentials have read the pool. So until then
its ids are kept aside (`_aside`), and come into the index when its namespace is looked at: a namespace that lists
hundreds of thousands keeps others waiting no longer than reading them takes.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.core.observed.rivals import Rival, Rivals
from nodepool_membership.core.state.ledger import Ledger, is_behind
from nodepool_membership.runtime.claims.claimed import (
    LINGERING,
    Claimant,
    ClaimedServers,
    NoRoomError,
    Strength,
    has_called,
    source_of,
)
from nodepool_membership.runtime.claims.index import SLOT_BITS, Index
from nodepool_membership.runtime.scheduling.queue import Key

_SLOTS: Final = 1 << SLOT_BITS
_KEPT: Final = _SLOTS // 16
"""Slots that are left for memberships whose calls may still act, whatever else there is."""
_SWEPT_AT_ONCE: Final = 512
"""Buckets; so few that a step stays short at the largest size, so many that little of what is over stays."""
_INDEXED_AT_ONCE: Final = 250
"""Ids; a third of a millisecond, for several workers of a namespace do it at once."""


class Claims:
    """The index. `wake` is called with a membership that waits for servers which another may have let go.

    `linger` is how long the ids of open batches stay claimed whose record was lost: with its object, or by an edit.
    """

    def __init__(self, wake: Callable[[Key], None], linger: timedelta, *, now: Callable[[], datetime]) -> None:
        self._wake = wake
        self._linger = linger
        self._now = now
        self._index = Index(self._flag)
        self._aside: dict[str, dict[int, array[int]]] = {}
        """By namespace and slot: hashes of listed ids that are not in the index yet."""
        self._slots: dict[int, Claimant] = {}
        self._numbers: dict[Key, int] = {}
        self._used: Counter[str] = Counter()
        """Slots by namespace."""
        self._proven: dict[int, bool] = {}
        """By source: whether its credentials have read the pool since the start; what was not tried yet is absent."""
        self._proving: set[str] = set()
        """Namespaces of which a source is proven, or was not long ago."""
        self._waiting: set[int] = set()
        self._over: set[int] = set()
        self._swept: frozenset[int] = frozenset()
        """Those over whose claims are taken out of one bucket after the other."""
        self._bucket = 0
        self._last = -1
        self._freed: datetime | None = None
        """When ids were let go of which nobody remembers which they were."""

    def note(self, found: Membership | UnreadableStatus, known: Ledger | None = None) -> None:
        """Take over what a membership claims, as it was just read; one that is unchanged costs next to nothing.

        `known`: its calls, as the process remembers them, in case its status is lost, older or unreadable.

        Raises:
            NoRoomError: nothing more of it is claimed than before, for there are too many memberships.
        """
        named = ClaimedServers.of(found, self._now(), known)
        number, slot = self._find(found)
        if slot is None or number is None or slot.digest != named.digest:
            told = isinstance(found, Membership) and not is_behind(found.status, known)
            self._claim(found, named, told=told)
        else:
            slot.now_reads_by(source_of(found))
            self._change(number, slot, named, slot.reserved)
        self._sweep_some()

    def stored(self, old: Membership, new: Membership) -> None:
        """Take over what a status write has changed; `old` is what it was made from."""
        now = self._now()
        before, after = ClaimedServers.of(old, now), ClaimedServers.of(new, now)
        number, slot = self._find(new)
        if slot is None or number is None or slot.digest != before.digest or before.lost is not after.lost:
            # Where there is no room, the next read says so; until then what it claimed before is claimed.
            with suppress(NoRoomError):
                self._claim(new, after)
        else:
            self._change(number, slot, after, after.changed_from(before) | slot.reserved)

    def drop(self, key: Key) -> None:
        """The object is gone: its claims are, too, but for the ids of batches that were open."""
        number = self._numbers.pop(key, None)
        if number is not None:
            self._end(number, self._linger)
        self._sweep_some()

    def looked(self, membership: Membership, *, saw: bool) -> None:
        """Its credentials were tried; `saw`: they have read the cluster and the pool that it names."""
        source = source_of(membership)
        before = self._proven.get(source)
        if before or before is saw:
            return
        self._index_all(membership.metadata.namespace)
        self._proven[source] = saw
        if saw:
            self._proving.add(membership.metadata.namespace)
        _, slot = self._find(membership)
        if slot is not None and slot.trusted and slot.contested and not saw:
            self._wake_all()

    def rivals(self, membership: Membership) -> Rivals:
        """Every server of this membership that another one claims, and may."""
        self._index_all(membership.metadata.namespace)
        number, slot = self._find(membership)
        if number is None or slot is None or not slot.contested:
            return {}
        found: dict[str, Rival] = {}
        known: dict[Rival, Rival] = {}
        now = self._now()
        contested = False
        for server_id in membership.spec.server_ids.union(membership.status.members, membership.status.live_ids):
            mine, others = self._claims_to(number, slot, server_id, now)
            contested = contested or bool(others)
            rival = self._strongest(slot, mine, others)
            if rival is not None:
                found[server_id] = known.setdefault(rival, rival)
        if not contested:
            slot.note_freed(self._freed)
        slot.contested = contested
        if any(rival.better for rival in found.values()):
            self._waiting.add(number)
        else:
            self._waiting.discard(number)
        return found

    def freed(self, found: Membership | UnreadableStatus) -> datetime | None:
        """When another let go of one of its servers last: absence is proven only by what began after that (P1)."""
        _, slot = self._find(found)
        return None if slot is None else slot.freed_last(self._freed, self._now())

    def reserve(self, membership: Membership, intent: Batch, listed: datetime) -> bool:
        """Claim the intent's servers as named by an open batch; False, and nothing is, if one of them is another's.

        Nor if it was when the nodes were `listed`. A removal is refused also where another merely names the server
        (rule P18).
        """
        self._index_all(membership.metadata.namespace)
        number, slot = self._find(membership)
        if number is None or slot is None:
            return False
        now = self._now()
        for server_id in intent.server_ids if slot.contested else ():
            rival = self._strongest(slot, *self._claims_to(number, slot, server_id, now))
            if rival is not None and (rival.better or intent.operation is Operation.REMOVE):
                return False
        # After the clock was set back nobody can tell what was let go of since.
        if ((freed := self.freed(membership)) is not None and listed < freed) or listed > now:
            return False
        slot.reserved |= frozenset(intent.server_ids)
        for server_id in intent.server_ids:
            self._index.set(number, hash(server_id), Strength.OPEN)
        return True

    def __len__(self) -> int:
        """Claims held, those not swept yet included."""
        aside = (len(digests) for slots in self._aside.values() for digests in slots.values())
        return len(self._index) + sum(aside)

    def _find(self, found: Membership | UnreadableStatus) -> tuple[int | None, Claimant | None]:
        meta = found.metadata
        number = self._numbers.get((meta.namespace, meta.name))
        slot = None if number is None else self._slots[number]
        return (number, slot) if slot is not None and slot.uid == meta.uid else (None, None)

    def _claim(self, found: Membership | UnreadableStatus, named: ClaimedServers, *, told: bool = True) -> None:
        """Claim everything anew in a slot of its own: which ids the one before it claims, nobody remembers.

        `told`: its status tells what became of earlier calls.
        """
        meta = found.metadata
        key = (meta.namespace, meta.name)
        before = self._numbers.get(key)
        # What it claimed stays so where there is no room: a call may still act on some of it.
        number = self._free_number(meta.namespace, needed=named.is_live or bool(named.members))
        if before is not None:
            same = self._slots[before].uid == meta.uid
            linger = timedelta() if same and told and not named.lost else self._linger
            self._end(before, linger, kept=named.called if same else 0)
        self._slots[number] = Claimant(
            key,
            meta.uid,
            meta.creation_timestamp,
            named.digest,
            source_of(found),
            live=named.is_live,
            lost=named.lost,
            called=named.called,
            trusted=before is None and has_called(found),
        )
        if before is not None:
            self._slots[number].inherit(self._slots[before], self._freed)
        self._used[meta.namespace] += 1
        self._numbers[key] = number
        if before is None and named.only_lists and not self._binds(self._slots[number]):
            self._aside.setdefault(meta.namespace, {})[number] = array("q", map(hash, named.listed))
            return
        for server_id, strength in named.strengths(named.all_ids):
            self._index.set(number, hash(server_id), strength)

    def index_some(self, namespace: str) -> bool:
        """Bring some of what a namespace lists into the index; whether more is left to be brought."""
        slots = self._aside.get(namespace)
        if slots is None:
            return False
        number, digests = next(iter(slots.items()))
        for digest in digests[-_INDEXED_AT_ONCE:]:
            self._index.set(number, digest, Strength.LISTED)
        del digests[-_INDEXED_AT_ONCE:]
        if not digests:
            self._take_aside(namespace, number)
            # What others let go of before, nobody has told it.
            self._slots[number].note_freed(self._now())
        return namespace in self._aside

    def indexing(self, namespace: str) -> Iterable[None]:
        """The steps in which all that a namespace lists comes into the index."""
        while self.index_some(namespace):
            yield

    def _index_all(self, namespace: str) -> None:
        """Before anything is asked that what the namespace lists has a say in."""
        for _ in self.indexing(namespace):
            pass

    def _take_aside(self, namespace: str, number: int) -> None:
        slots = self._aside.get(namespace, {})
        slots.pop(number, None)
        if not slots:
            self._aside.pop(namespace, None)

    def _change(self, number: int, slot: Claimant, named: ClaimedServers, ids: Set[str]) -> None:
        if not ids:
            return
        self._index_all(slot.key[0])
        slot.digest, slot.called, slot.live, slot.reserved = named.digest, named.called, named.is_live, frozenset()
        for server_id, strength in named.strengths(ids):
            if self._index.set(number, hash(server_id), strength) and slot.contested:
                self._let_go(number, server_id)

    def _free_number(self, namespace: str, *, needed: bool) -> int:
        """A slot for one more of a namespace, which may have as many as are left for others."""
        free = _SLOTS - len(self._slots)
        if free == 0 or (not needed and self._used[namespace] >= free - _KEPT):
            raise NoRoomError(needed=needed)
        number = (self._last + 1) % _SLOTS
        while number in self._slots:
            number = (number + 1) % _SLOTS
        self._last = number
        return number

    def _end(self, number: int, linger: timedelta, kept: int = 0) -> None:
        """The claims of a slot count no more; those on servers that a call may still act on only after `linger`.

        `kept`: what stands for the servers that calls may have been about which the slot after it claims.
        """
        slot = self._slots[number]
        slot.hides = bool(slot.reserved) or slot.called not in {0, kept}
        slot.over = self._now() + (linger if slot.live or slot.reserved else timedelta())
        self._over.add(number)
        self._take_aside(slot.key[0], number)
        self._waiting.discard(number)
        if slot.contested:
            # Which ids it lets go is not known, so everybody who waits for one looks again.
            self._freed = self._now() if slot.hides else self._freed
            self._wake_all()

    def _wake_all(self) -> None:
        for other in self._waiting:
            self._wake(self._slots[other].key)

    def _flag(self, number: int, others: Iterable[tuple[int, Strength]]) -> None:
        """Mark a slot as contested, and the one that it shares an id with; of more than one all are marked already."""
        for other, strength in others:
            slot = self._slots[other]
            if slot.over is None or slot.lost or strength in LINGERING:
                self._slots[number].contested = slot.contested = True
                if slot.over is None:
                    return

    def _claims_to(
        self, number: int, slot: Claimant, server_id: str, now: datetime
    ) -> tuple[Strength, list[tuple[Claimant, Strength]]]:
        """How strongly a slot claims an id, and all others that do, whether they may or not."""
        mine, others = Strength.LISTED, list[tuple[Claimant, Strength]]()
        for other, strength in self._index.of(hash(server_id)):
            candidate = self._slots[other]
            if other == number:
                mine = strength
            elif candidate.over is None or slot.fears(candidate, strength, now):
                others.append((candidate, strength))
            elif candidate.over <= now and candidate.hides:  # Else it let go when it ended, which is noted.
                slot.note_freed(candidate.over)
        return mine, others

    def _strongest(self, slot: Claimant, mine: Strength, others: list[tuple[Claimant, Strength]]) -> Rival | None:
        """Of those that bind a slot one with the better right to an id, if there is one, else the next in line."""
        binding: list[tuple[bool, int, tuple[datetime, str], Claimant]] = []
        recorded = False
        for other, listed in others:
            is_home = slot.is_home(other)
            strength = Strength.OPEN if is_home and other.lost else listed
            # A lost status may hide a call, which holds others off. It takes no record from them.
            own = Strength.OPEN if is_home and slot.lost and listed is not Strength.MEMBER else mine
            if is_home or strength is not Strength.LISTED or self._binds(other):
                worse = strength < own or (strength == own and other.age > slot.age)
                binding.append((worse, -strength, other.age, other))
                records = listed is Strength.MEMBER and (mine is not Strength.MEMBER or other.age < slot.age)
                recorded = recorded or (records and not worse)
        if not binding:
            return None
        worse, weakness, _, other = min(binding, key=lambda claim: claim[:3])
        return Rival(
            "/".join(other.key),
            better=not worse,
            recorded=recorded,
            holds=-weakness == Strength.HELD,
            foreign=not slot.is_home(other),
            until=other.over,
        )

    def counts_in(self, namespace: str, found: Membership | UnreadableStatus) -> bool:
        """Whether that an object, as it was just read, names servers counts in this namespace."""
        return found.metadata.namespace == namespace or self._proven.get(source_of(found), has_called(found))

    def may_count_in(self, namespace: str, key: Key) -> bool:
        """Whether that another object names servers may count in this namespace, however it was edited meanwhile.

        What the operator has stored of it counts in any case, and is known.
        """
        number = self._numbers.get(key)
        return key[0] == namespace or number is None or self._slots[number].trusted or key[0] in self._proving

    def _binds(self, other: Claimant) -> bool:
        """Whether that it names a server counts in other namespaces, too. What is over names none any more."""
        return other.over is None and self._proven.get(other.source, other.trusted)

    def _let_go(self, number: int, server_id: str) -> None:
        """A slot claims an id less than before: whoever claims it, too, looks again, and anew."""
        now = self._now()
        for other, _ in self._index.of(hash(server_id)):
            if other != number:
                self._slots[other].note_freed(now)
            if other in self._waiting:
                self._wake(self._slots[other].key)

    def _sweep_some(self) -> None:
        """Take the claims of slots that are over out of the next few buckets; their numbers are free after a walk."""
        if not self._swept:
            now = self._now()
            over = frozenset(n for n in self._over if (slot := self._slots[n]).over is not None and slot.over <= now)
            if not over:
                return
            self._swept, self._bucket = over, 0
        last = min(self._bucket + _SWEPT_AT_ONCE, self._index.buckets)
        self._index.sweep(self._bucket, last, self._swept)
        self._bucket = last
        if last == self._index.buckets:
            if any(slot.contested and slot.hides for slot in map(self._slots.__getitem__, self._swept)):
                self._freed = self._now()
            for number in self._swept:
                self._used[self._slots.pop(number).key[0]] -= 1
            self._over -= self._swept
            self._used = +self._used
            if len(self._proven) > len(self._slots):
                named = {slot.source: slot.key[0] for slot in self._slots.values()}
                self._proven = {source: saw for source, saw in self._proven.items() if source in named}
                self._proving = {named[source] for source, saw in self._proven.items() if saw}
            self._swept = frozenset()
