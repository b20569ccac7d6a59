"""Runs the program of a preview: performs its reads, and has no way to write or to call.

Not for: what is read or told (`core`), or the operator's own programs (`reconcile`).
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from nodepool_membership.core.observed.observation import NamespaceState
from nodepool_membership.core.program.effects import (
    AskJobs,
    Connect,
    CredentialsTried,
    Effect,
    FindRivals,
    InspectServers,
    Now,
    Program,
    ReadCluster,
    ReadNamespaceState,
)
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.cloud.clouds import Clouds
from nodepool_membership.runtime.cloud.session import CloudSession

T = TypeVar("T")


class Previewer:
    """Performs reads with what it is given: the clouds, the claims that are known, and how a namespace is read."""

    def __init__(
        self,
        clouds: Clouds,
        claims: Claims,
        read_namespace: Callable[[str], Awaitable[NamespaceState]],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._session = CloudSession(clouds)
        self._claims = claims
        self._read_namespace = read_namespace
        self._now = now

    async def run(self, program: Program[T]) -> T:
        """Perform one read after another.

        Raises:
            KubeError: the API server did not answer.
        """
        answer: object = None
        while True:
            try:
                effect = program.send(answer)
            except StopIteration as end:
                ended: T = end.value
                return ended
            answer = await self._perform(effect)

    async def _perform(self, effect: Effect[object]) -> object:
        match effect:
            case Now():
                return self._now()
            case FindRivals(membership):
                return self._claims.rivals(membership)
            case CredentialsTried(membership, saw):
                self._claims.looked(membership, saw=saw)
                return None
            case ReadNamespaceState(namespace):
                return await self._read_namespace(namespace)
            case Connect() | AskJobs() | ReadCluster() | InspectServers():
                return await self._session.perform(effect)
            case _:
                raise TypeError(f"no read: {effect}")
