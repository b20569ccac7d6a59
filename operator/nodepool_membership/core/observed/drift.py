"""Recorded members that the node list no longer shows, counted over several listings before anything is said (P13).

Not for: members whose node is there but not Active, or in another pool (`members`): presence needs no second look.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

LISTINGS_WITHOUT: Final = 3
"""A short "not found" is not a disappearance: so many complete listings in a row, a resync interval apart."""
UNSEEN: Final = 3
"""After so many resync intervals without a look it is not known whether a member was there meanwhile."""
MASS: Final = 3
MASS_SHARE: Final = 10
"""So many members, and more than one in ten, that are gone are rather a wrong listing than a fact."""


@dataclass(frozen=True, slots=True)
class Absence:
    """In how many listings in a row a member was absent; when the last that counted began, and since when it is away.

    It is away since the first of them, unless nobody looked for long in between.
    """

    listings: int
    last: datetime
    first: datetime


Absences = Mapping[str, Absence]


def track(known: Absences, absent: Set[str], begun: datetime, apart: timedelta) -> dict[str, Absence]:
    """Count a complete listing; whoever is present again is forgotten."""
    tracked: dict[str, Absence] = {}
    for server_id in absent:
        before = known.get(server_id)
        if before is None:
            tracked[server_id] = Absence(1, begun, begun)
        elif begun - before.last >= apart:
            first = before.first if begun - before.last <= UNSEEN * apart else begun
            tracked[server_id] = Absence(before.listings + 1, begun, first)
        else:
            tracked[server_id] = before
    return tracked


def from_now(known: Absences, ids: Set[str], now: datetime) -> dict[str, Absence]:
    """The same, but these are away from now on: a call of ours, which is over now, may have been the cause."""
    return {i: replace(absence, first=now) if i in ids else absence for i, absence in known.items()}


def gone(tracked: Absences) -> frozenset[str]:
    """Members that count as vanished."""
    return frozenset(server_id for server_id, absence in tracked.items() if absence.listings >= LISTINGS_WITHOUT)


def is_implausible(absent: int, members: int) -> bool:
    """Whether so many of the members are gone, since whenever, that a human has to say what is true."""
    return absent >= MASS and MASS_SHARE * absent > members
