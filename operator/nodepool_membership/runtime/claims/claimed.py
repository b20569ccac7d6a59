"""What one membership claims, how strongly, and its place among all (rule P16).

Not for: comparing the claims of several (`claims`).
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.core.state.ledger import Ledger, is_behind
from nodepool_membership.runtime.scheduling.queue import Key


class Strength(IntEnum):
    """How strong a claim is; of equals the older membership has the right."""

    LISTED = 0
    HELD = 1
    """An earlier call may still act on it: nobody else may add it, but who finds it Active may record it."""
    MEMBER = 2
    OPEN = 3
    """Named by a batch that may take effect, or possibly by one that nobody can know of."""


_NO_IDS: Final = frozenset[str]()
LINGERING: Final = frozenset({Strength.HELD, Strength.OPEN})
"""What stays claimed for a while after its object is gone."""


class NoRoomError(Exception):
    """There are too many memberships, in all or in one namespace, for the claims of one more.

    `needed`: calls may act on its servers, or it has members: without its claims nobody may add any.
    """

    def __init__(self, *, needed: bool) -> None:
        super().__init__(
            "there are too many memberships for one operator, or too many in this namespace: delete some, or give"
            " each of several operators a part of the namespaces with --namespace"
        )
        self.needed = needed


@dataclass(frozen=True, slots=True)
class ClaimedServers:
    """What one membership claims."""

    listed: frozenset[str]
    members: tuple[str, ...]
    open: frozenset[str]
    held: frozenset[str]
    lost: bool
    """A batch may be open that the status does not show, since one was lost: so the finalizer says, which a user may
    have written."""

    @staticmethod
    def of(found: Membership | UnreadableStatus, now: datetime, known: Ledger | None = None) -> "ClaimedServers":
        """What is claimed by an object as it was just read. Nobody but the operator writes a status (P24).

        `known`: its calls, as the process remembers them: they count where the status does not tell of them.
        """
        listed = found.spec.server_ids
        remembered = frozenset(i for batch in known.open for i in batch.server_ids) if known is not None else _NO_IDS
        if isinstance(found, UnreadableStatus):
            return ClaimedServers(listed, (), listed | remembered, _NO_IDS, lost=False)
        status = found.status
        lost = status.last_batch is None and FINALIZER in found.metadata.finalizers
        waits = status.recovery is not None and status.recovery.until > now
        called = frozenset(i for batch in status.open_batches for i in batch.server_ids)
        called |= remembered if is_behind(status, known) else _NO_IDS
        held = frozenset(i for hold in status.holds for i in hold.server_ids)
        return ClaimedServers(listed, status.members, called, held, lost=lost or waits)

    @property
    def digest(self) -> int:
        """Equal for equal claims, as far as anybody can tell: a copy of the ids would cost ten times the index."""
        return hash((self.listed, self.members, self.open, self.held, self.lost))

    @property
    def called(self) -> int:
        """Equal where calls may have been about the same servers; 0 where this operator knows of none."""
        if self.only_lists:
            return 0
        # What was lost may have been about any that it lists.
        return hash((self.listed if self.lost else None, self.members, self.open, self.held)) or 1

    @property
    def all_ids(self) -> frozenset[str]:
        return self.listed.union(self.members, self.open, self.held)

    @property
    def only_lists(self) -> bool:
        """Whether the operator has stored nothing of it that counts."""
        return not (self.members or self.is_live)

    @property
    def is_live(self) -> bool:
        """Whether an earlier call may still act on a server of it."""
        return bool(self.open or self.held or self.lost)

    def strengths(self, ids: Iterable[str]) -> Iterable[tuple[str, Strength | None]]:
        """Each of the ids with the strength of its claim, None where there is none."""
        members = frozenset(self.members)
        for server_id in ids:
            if server_id in self.open:
                yield server_id, Strength.OPEN
            elif server_id in members:
                yield server_id, Strength.MEMBER
            elif server_id in self.held:
                yield server_id, Strength.HELD
            else:
                yield server_id, Strength.LISTED if server_id in self.listed else None

    def changed_from(self, old: "ClaimedServers") -> Set[str]:
        """Ids that two statuses of one spec claim differently."""
        same = self.members == old.members
        members: set[str] = set() if same else set(self.members).symmetric_difference(old.members)
        return members | (self.open ^ old.open) | (self.held ^ old.held)


def source_of(found: Membership | UnreadableStatus) -> int:
    """Stands for whose credentials are to read which pool: what reading it proves holds for all that share this."""
    spec = found.spec
    who = (spec.credentials_ref, spec.identity_ref, spec.assume_agency)
    return hash((found.metadata.namespace, who, spec.node_pool))


def has_called(found: Membership | UnreadableStatus) -> bool:
    """Whether its status shows that its credentials once had the pool's servers."""
    if isinstance(found, UnreadableStatus):
        return True
    return bool(found.status.last_batch or found.status.members)


@dataclass(slots=True)
class Claimant:
    """A membership's place in the index; one whose claims were read anew, or that is gone, gets `over`."""

    key: Key
    uid: str
    created: datetime
    digest: int
    source: int
    live: bool
    """An earlier call may still act on one of its servers."""
    lost: bool
    called: int
    """Stands for the servers that calls of it may have been about; 0 for none."""
    trusted: bool
    """It stood there with earlier calls or members when it was read first: proven until its credentials are tried."""
    reserved: frozenset[str] = frozenset()
    """Ids of an intent, until a status that holds them is stored or read."""
    contested: bool = False
    """Another slot may claim one of its ids. Most never are, and cost nothing after they were read."""
    freed: datetime | None = None
    """When another let go of one of its ids last: what that one's calls did, earlier listings do not show (P1)."""
    over: datetime | None = None
    """Its claims count no more; from this moment on not even those of its open batches do."""
    hides: bool = False
    """Once it is over: listings from before may not show what calls of it did. Who merely lists a server, which
    anybody may do as often as they like, puts off the calls of nobody."""

    @property
    def age(self) -> tuple[datetime, str]:
        return self.created, self.uid

    def note_freed(self, at: datetime | None) -> None:
        """Another let go of one of its ids."""
        if at is not None and (self.freed is None or self.freed < at):
            self.freed = at

    def freed_last(self, unknown: datetime | None, now: datetime) -> datetime | None:
        """When another let go of one of its ids last; `unknown`: when somebody let go of nobody knows which."""
        if self.contested:
            self.note_freed(unknown)
        # One from the future was before the clock was set back.
        self.freed = self.freed and min(self.freed, now)
        return self.freed

    def inherit(self, before: "Claimant", unknown: datetime | None) -> None:
        """It takes the place of one that claimed other ids; `unknown`: when somebody let go of nobody knows which."""
        self.note_freed(before.freed)
        if before.contested:
            self.note_freed(unknown)

    def now_reads_by(self, source: int) -> None:
        """Its spec names these credentials and this pool; others than before prove nothing by what was called."""
        if self.source != source:
            self.source, self.trusted = source, False

    def is_home(self, other: "Claimant") -> bool:
        """Whether they are of one namespace."""
        return self.key[0] == other.key[0]

    def fears(self, gone: "Claimant", strength: Strength, now: datetime) -> bool:
        """Whether a call may still act for a claim of one that is gone, as far as this one has to believe."""
        ends = gone.over is not None and gone.over <= now
        return not ends and gone.uid != self.uid and (strength in LINGERING or (gone.lost and self.is_home(gone)))
