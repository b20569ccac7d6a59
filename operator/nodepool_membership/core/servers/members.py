"""Servers that no open call is about, held against the node list: adopted, drifted, held, or free again.

Not for: servers in open batches (`batches`), or which are sent next (`eligibility`).
"""

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import EXPLAINED, HOLDS_NODE, VANISHED, FailureReason
from nodepool_membership.api.spec import DriftPolicy, Spec
from nodepool_membership.core.observed import drift
from nodepool_membership.core.observed.drift import Absences
from nodepool_membership.core.observed.observation import ACTIVE, BROKEN, Node, NodeTable
from nodepool_membership.core.servers.batches import late, node_trouble
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import Held, State

_MISSING: Final = Cause(
    FailureReason.MEMBER_MISSING,
    "the member is no longer a node of the cluster; find out who removed it, then take it off"
    " spec.serverIDs, or set the annotation cce.nodepools.dev/reset-requested-at to add it again, which WIPES it",
    0,
)
_IMPLAUSIBLE: Final = Cause(
    FailureReason.LISTING_IMPLAUSIBLE,
    "the member is gone, and more than a tenth of all members were when it was missed, whether they went at once or one"
    " by one; it is not added again until the annotation cce.nodepools.dev/reset-requested-at is set, which WIPES it:"
    " make sure first that the node list is right",
    0,
)
_GONE: Final = "its node is gone; once that has been so for the settle window it is added again, which WIPES it"
_GONE_FOR_GOOD: Final = (
    "its node is gone and its attempts are used up; the annotation cce.nodepools.dev/reset-requested-at gives them back"
)
_OF_A_NODE: Final = frozenset({FailureReason.JOIN_TIMEOUT, FailureReason.NODE_ERROR, FailureReason.OTHER_POOL})
"""Failures that only the node tells of: they end with what it tells, or when `spec.joinTimeoutSeconds` is raised."""


@dataclass(frozen=True, slots=True)
class ListingEvidence:
    """What servers are held against. `certain`: what the listing lacks is not there (rule P13)."""

    table: NodeTable
    certain: bool
    absences: Absences
    now: datetime
    settings: Settings

    def is_free(self, held: Held) -> bool:
        """Whether a server that has no node now may be named again: rule P8."""
        if held.since is None or not self.certain:
            return False
        return min(self.now, self.table.begun) >= free_at(held.since, self.settings)


def free_at(since: datetime, settings: Settings) -> datetime:
    """When a server whose node was first found to be gone then may be named again (rule P8)."""
    return since + max(settings.settle_window, 2 * settings.resync_interval)


def adoptable(state: State, spec: Spec, table: NodeTable) -> Set[str]:
    """Listed ids, neither members nor in a batch, whose node is already Active in the pool."""
    return table.active_in(spec.node_pool.node_pool_id, spec.server_ids - state.members - state.called)


def apply_listing(state: State, spec: Spec, seen: ListingEvidence) -> State:
    """Bring members, holds and failures in line with a complete listing; whoever added a node, it counts (rule P19).

    `spec` lists only servers that no other membership has the better right to.
    """
    # A member whose job is overdue is told of like any other, though it is not let go of.
    mine, pool_id = spec.server_ids - state.joining - state.removing, spec.node_pool.node_pool_id
    # Whoever else they are members for by now, they did not fail.
    theirs = state.failures.keys() - mine - state.called - state.members - state.surplus
    state = state.without_causes(seen.table.active_in(pool_id, theirs))
    active = seen.table.active_in(pool_id, mine)
    if len(active) == len(mine) and active == state.members and not state.holds and not state.failures.keys() & active:
        return state
    state = replace(state, members=state.members | active).without_causes(active).without_holds(active)
    state = _report_or_rejoin(state, spec, seen)
    nodes = seen.table.nodes((mine - active) | state.holds.keys())
    state = _hold(state, mine - active, nodes, seen)
    # Of one without a node, a failure and a hold there is nothing to tell: of most, where many are new.
    known = (mine - active) & (nodes.keys() | state.failures.keys() | state.holds.keys())
    causes = {i: cause for i in known if (cause := _cause(i, state, spec, nodes.get(i), seen)) is not None}
    return state.with_causes(causes.items())


def without_ended_holds(state: State, seen: ListingEvidence) -> State:
    """The state without holds that are over, where nothing else is to come of the listing."""
    return _hold(state, frozenset(), seen.table.nodes(state.holds.keys()), seen)


def _hold(state: State, mine: Set[str], nodes: dict[str, Node], seen: ListingEvidence) -> State:
    """Hold who has a node and is no member, and let go of those whose node has been gone for long enough."""
    holds = dict(state.holds)
    for server_id in (nodes.keys() | holds.keys()) - state.called:
        node, held, member = nodes.get(server_id), holds.get(server_id), server_id in state.members
        if node is not None:
            if member or (server_id not in mine and node.phase == ACTIVE):
                holds.pop(server_id, None)
            else:
                holds[server_id] = Held()
        elif held is not None and held.since is None and seen.certain:
            holds[server_id] = replace(held, since=seen.table.begun.replace(microsecond=0))
        elif held is not None and not member and seen.is_free(held):
            del holds[server_id]
    return state if holds == state.holds else replace(state, holds=holds)


def _cause(server_id: str, state: State, spec: Spec, node: Node | None, seen: ListingEvidence) -> Cause | None:
    known = state.failures.get(server_id)
    if node is None:
        return _without_node(known, state.holds.get(server_id), spec, seen) if server_id not in state.members else known
    if server_id in state.members:
        return _drifted(node, known, spec, seen)
    cause = node_trouble(node, state.attempts(server_id), spec, seen.now, seen.now)
    if cause is None:
        return _in_time(node, known, spec, seen)
    if known is not None and cause.reason is FailureReason.NODE_ERROR and known.reason in EXPLAINED:
        # What a job told of a broken node is worth more than the node's phase.
        return known
    return cause


def _without_node(known: Cause | None, held: Held | None, spec: Spec, seen: ListingEvidence) -> Cause | None:
    """What remains of a failure once the server's node is gone."""
    if held is None or held.since is None:
        return known
    attempts = 0 if known is None else known.attempts
    if known is not None and known.reason not in HOLDS_NODE | {FailureReason.NODE_VANISHED}:
        return known
    retry_at = free_at(held.since, seen.settings) if attempts < spec.max_attempts else None
    if known is not None and known.reason in EXPLAINED | {FailureReason.NODE_VANISHED} and retry_at is not None:
        return replace(known, reason=FailureReason.NODE_VANISHED, retry_at=retry_at)
    text = _GONE if retry_at is not None else _GONE_FOR_GOOD
    return Cause(FailureReason.NODE_VANISHED, text, attempts, retry_at)


def _in_time(node: Node, known: Cause | None, spec: Spec, seen: ListingEvidence) -> Cause | None:
    """What is said of a server whose node is on its way, and may become a member, although no call of ours is open."""
    lasts = known is not None and (known.reason not in _OF_A_NODE or node.created is None)
    if known is not None and lasts and known.reason is not FailureReason.INSTALLING:
        # A cause that a job told is kept, and so is any if the node's age is not known: its time would never be over.
        return known
    attempts = 0 if known is None else known.attempts
    limit = timedelta(seconds=spec.join_timeout_seconds)
    if node.created is not None:
        until = node.created + limit
    elif known is not None and known.retry_at is not None:
        until = known.retry_at
    else:
        until = seen.now + limit
    if seen.now > until:
        return late(node.phase, spec, attempts)
    text = (
        f"its node is {plain_text(node.phase, 40)}, and no call of this membership is under way for it: it is waited"
        " for until spec.joinTimeoutSeconds after the node was made"
    )
    return Cause(FailureReason.INSTALLING, text, attempts, until)


def _drifted(node: Node, known: Cause | None, spec: Spec, seen: ListingEvidence) -> Cause:
    if node.pool_id != spec.node_pool.node_pool_id:
        text = "the member was moved to another node pool; move it back, or take it off spec.serverIDs"
        return Cause(FailureReason.OTHER_POOL, text, 0)
    phase = plain_text(node.phase, 40)
    if node.phase not in BROKEN:
        same = known is not None and known.reason is FailureReason.MEMBER_NOT_ACTIVE
        until = (
            known.retry_at if known is not None and same else seen.now + timedelta(seconds=spec.join_timeout_seconds)
        )
        if until is not None and seen.now <= until:
            text = f"the member's node is {phase}, which passes by itself; it is waited for spec.joinTimeoutSeconds"
            return Cause(FailureReason.MEMBER_NOT_ACTIVE, text, 0, until)
    text = f"the member's node is in phase {phase}, not Active; look at it in the CCE console"
    return Cause(FailureReason.MEMBER_NOT_ACTIVE, text, 0)


def _report_or_rejoin(state: State, spec: Spec, seen: ListingEvidence) -> State:
    """Report members that are gone, or make them eligible again where the spec asks for it."""
    state = state.without_holds(i for i in state.vanished if i in seen.table)
    absent = {i for i in seen.absences if i in state.members and i not in seen.table}
    before, called = state.vanished, state.called
    newly = (drift.gone(seen.absences) & absent) - before
    mass = drift.is_implausible(len(absent | before), len(state.members))
    # An add that may still act on them holds them, too, and for longer.
    free = newly - state.adding
    state = state.with_holds({i: Held(seen.absences[i].first.replace(microsecond=0), mass) for i in free})
    rejoins = spec.drift_policy is DriftPolicy.REJOIN and not mass
    back = {i for i in state.vanished if rejoins and not state.holds[i].mass}
    state = replace(state, members=state.members - back).without_causes(back)
    told = {i: _IMPLAUSIBLE if state.holds[i].mass else _MISSING for i in state.vanished}
    told |= dict.fromkeys(newly - free, _IMPLAUSIBLE if mass else _MISSING)
    gone = {i for i, c in state.failures.items() if c.reason in VANISHED and i not in told and i not in called}
    return state.without_causes(gone).with_causes(told.items())


def count_absences(state: State, known: Absences, seen: ListingEvidence) -> Absences:
    """Members, owed ones included, that complete listings lack, counted over several of them (rule P13)."""
    if not seen.certain:
        # It proves nobody's absence, but whoever it shows was not away all the time.
        return {i: a for i, a in known.items() if i not in seen.table or seen.table.begun < a.last}
    ours = state.members | state.surplus
    absent = ours - seen.table.present(ours)
    return drift.track(known, absent, seen.table.begun, seen.settings.resync_interval)
