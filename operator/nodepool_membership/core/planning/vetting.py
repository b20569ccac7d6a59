"""Servers held against the pool before a call names them: which of a plan may go on, and what is told (rule P27).

Not for: the rules (`core.preflight`), or which servers are planned (`eligibility`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import PREFLIGHT, FailureReason, FindingReason
from nodepool_membership.api.spec import PreflightMode, Spec
from nodepool_membership.core.observed.observation import Observation, PoolReport, Query
from nodepool_membership.core.observed.waiting import Blocker
from nodepool_membership.core.planning.gates import implausible
from nodepool_membership.core.preflight.facts import Inspection, ReadFailure
from nodepool_membership.core.preflight.findings import merged, of_listed
from nodepool_membership.core.preflight.hazards import hazards, obstacles
from nodepool_membership.core.preflight.judge import Found, Judged, judge
from nodepool_membership.core.preflight.rules import Asked, Tag
from nodepool_membership.core.state.failures import Cause
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State

MAX_AGE: Final = timedelta(seconds=60)
"""What was read is not older when its call leaves: an intent is dated by it, and its call leaves in time (P5, P27)."""


_READ_FIRST: Final = 50
"""Servers that are read before a call at least: one request of ECS takes so many."""
_READ_NEXT: Final = 200
"""Servers that are read next, when none of the first ones may be sent."""


_BY_TAG: Final = Found(
    FindingReason.ABSENT_BY_TAG,
    "the node list and the node pool's own count of nodes disagree; that the server has no node is taken from its own"
    " document, which has none of CCE's tags",
)


@dataclass(frozen=True, slots=True)
class Vetted:
    """What came of all servers that were read for this decision."""

    state: State
    passed: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    """Those that could not be read and must be."""
    asked: frozenset[str] = frozenset()
    looked: datetime | None = None
    """What the passed are known by began to be read then, by whole seconds: the date of the intent. None: too old."""
    blocker: Blocker | None = None
    """Why some wait."""


def vet(membership: Membership, state: State, seen: Observation, now: datetime) -> Vetted | None:
    """Hold all servers that were read against the pool, once a decision; None: none are to be read."""
    preflight, inspection = membership.spec.preflight, seen.inspection
    if not preflight.reads:
        return None
    if inspection is None:
        return Vetted(state)
    verdict = judged(membership, seen, inspection)
    unproven = frozenset[str]()
    if not seen.proves_absence(membership.spec.node_pool.node_pool_id):
        unproven = maybe_nodes(verdict, inspection)
        verdict = replace(verdict, told=with_proof(verdict, verdict.passed - unproven))
    causes = {i: _cause(found, state.attempts(i)) for i, found in verdict.failed.items()}
    state = with_findings(state.with_causes(causes.items()), membership.spec, seen, inspection.asked, verdict.told)
    looked = inspection.began.replace(microsecond=0)
    blocker = _unread(verdict.why, len(verdict.waiting)) if verdict.waiting else None
    waiting = verdict.waiting | unproven
    return Vetted(
        state,
        verdict.passed - unproven,
        frozenset(verdict.failed),
        waiting,
        inspection.asked,
        looked if timedelta() <= now - looked <= MAX_AGE else None,
        (blocker or implausible()) if waiting else None,
    )


def judged(membership: Membership, seen: Observation, inspection: Inspection) -> Judged:
    """The verdict over each server that was read."""
    return judge(_asked(membership, seen, inspection), membership.spec.preflight.mode)


def maybe_nodes(verdict: Judged, inspection: Inspection) -> frozenset[str]:
    """Of those that are fit, whose own documents do not prove that they are in no cluster (rule P13)."""
    servers = inspection.servers
    return frozenset(i for i in verdict.passed if i not in servers or not servers[i].is_in_no_cluster)


def with_proof(verdict: Judged, ids: frozenset[str]) -> Mapping[str, tuple[Found, ...]]:
    """What is told of servers, and of these that only their own documents prove that they have no node."""
    return {**verdict.told, **{i: (*verdict.told.get(i, ()), _BY_TAG) for i in ids}}


def next_read(chosen: Iterable[str], most: int, asked: frozenset[str]) -> Query:
    """The servers that are read next, smallest ids first. Few at first: most servers are fit."""
    size = _READ_NEXT if asked else max(most, _READ_FIRST)
    return Query(servers=frozenset(sorted(frozenset(chosen) - asked)[:size]))


def _asked(membership: Membership, seen: Observation, inspection: Inspection) -> Asked:
    if seen.pool is None or seen.cluster is None:
        raise ValueError("servers are held against a pool that was not looked at")
    pool, required = membership.spec.node_pool, membership.spec.preflight.required_tag
    tag = None
    if required is not None:
        tag = Tag(required.key, pool.node_pool_id if required.value is None else required.value)
    return Asked(pool.project_id, seen.pool.template, seen.cluster.network, inspection, tag)


def _cause(found: Found, attempts: int) -> Cause:
    return Cause(FailureReason(found.reason), plain_text(found.message), attempts)


def _unread(why: ReadFailure | None, servers: int) -> Blocker:
    if why is None:
        raise ValueError("servers wait without a cause")
    text = f"spec.preflight asks for servers to be read before they are added, and {servers} cannot be: {why.message}"
    return Blocker(why.reason, text)


def with_findings(
    state: State,
    spec: Spec,
    seen: Observation,
    looked_at: frozenset[str] = frozenset(),
    told: Mapping[str, tuple[Found, ...]] | None = None,
) -> State:
    """What is told of the pool as it was seen, and of servers that were looked at; nothing while preflight is off."""
    if spec.preflight.mode is PreflightMode.OFF:
        return replace(state, findings=())
    if seen.pool is None:
        return state
    pool = [*hazards(seen.pool.template, len(state.members), state.proven_template), *_obstacles(spec, seen, seen.pool)]
    known = of_listed(state.findings, spec.server_ids)
    return replace(state, findings=merged(known, looked_at, told or {}, pool))


def _obstacles(spec: Spec, seen: Observation, pool: PoolReport) -> Iterable[Found]:
    most = None if seen.cluster is None else seen.cluster.most_nodes
    if seen.listing is None or (most is None and not pool.hindrances):
        return ()
    listing = seen.listing
    wanted = sum(server_id not in listing for server_id in spec.server_ids)
    return obstacles(pool.hindrances, most, len(listing), wanted)


def resting(seen: Observation, now: datetime, settings: Settings) -> frozenset[str]:
    """Servers that were read and not sent a short while ago: each is read about once a resync interval."""
    return frozenset(i for i, moment in seen.refused.items() if abs(now - moment) < settings.resync_interval / 2)


def refused(state: State, seen: Observation) -> dict[str, datetime]:
    """What `Observation.refused` is to be next time: when servers that were read and are not sent were read last."""
    failed = {i for i, cause in state.failures.items() if cause.reason in PREFLIGHT}
    if not failed:
        return {}
    inspection = seen.inspection
    fresh = {} if inspection is None else dict.fromkeys(failed & inspection.asked, inspection.began)
    return {**{i: moment for i, moment in seen.refused.items() if i in failed}, **fresh}
