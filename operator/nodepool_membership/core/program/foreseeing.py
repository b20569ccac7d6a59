"""A preview as a program: the looks of a reconcile, and nothing of what follows one.

Not for: what would be done (`core.preview`). It has no effect that writes or calls.
"""

from datetime import datetime

from nodepool_membership.api.membership import Membership
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.preview import Preview, preview
from nodepool_membership.core.program.effects import Memory, Now, Program
from nodepool_membership.core.program.observer import Observer
from nodepool_membership.core.state.settings import Settings


def foresee(membership: Membership, settings: Settings) -> Program[Preview | Trouble]:
    """What would be done with a membership that was just read, or why the cloud cannot be looked at for it."""
    read_at = yield from Now()
    looking = Observer(membership, read_at, Memory(), settings)
    looks: Program[tuple[Preview | Trouble, datetime]] = looking.until_known(preview, acknowledges=False)
    found, _ = yield from looks
    return found
