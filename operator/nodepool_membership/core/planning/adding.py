"""What is added next, if anything: the next intent, or what keeps one from being made.

Not for: which servers are eligible (`eligibility`), what any call needs (`gates`), or what the conditions say
(`verdict`).
"""

from dataclasses import dataclass, replace
from datetime import datetime

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.status import Operation
from nodepool_membership.core.observed import clock
from nodepool_membership.core.observed.observation import NodeTable, Observation, PoolReport, Query
from nodepool_membership.core.observed.waiting import Blocker, WaitsFor
from nodepool_membership.core.planning import eligibility, gates, narrowing, vetting
from nodepool_membership.core.planning.gates import Step
from nodepool_membership.core.servers import batches, rollout
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State


def may_add(membership: Membership, state: State, now: datetime) -> bool:
    """Whether an add could start now as far as the membership itself is concerned."""
    spec = membership.spec
    if spec.suspend:
        return True
    waits = state.halt is not None or state.recovers(now) or state.waits_until(Operation.ADD, now) is not None
    waits = waits or gates.paused_object(membership) is not None
    return not waits and not batches.fill_all_turns(state.open_batches, spec, now)


def next_add(  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
    membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings
) -> Step | Query:
    """The next add (rules P1, P3, P4), or what has to be known first.

    `membership` lists only servers that no other one has the better right to.
    """
    spec = membership.spec
    if spec.suspend:
        return Step(state, waits_for=WaitsFor.CHANGE)
    if membership.metadata.deleting or seen.listing is None or seen.pool is None or not seen.is_fresh:
        return Step(state)
    waiting = bool(state.queued or eligibility.candidates(state, spec))
    if (skewed := clock.skew(seen.clock_offset_seconds)) is not None:
        # A wait that such a clock takes for over may not be.
        return Step(state, blocker=Blocker(skewed.reason, skewed.message) if waiting or state.open_batches else None)
    if eligibility.shows(state.queued, seen.listing, spec.node_pool.node_pool_id):
        return Step(narrowing.in_doubt(state, now), doubted=True)
    if state.halt is not None:
        return Step(state)
    if (halt := rollout.failed(state, spec, seen.pool, now)) is not None:
        return Step(replace(state, halt=halt))
    if seen.rivals is None:
        return Step(state, blocker=gates.STARTING if waiting else None)
    resting = vetting.resting(seen, now, settings)
    evidence = _Evidence(seen, seen.listing, seen.pool, now)
    vetted = vetting.vet(membership, state, seen, now)
    if vetted is not None:
        state, resting = vetted.state, resting | vetted.refused
    return _planned(membership, eligibility.without_idle_parts(state, spec, resting), evidence, resting, vetted)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What adds are planned from."""

    seen: Observation
    table: NodeTable
    pool: PoolReport
    now: datetime


def _planned(  # noqa: C901, PLR0911 - a chain of questions: the first that has an answer ends it
    membership: Membership, state: State, evidence: _Evidence, resting: frozenset[str], vetted: vetting.Vetted | None
) -> Step | Query:
    """`resting`: servers that are not sent, as was read now or a short while ago."""
    spec, seen, now = membership.spec, evidence.seen, evidence.now
    chosen = eligibility.next_part(state, spec, resting) or eligibility.eligible(
        state, spec, evidence.table, now, resting
    )
    if chosen is None:
        return Step(state)
    if isinstance(chosen, eligibility.RetryAt):
        return Step(state, delay=gates.seconds(chosen.moment - now), waits_for=WaitsFor.CHANGE)
    most = rollout.most(state, spec, evidence.pool)
    if not most:
        return Step(state, more=True, waits_for=WaitsFor.CHANGE)
    servers = min(most, len(chosen.ids))
    # Of the parts of a refused call only the nodes tell whether it was carried out (rule P15).
    wanted = gates.Wanted(Operation.ADD, servers, by_tag=vetted is not None and chosen.part is None)
    blocked = gates.before_call(membership, state, wanted, seen, now)
    if isinstance(blocked, Step) and blocked.blocker is not None:
        return blocked
    if batches.fill_all_turns(state.open_batches, spec, now):
        return Step(state, more=True)
    if blocked is not None:
        return blocked
    if vetted is None:
        return _intended(state, chosen, chosen.ids, most, now, evidence)
    if fit := chosen.ids & vetted.passed:
        if vetted.looked is None:
            # It is too old for a call, and has to be read again.
            return Step(state, delay=0.0, more=True)
        return _intended(state, chosen, fit, most, vetted.looked, evidence)
    if chosen.ids & vetted.waiting:
        return Step(state, blocker=vetted.blocker)
    return vetting.next_read(chosen.ids, most, vetted.asked)


def _intended(
    state: State, chosen: eligibility.Eligible, fit: frozenset[str], most: int, date: datetime, evidence: _Evidence
) -> Step:
    """The call for the first ones that are fit, smallest ids first."""
    state, intent = eligibility.intend(state, chosen, sorted(fit)[:most], date, rollout.template_digest(evidence.pool))
    return Step(state, intent=intent)


def without_served_waits(state: State, seen: Observation, now: datetime) -> State:
    """Drop waits that are over: what they told of is no longer so.

    That of a lost status is over only by a clock that was compared with the cloud's: nothing else tells how long a call
    may have been under way (rules P2, P21).
    """
    if seen.is_skewed:
        return state
    if seen.tells_time and state.recovery is not None and not state.recovers(now):
        state = replace(state, recovery=None)
    return state.without_waits(*(operation for operation, wait in state.waits.items() if wait.until <= now))
