"""What is recorded, held against what was just seen: the stages before anything is planned, for calls and for previews.

Not for: what is called next (`adding`, `removing`), or what would be (`preview`).
"""

from dataclasses import dataclass, field
from datetime import datetime

from nodepool_membership.api.membership import Membership
from nodepool_membership.core.observed import clock, drift, rivals
from nodepool_membership.core.observed.drift import Absences
from nodepool_membership.core.observed.observation import NodeTable, Observation
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.planning import adding, removing
from nodepool_membership.core.servers import batches, members, removals, rollout
from nodepool_membership.core.servers.members import ListingEvidence
from nodepool_membership.core.state.edits import apply_spec
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of it: the state, and what was counted and held back on the way."""

    state: State
    absences: Absences = field(default_factory=dict)
    withheld: Rivals = field(default_factory=dict)
    """Servers that were owed removal and are not any more, since another membership names them (rule P18)."""


def advanced(membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings) -> State:
    """Live calls followed by their jobs and nodes, by a clock that counts."""
    spec = membership.spec
    state = clock.corrected(state, spec, seen, now, settings)
    state = adding.without_served_waits(state, seen, now)
    state = batches.advance(state, spec, seen, now, settings)
    # Who was not removed after all is what the spec says of it.
    return apply_spec(removals.advance(state, spec, seen, now, settings), membership)


def compared(
    membership: Membership, state: State, table: NodeTable, seen: Observation, now: datetime, settings: Settings
) -> Compared:
    """Servers held against the listing, and against the claims of others (rules P13, P16, P18, P19)."""
    spec, others = membership.spec, seen.rivals or {}
    certain = seen.proves_absence(spec.node_pool.node_pool_id)
    state = rivals.concede(state, others)
    withheld = {i: others[i] for i in state.surplus & others.keys()}
    state = removing.without_claimed(state, others)
    absences = members.count_absences(
        state, seen.absences, ListingEvidence(table, certain, seen.absences, now, settings)
    )
    gone = {i: absences[i].first for i in drift.gone(absences)}
    state = removing.without_lost(state, spec, seen, gone)
    evidence = ListingEvidence(table, certain, absences, now, settings)
    if membership.metadata.deleting:
        return Compared(members.without_ended_holds(state, evidence), absences, withheld)
    state = members.apply_listing(state, rivals.adoptable(spec, state, seen.rivals), evidence)
    state = rollout.proven_late(state, table, seen.pool)
    return Compared(state, absences, withheld)
