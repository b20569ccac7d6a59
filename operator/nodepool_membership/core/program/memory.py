"""What a process remembers of an object from one reconcile to the next.

Not for: what outlives the process, which stands in the status. Losing it costs a wait at most.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from nodepool_membership.core.observed.drift import Absences
from nodepool_membership.core.observed.observation import JobReport
from nodepool_membership.core.observed.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Known:
    """An object as it was read or written, and since when it is known to be so."""

    version: str
    """Its resourceVersion: while it is the same, the object is."""
    since: datetime
    jobs: Mapping[str, JobReport] = field(default_factory=dict)
    """What was said of its jobs before it began to wait for a snapshot."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one object."""

    known: Known | None = None

    failed_reads: int = 0
    """Reconciles in a row that could not look."""
    backoffs: int = 0
    """Decisions in a row that something was in the way."""
    unreadable: str | None = None
    """The resourceVersion of which it was said that its status cannot be understood."""
    waiting: Waiting | None = None
    """What its next call waits for, unless the object is edited."""
    absences: Absences = field(default_factory=dict)
    refused: Mapping[str, datetime] = field(default_factory=dict)
    """When servers that were read and not sent were read last."""

    def known_from(self, freed: datetime | None) -> "Memory":
        """With what is known of it counted from when others let go of its servers, not from before.

        Not from now on: somebody who lets go of something every few seconds would keep it from ever having a listing.
        """
        if self.known is None or freed is None or freed <= self.known.since:
            return self
        return replace(self, known=replace(self.known, since=freed), waiting=None)
