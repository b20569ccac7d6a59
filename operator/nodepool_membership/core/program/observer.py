"""The looks of one reconcile: what a decision has to know first is found out, until it is made or has to be waited for.

Not for: deciding what is looked at (`core.decision.decide`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeAlias, TypeVar

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.decision.decide import Decision, acknowledge, decide
from nodepool_membership.core.observed.observation import Freshness, Observation, Query, Trouble
from nodepool_membership.core.preflight.facts import subnets_of
from nodepool_membership.core.program.effects import (
    AskJobs,
    AskTurn,
    Awaited,
    Connect,
    CredentialsTried,
    FindRivals,
    InspectServers,
    IsAtHand,
    Now,
    Program,
    ReadCluster,
    ReadNamespaceState,
    TakeWriteSlot,
)
from nodepool_membership.core.program.memory import Known, Memory
from nodepool_membership.core.program.storing import key_of, store
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

    def __init__(self, membership: Membership, known: Known, memory: Memory, settings: Settings) -> None:
        self.membership = membership
        self.seen = Observation(
            known.since,
            membership.wire_bytes,
            jobs=known.jobs,
            waiting=memory.waiting,
            absences=memory.absences,
            refused=memory.refused,
        )
        self._failed_before = memory.failed_reads
        self._settings = settings
        self._connected = False
        self._waits = False

    @property
    def known(self) -> Known:
        """The object with which it goes on once there is a snapshot."""
        return Known(self.membership.metadata.resource_version, self.seen.read_at, self.seen.jobs)

    def decide(self) -> Program[Decided | None]:
        """Ask for a decision, and look at what it asks for, until it is made; None: a snapshot has to be awaited."""
        found = yield from self.until_known(decide)
        return None if found is None else Decided(self.membership, found[0], self.seen, found[1])

    def until_known(self, ask: Ask[T], *, acknowledges: bool = True) -> Program[tuple[T, datetime] | None]:
        """Ask, and look at what is asked for, until there is an answer; with it comes the time by whole seconds.

        None: a snapshot has to be awaited first.
        """
        answered: list[Query] = []
        while not self._waits:
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
                yield from self._acknowledge()
            if step in answered:
                self._stop(_CLOCK_WENT_BACK)
            else:
                answered.append(step)
                yield from self._answer(step)
        return None

    def _is_acknowledged(self) -> bool:
        return self.membership.status.observed_generation == self.membership.metadata.generation

    def _acknowledge(self) -> Program[None]:
        """Before the cloud is asked, which may take long: a user sees at once that the edit arrived."""
        now = yield from whole_second()
        self.membership = yield from store(self.membership, acknowledge(self.membership, now, self._settings))
        # Only from here on it is known to be as it is now.
        self.seen = replace(self.seen, read_at=(yield from Now()))

    def _is_at_hand(self, query: Query) -> Program[bool]:
        """Whether the answer needs no call to the cloud; a trouble on the way counts as an answer."""
        if not (yield from self._connect()) or query.write or query.turn or query.namespace_state:
            return True
        return query.listing is not None and (yield from IsAtHand(self._look_at(query.listing)))

    def _look_at(self, freshness: Freshness) -> ReadCluster:
        membership = self.membership
        return ReadCluster(key_of(membership), membership.spec.node_pool, freshness, self.seen.read_at)

    def _answer(self, query: Query) -> Program[None]:
        if query.namespace_state:
            namespace_state = yield from ReadNamespaceState(self.membership.metadata.namespace)
            self.seen = replace(self.seen, namespace_state=namespace_state)
        elif not (yield from self._connect()):
            return
        elif query.write:
            place = yield from TakeWriteSlot(self.membership)
            self.seen = replace(self.seen, write_wait=place.wait, held_back=place.held_back)
        elif query.turn:
            place = yield from AskTurn(self.membership)
            self.seen = replace(self.seen, turn=place.wait, held_back=place.held_back)
        elif query.jobs:
            yield from self._ask_for_jobs(query.jobs)
        elif query.servers:
            yield from self._inspect(query.servers)
        elif query.listing is not None:
            yield from self._read_cluster(query.listing)

    def _ask_for_jobs(self, jobs: tuple[str, ...]) -> Program[None]:
        reports = yield from AskJobs(jobs)
        if isinstance(reports, Trouble):
            yield from self._could_not_read(reports)
            return
        self.seen = replace(self.seen, jobs={**self.seen.jobs, **reports})
        if any(report.is_over for report in reports.values()):
            # What came of it shows in a listing that begins afterwards.
            self.seen = replace(self.seen, read_at=(yield from Now()))

    def _connect(self) -> Program[bool]:
        """Once; False where something keeps us from looking."""
        if not self._connected and self.seen.trouble is None:
            trouble = yield from Connect(self.membership, fresh=self._failed_before > 0)
            if trouble is not None:
                yield from self._could_not_read(trouble)
            self._connected = trouble is None
        return self.seen.trouble is None

    def _read_cluster(self, freshness: Freshness) -> Program[None]:
        view = yield from self._look_at(freshness)
        if isinstance(view, Awaited):
            self._waits = True
            return
        if isinstance(view, Trouble):
            yield from self._could_not_read(view)
            return
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
        spec, turbo = self.membership.spec, cluster is not None and cluster.network.turbo
        found = yield from InspectServers(spec.node_pool, server_ids, subnets, spec.preflight.mode, turbo)
        self.seen = replace(self.seen, inspection=found.merged(self.seen.inspection))

    def _stop(self, trouble: Trouble) -> None:
        """Look no further: this is why."""
        self.seen = replace(self.seen, trouble=trouble, failed_reads=self._failed_before + 1)
