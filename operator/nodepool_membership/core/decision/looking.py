"""Which look at the cluster a decision needs: none, a recent one, or one that proves absence.

Not for: jobs (`servers.batches`), or what follows from a look (`decide`). Who cannot call does not look until it can:
what it waits for is asked about first, or known (promise 12).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.spec import Approval
from nodepool_membership.core.observed import rivals
from nodepool_membership.core.observed.observation import Freshness, Observation, Query
from nodepool_membership.core.observed.waiting import Waiting, WaitsFor
from nodepool_membership.core.planning import adding, eligibility, gates, removing, vetting
from nodepool_membership.core.planning.gates import Step
from nodepool_membership.core.servers import batches
from nodepool_membership.core.state.requests import reconcile_requested, reset_requested
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State


@dataclass(frozen=True, slots=True)
class Looking:
    """One object with what was seen of it so far."""

    membership: Membership
    seen: Observation
    now: datetime
    settings: Settings

    def query(self, state: State) -> Query | None:
        """The look that has to be there, or what is asked before it; None: a decision can be made without."""
        wanted = self._wanted(state)
        if wanted is None:
            return None
        waiting = self._waiting(state)
        if waiting is None:
            return Query(listing=wanted)
        if waiting.what is WaitsFor.RESUMED and self.seen.namespace_state is None:
            return Query(namespace_state=True)
        if waiting.what is WaitsFor.TURN and self.seen.turn is None:
            return Query(turn=True)
        return Query(listing=wanted) if self._step(state, waiting) is None else None

    def spared(self, state: State) -> Step | None:
        """What is planned where a look was spared: the call still waits for what it waited for."""
        if self._wanted(state) is None:
            return None
        waiting = self._waiting(state)
        return None if waiting is None else self._step(state, waiting)

    def _step(self, state: State, waiting: Waiting) -> Step | None:
        """How the call waits; None: it does not any more."""
        seen = self.seen
        match waiting.what:
            case WaitsFor.TURN:
                return gates.until_turn(state, seen, seen.turn) if seen.turn else None
            case WaitsFor.RESUMED:
                home = seen.namespace_state
                # Servers of an object that goes with its namespace are let go of.
                paused = None if home is None or home.keeps is not None else home.paused
                return None if paused is None else gates.until_resumed(state, paused)
            case WaitsFor.CHANGE:
                delay = None if waiting.until is None else gates.seconds(waiting.until - self.now)
                return Step(state, blocker=waiting.blocker, delay=delay, waits_for=WaitsFor.CHANGE)

    def _waiting(self, state: State) -> Waiting | None:
        """What a call waits for, where a look would be for nothing but that call: it would be too old when it can go.

        Now and then it is looked at all the same: what is missing by then is told.
        """
        waiting, seen, now = self.seen.waiting, self.seen, self.now
        if waiting is None or seen.listing is not None or self._must_look(state):
            return None
        if waiting.what is WaitsFor.CHANGE and not state.open_batches:
            # It is worked at its resync, which is a look.
            return None
        if waiting.until is not None and now >= waiting.until:
            return None
        lately = timedelta() <= now - waiting.since.replace(microsecond=0) < self.settings.resync_interval / 2
        return waiting if lately and self._may_call(state) else None

    def _may_call(self, state: State) -> bool:
        """Whether a call could start now as far as the membership itself is concerned."""
        membership, now = self.membership, self.now
        return adding.may_add(membership, state, now) or removing.may_remove(membership, state, now, self.settings)

    def _must_look(self, state: State) -> bool:
        """Whether only the nodes tell what became of a call, or a look whether a clock was off."""
        spec, seen, now = self.membership.spec, self.seen, self.now
        follows = any(batches.needs_nodes(b, spec, seen, now) for b in state.open_batches)
        return follows or removing.is_surplus_since_the_future(state, now)

    def _wanted(self, state: State) -> Freshness | None:  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
        """The listing that has to be there: none, a recent one that shows who is there, or one that proves absence."""
        membership, spec, seen = self.membership, self.membership.spec, self.seen
        mine = rivals.ours(spec, seen.rivals or {})
        if self._must_look(state) or removing.may_remove(membership, state, self.now, self.settings):
            return None if seen.is_fresh else Freshness.AFTER_READ
        if membership.metadata.deleting:
            # What an earlier call may still do to a server is over only when a listing has shown it.
            waits = any(held.since is not None for i, held in state.holds.items() if i not in state.members)
            return Freshness.AFTER_READ if waits and not seen.is_fresh else None
        asked = reconcile_requested(membership) is not None or reset_requested(membership) is not None
        resting = vetting.resting(seen, self.now, self.settings)
        free = [i for i in eligibility.candidates(state, mine) if not eligibility.rests(i, state, resting)]
        if seen.listing is None:
            coming = state.queued or any(eligibility.may_come(i, state, mine) for i in free)
            # Suspended, what would be done is told whatever calls are under way.
            looks = asked or spec.suspend or (coming and adding.may_add(membership, state, self.now))
            if state.open_batches and not looks:
                return None
            return Freshness.AFTER_READ if asked else Freshness.RECENT
        # Into how many calls a plan is cut, and whether one waits, depends on the pool.
        previews = spec.suspend and spec.approval is Approval.AUTOMATIC and not spec.rollout.canary
        if seen.is_fresh or previews:
            return None
        if state.queued or any(server_id not in seen.listing for server_id in state.holds):
            # All there, parts are the proof that the refused call was carried out: planning must see it (rule P15).
            return Freshness.AFTER_READ
        listed = (mine.server_ids | state.members) - state.called
        all_there = len(seen.listing.active_in(spec.node_pool.node_pool_id, listed)) == len(listed)
        return None if all_there else Freshness.AFTER_READ


def waiting_after(seen: Observation, now: datetime, steps: Sequence[Step]) -> Waiting | None:
    """What `Observation.waiting` is to be next time, by what planning came to."""
    if any(step.intent is not None for step in steps):
        return None
    what = next((kind for kind in WaitsFor if any(step.waits_for is kind for step in steps)), None)
    if what is None or seen.listing is None:
        # Where no look was needed it waits since the one before.
        return None if what is None else seen.waiting
    blockers = [step.blocker for step in steps if step.blocker is not None]
    if what is not WaitsFor.CHANGE:
        return Waiting(seen.listing.begun, what)
    if any(step.blocker is not None and step.waits_for is None for step in steps):
        # The other kind of call waits for what only a look shows.
        return None
    delays = [timedelta(seconds=step.delay) for step in steps if step.delay is not None]
    return Waiting(seen.listing.begun, what, next(iter(blockers), None), now + min(delays) if delays else None)
