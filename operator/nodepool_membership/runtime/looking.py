"""The looks of one reconcile: what a decision asks for is fetched, and kept until it is made.

Not for: deciding what is looked at (`core.decide`), or how (`clouds`).
"""

from dataclasses import replace

from nodepool_membership.api.membership import Membership
from nodepool_membership.cce.budget import Taken
from nodepool_membership.core.observation import Look, Observation, Trouble
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.clouds import Access, Clouds
from nodepool_membership.runtime.troubles import TroubleError


class Looking:
    """What was seen of the cloud for one object during one reconcile; the first trouble ends it.

    `failed_before`: reconciles in a row, up to the last one, that could not look.
    """

    def __init__(
        self,
        clouds: Clouds,
        memberships: Memberships,
        membership: Membership,
        seen: Observation,
        failed_before: int,
    ) -> None:
        self._clouds = clouds
        self._memberships = memberships
        self._failed_before = failed_before
        self.membership = membership
        self.seen = seen
        self.access: Access | None = None
        self.taken: Taken | None = None

    async def is_at_hand(self, look: Look) -> bool:
        """Whether the answer needs no call to the cloud; a trouble on the way counts as an answer."""
        access = await self._open()
        return access is None or self._clouds.is_at_hand(look, access)

    async def answer(self, look: Look) -> None:
        if look.home:
            self.seen = replace(self.seen, home=await self._memberships.home(self.membership.metadata.namespace))
            return
        access = await self._open()
        if access is None:
            return
        if look.write:
            taken = self._clouds.take(self.membership, access)
            self.taken = taken if isinstance(taken, Taken) else None
            wait = 0.0 if isinstance(taken, Taken) else taken
            self.seen = replace(self.seen, write_wait=wait, throttled=self._clouds.is_throttled(access))
            return
        try:
            self.seen = await self._clouds.answer(look, self.membership, access, self.seen)
        except TroubleError as error:
            self._stop(error)

    def give_back(self) -> None:
        """Return a place in the write budget that was not used."""
        if self.taken is not None and self.access is not None:
            self.access.budget.give_back(self.taken)
            self.taken = None

    async def _open(self) -> Access | None:
        if self.access is None and self.seen.trouble is None:
            try:
                # After a look that failed, the Secret may have been the cause and may be repaired by now.
                self.access = await self._clouds.access(self.membership, fresh_secret=self._failed_before > 0)
            except TroubleError as error:
                self._stop(error)
        return self.access if self.seen.trouble is None else None

    def _stop(self, error: TroubleError) -> None:
        self.give_up(error.trouble)

    def give_up(self, trouble: Trouble) -> None:
        """Look no further: this is why."""
        self.seen = replace(self.seen, trouble=trouble, failed_looks=self._failed_before + 1)
