"""What the next call waits for, as far as that is known without a look at the cloud.

Not for: whether it waits (`core.planning`), or whether a look is spared by it (`core.decision.looking`).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nodepool_membership.api.reasons import Reason


@dataclass(frozen=True, slots=True)
class Blocker:
    """What is in the way of the next call. `stalls`: nothing passes by itself."""

    reason: Reason
    message: str
    stalls: bool = False


class WaitsFor(StrEnum):
    """What must come about before a call can be made, whatever a look would show."""

    TURN = "Turn"
    """A place in the write budget."""
    RESUMED = "Resumed"
    """The pause of the namespace is taken off."""
    CHANGE = "Change"
    """The object is changed, or one of its own calls comes to an end."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that was waiting when the cluster was looked at last, and nothing was edited since."""

    since: datetime
    """When that look began."""
    what: WaitsFor
    blocker: Blocker | None = None
    until: datetime | None = None
    """A moment at which it may go on all the same."""
