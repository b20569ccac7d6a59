"""A preview as a program: the looks of a reconcile, and nothing of what follows one.

Not for: what would be done (`core.decision.preview`). It has no effect that writes or calls.
"""

from datetime import datetime

from nodepool_membership.api.membership import Membership
from nodepool_membership.core.decision.preview import Preview, preview
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.program.effects import Program
from nodepool_membership.core.program.memory import Known, Memory
from nodepool_membership.core.program.observer import Observer
from nodepool_membership.core.state.settings import Settings


def foresee(membership: Membership, known: Known, settings: Settings) -> Program[Preview | Trouble | Known]:
    """What would be done with a membership that is `known` to be so, or why the cloud cannot be looked at for it.

    Or how it is known when it goes on, once there is the snapshot that has to be awaited first.
    """
    looking = Observer(membership, known, Memory(), settings)
    looks: Program[tuple[Preview | Trouble, datetime] | None] = looking.until_known(preview, acknowledges=False)
    found = yield from looks
    return looking.known if found is None else found[0]
