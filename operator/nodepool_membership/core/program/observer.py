"""The looks of one reconcile: what a decision has to know first is found out, until it is made.

Not for: deciding what is looked at (`core.decide`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.decide import Decision, acknowledge, decide
from nodepool_membership.core.observed.observation import Freshness, Observation, Query, Trouble
from nodepool_membership.core.preflight.facts import subnets_of
from nodepool_membership.core.program.effects import (
    AskJobs,
    Connect,
    CredentialsTried,
    FindRivals,
    InspectServers,
    IsListed,
    Memory,
    Now,
    Program,
    ReadCluster,
    ReadNamespaceState,
    TakeWriteSlot,
)
from nodepool_membership.core.program.storing import store
from nodepool_membership.core.state.settings import Settings

_CLOCK_WENT_BACK: Final = Trouble(
    Reason.CLOCK_SKEW,
    "a look that was just made counts as older than the read before it: the clock of the operator's node went back; it"
    " looks again by itself",
)


T = TypeVar("T")
Ask: TypeAlias = Callable[[Membership, Observation, datetime, Settings], T | Query]
"""What is answered from what was seen so far, or asks for more."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with what it was made from."""

    membership: Membership
    decision: Decision
    seen: Observation
    now: datetime


def whole_second() -> Program[datetime]:
    """The time as it is stored."""
    now = yield from Now()
    return now.replace(microsecond=0)


class Observer:
    """What was seen for one object during one reconcile; the first trouble ends it."""

    def __init__(self, membership: Membership, read_at: datetime, memory: Memory, settings: Settings) -> None:
        self.membership = membership
        self.seen = Observation(read_at, membership.wire_bytes, absences=memory.absences, refused=memory.refused)
        self._failed_before = memory.failed_reads
        self._settings = settings
        self._connected = False

    def decide(self) -> Program[Decided]:
        """Ask for a decision, and look at what it asks for, until it is made."""
        decision, now = yield from self.until_known(decide)
        return Decided(self.membership, decision, self.seen, now)

    def until_known(self, ask: Ask[T], *, acknowledges: bool = True) -> Program[tuple[T, datetime]]:
        """Ask, and look at what is asked for, until there is an answer; with it comes the time by whole seconds."""
        answered: list[Query] = []
        while True:
            rivals = yield from FindRivals(self.membership)
            if isinstance(rivals, Trouble):
                self._stop(rivals)
            else:
                self.seen = replace(self.seen, rivals=rivals)
            now = yield from whole_second()
            step = ask(self.membership, self.seen, now, self._settings)
            if not isinstance(step, Query):
                return step, now
            if acknowledges and not self._is_acknowledged() and not (yield from self._is_at_hand(step)):
                # Before the cloud is asked, which may take long: a user sees at once that the edit arrived.
                now = yield from whole_second()
                status = acknowledge(self.membership, now, self._settings)
                self.membership = yield from store(self.membership, status)
            if step in answered:
                self._stop(_CLOCK_WENT_BACK)
            else:
                answered.append(step)
                yield from self._answer(step)

    def _is_acknowledged(self) -> bool:
        return self.membership.status.observed_generation == self.membership.metadata.generation

    def _is_at_hand(self, query: Query) -> Program[bool]:
        """Whether the answer needs no call to the cloud; a trouble on the way counts as an answer."""
        if not (yield from self._connect()) or query.write or query.namespace_state:
            return True
        return query.listing is Freshness.RECENT and (yield from IsListed())

    def _answer(self, query: Query) -> Program[None]:
        if query.namespace_state:
            namespace_state = yield from ReadNamespaceState(self.membership.metadata.namespace)
            self.seen = replace(self.seen, namespace_state=namespace_state)
        elif not (yield from self._connect()):
            return
        elif query.write:
            place = yield from TakeWriteSlot(self.membership)
            self.seen = replace(self.seen, write_wait=place.wait, throttled=place.throttled)
        elif query.jobs:
            reports = yield from AskJobs(query.jobs)
            if isinstance(reports, Trouble):
                yield from self._could_not_read(reports)
            else:
                self.seen = replace(self.seen, jobs={**self.seen.jobs, **reports})
        elif query.servers:
            yield from self._inspect(query.servers)
        elif query.listing is not None:
            yield from self._read_cluster(query.listing)

    def _connect(self) -> Program[bool]:
        """Once; False where something keeps us from looking."""
        if not self._connected and self.seen.trouble is None:
            trouble = yield from Connect(self.membership, fresh=self._failed_before > 0)
            if trouble is not None:
                yield from self._could_not_read(trouble)
            self._connected = trouble is None
        return self.seen.trouble is None

    def _read_cluster(self, freshness: Freshness) -> Program[None]:
        view = yield from ReadCluster(self.membership.spec.node_pool, freshness, self.seen.read_at)
        if isinstance(view, Trouble):
            yield from self._could_not_read(view)
            return
        if view.pool is not None and view.cluster is not None:
            yield from CredentialsTried(self.membership, saw=True)
        self.seen = replace(self.seen, listing=view.listing, clock_offset_seconds=view.clock_offset_seconds)
        if freshness is not Freshness.RECENT:
            self.seen = replace(self.seen, pool=view.pool, cluster=view.cluster)

    def _could_not_read(self, trouble: Trouble) -> Program[None]:
        """Its credentials were tried, and prove nothing."""
        yield from CredentialsTried(self.membership, saw=False)
        self._stop(trouble)

    def _inspect(self, server_ids: frozenset[str]) -> Program[None]:
        pool, cluster = self.seen.pool, self.seen.cluster
        subnets = frozenset() if pool is None or cluster is None else subnets_of(pool.template, cluster.network)
        spec = self.membership.spec
        found = yield from InspectServers(spec.node_pool, server_ids, subnets, spec.preflight.mode)
        self.seen = replace(self.seen, inspection=found.merged(self.seen.inspection))

    def _stop(self, trouble: Trouble) -> None:
        """Look no further: this is why."""
        self.seen = replace(self.seen, trouble=trouble, failed_reads=self._failed_before + 1)
