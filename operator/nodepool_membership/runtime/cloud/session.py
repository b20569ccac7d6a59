"""The cloud as one program uses it: credentials, looks, and a place in the write budget that it may hold.

Not for: deciding what is looked at (`core.decision.decide`), or how (`clouds`).
"""

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.budget import Taken
from nodepool_membership.core.decision.record import Answer
from nodepool_membership.core.program.effects import (
    AskJobs,
    AskTurn,
    CloudEffect,
    Connect,
    InspectServers,
    IsAtHand,
    ReadCluster,
    TakeWriteSlot,
    WriteSlot,
)
from nodepool_membership.runtime.cloud.clouds import Access, Clouds
from nodepool_membership.runtime.cloud.error_mapping import TroubleError


class CloudSession:
    """Performs the looks of one program; `over` must follow, for a place that it holds counts until then."""

    def __init__(self, clouds: Clouds) -> None:
        self._clouds = clouds
        self._access: Access | None = None
        self._place: Taken | None = None
        self._called = False

    @property
    def access(self) -> Access:
        """What the program uses of the cloud.

        Raises:
            RuntimeError: it has not connected; an order that no program has.
        """
        if self._access is None:
            raise RuntimeError("the cloud is used before its credentials were read")
        return self._access

    async def perform(self, effect: CloudEffect[object]) -> object:  # noqa: PLR0911 - one match over all effects
        """Perform a look; what keeps us from it is an answer, too.

        Raises:
            KubeError: the API server did not answer for the credentials.
        """
        try:
            match effect:
                case Connect(membership, fresh):
                    self._access = await self._clouds.access(membership, fresh_secret=fresh)
                    return None
                case AskJobs(job_ids):
                    return await self._clouds.jobs(self.access, job_ids)
                case ReadCluster():
                    return self._clouds.look(self.access, effect)
                case InspectServers():
                    return await self._clouds.inspect(effect, self.access)
                case IsAtHand(look):
                    return self._clouds.is_at_hand(self.access, look)
                case AskTurn(membership):
                    wait = self._clouds.until_turn(membership, self.access)
                    return WriteSlot(wait, self._held_back(membership))
                case TakeWriteSlot(membership):
                    return self._take(membership)
                case _:
                    raise TypeError(f"not known: {effect}")
        except TroubleError as error:
            return error.trouble

    def _take(self, membership: Membership) -> WriteSlot:
        taken = self._clouds.take(membership, self.access)
        if isinstance(taken, Taken):
            self._place = taken
            return WriteSlot(0.0)
        return WriteSlot(taken, self._held_back(membership))

    def _held_back(self, membership: Membership) -> Reason | None:
        return self._clouds.held_back(membership, self.access)

    def called(self) -> None:
        """The place was used: it counts until a minute after the end."""
        self._called = True

    def answered(self, membership: Membership, answer: Answer) -> None:
        """What came of the call."""
        self._clouds.answered(membership, self.access, answer)

    def over(self) -> None:
        """The program is over; a place that was not used is given back."""
        place, self._place = self._place, None
        if place is None:
            return
        if self._called:
            self._clouds.ended(self.access, place)
        else:
            self.access.budget.give_back(place)
