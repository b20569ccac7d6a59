"""What would be done, and whether a person has said yes to it: plans, their ids and approvals (rule P29).

Not for: doing it (`adding`, `removing`). An approval is for the servers that were to be wiped when it was given: who
becomes a member leaves it. With the list, the template, or a deletion it is void.
"""

import json
from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from nodepool_membership.api.codec import DIGEST_LENGTH, digest
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import APPROVED_PLAN_ANNOTATION
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Approval, DriftPolicy, Spec
from nodepool_membership.api.status import ApprovedPlan, Operation, Plan
from nodepool_membership.core.observed import drift
from nodepool_membership.core.observed.observation import NodeTable, PoolReport
from nodepool_membership.core.observed.waiting import Blocker, WaitsFor
from nodepool_membership.core.planning import gates
from nodepool_membership.core.servers import rollout
from nodepool_membership.core.state.state import BYTES_PER_ID, State
from nodepool_membership.core.wording import counted


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would be done, now or after a wait: at least as much as it will be (promise of a preview)."""

    add: frozenset[str]
    """Servers that would be wiped."""
    adopt: frozenset[str]
    remove: frozenset[str]

    def waits(self, state: State, covered: Set[str]) -> bool:
        """Whether there is more to approve than members of which a look or two do not tell that they are gone."""
        return bool(self.remove - covered or self.add - state.members - covered)


@dataclass(frozen=True, slots=True)
class Standing:
    """What may be called of what is foreseen."""

    state: State
    covered: frozenset[str] | None = None
    """Servers that may be wiped, and members that may be removed; None: all."""
    plan: Plan | None = None
    """What waits for a person's word."""
    blocker: Blocker | None = None
    """Why that is not done."""

    @property
    def waits_for(self) -> WaitsFor | None:
        """A word, or room in the object for it; only a look shows when it is certain again what there is to be done."""
        return None if self.plan is None else WaitsFor.CHANGE


def foreseen(membership: Membership, spec: Spec, before: State, state: State, table: NodeTable) -> Foreseen:
    """What is to be done by a look at the cloud: `state` is `before` held against it.

    `spec` lists only servers that no other membership has the better right to.
    """
    absent = spec.server_ids - state.called - table.present(spec.server_ids)
    spent = {i for i, cause in state.failures.items() if cause.attempts >= spec.max_attempts}
    fresh = absent - state.members - spent
    gone = (absent & state.members) | state.vanished
    # Whether so many are believed to be gone is decided later: all others on the list may have joined by then.
    believed = not drift.is_implausible(len(gone), len(state.members | spec.server_ids))
    rejoins = spec.drift_policy is DriftPolicy.REJOIN and believed
    back = {i for i in absent & state.members if rejoins and not (i in state.holds and state.holds[i].mass)}
    add = frozenset() if membership.metadata.deleting else frozenset(fresh | back)
    return Foreseen(add, state.members - before.members, state.surplus)


def plan_of(membership: Membership, state: State, what: Foreseen, pool: PoolReport | None) -> Plan:
    """The plan with its id, which changes with the generation, the servers, and the template that they would get.

    And with each call: what has come of an approval that was given before is not what was approved (rule P29).
    """
    meta, spec = membership.metadata, membership.spec
    manual = spec.approval is Approval.MANUAL and bool(what.add) and pool is not None
    template = rollout.template_digest(pool) if manual and pool is not None else ""
    now = (meta.uid, meta.generation, meta.deleting, state.last_batch)
    parts = [*now, sorted(what.add), sorted(what.remove), template]
    return Plan(
        digest(json.dumps(parts)), len(what.add), _calls(state, spec, what.add, pool), len(what.adopt), len(what.remove)
    )


def _calls(state: State, spec: Spec, add: Iterable[str], pool: PoolReport | None) -> int:
    """In how many calls they would be named: each part of a refused call, then the others by the attempts behind them.

    Who was asked for alone before is so again.
    """
    groups: Counter[tuple[int, bool, int, str]] = Counter()
    parts = {server_id: part.batch for part in state.queued for server_id in part.server_ids}
    for server_id in add:
        cause = state.failures.get(server_id)
        alone = server_id if cause is not None and cause.asked else ""
        part = parts.get(server_id)
        groups[(1, cause is not None, state.attempts(server_id), alone) if part is None else (-part, False, 0, "")] += 1
    calls, first = 0, rollout.most(state, spec, pool) or spec.batch_size
    for _, number in sorted(groups.items()):
        calls += 1 + -(-max(number - first, 0) // spec.batch_size)
        first = spec.batch_size
    return calls


def standing(membership: Membership, state: State, what: Foreseen, pool: PoolReport, object_bytes: int = 0) -> Standing:
    """Hold what is foreseen by a fresh look against what was approved, and take up an approval that was just given."""
    if membership.spec.approval is not Approval.MANUAL:
        return Standing(replace(state, approved=None))
    word = membership.metadata.annotations.get(APPROVED_PLAN_ANNOTATION)
    approved = _still(state, membership, pool)
    covered = frozenset() if approved is None else frozenset(approved.server_ids)
    rest = replace(what, add=what.add - covered, remove=what.remove - covered)
    waits = plan_of(membership, state, rest, pool) if rest.add or rest.remove else None
    if waits is not None and word == waits.id:
        wanted = gates.Wanted(Operation.ADD, membership.spec.batch_size)
        more = BYTES_PER_ID * len(rest.add | rest.remove)
        if (full := gates.too_large(wanted, state, object_bytes, more=more)) is not None:
            return Standing(replace(state, approved=approved), covered, waits, full)
        covered |= rest.add | rest.remove
        approved = ApprovedPlan(waits.id, _scope(membership), rollout.template_digest(pool), tuple(sorted(covered)))
        waits = None
    elif approved is not None and word != approved.id:
        # It was withdrawn, or is another plan's.
        return standing(membership, replace(state, approved=None), what, pool, object_bytes)
    state = replace(state, approved=approved)
    return Standing(state, covered, waits, None if waits is None else awaited(membership, waits))


def _still(state: State, membership: Membership, pool: PoolReport) -> ApprovedPlan | None:
    """The approval as far as it still counts."""
    approved = state.approved
    if approved is None or (approved.scope, approved.template) != (_scope(membership), rollout.template_digest(pool)):
        return None
    # Who was removed is neither listed nor owed.
    return _only(approved, membership.spec.server_ids | state.surplus | state.removing)


def without_joined(state: State, table: NodeTable) -> State:
    """The state in which no approval covers who is a member by now: if its node goes, that needs another word.

    A member whose node is gone already may be one of those that were to be added again when it was given.
    """
    if state.approved is None:
        return state
    ids = frozenset(state.approved.server_ids)
    return replace(state, approved=_only(state.approved, ids - table.present(ids & state.members)))


def _only(approved: ApprovedPlan, ids: Set[str]) -> ApprovedPlan:
    left = tuple(i for i in approved.server_ids if i in ids)
    return approved if len(left) == len(approved.server_ids) else replace(approved, server_ids=left)


def _scope(membership: Membership) -> str:
    """Changes with each server that enters or leaves the list, and with the deletion."""
    return digest(json.dumps([sorted(membership.spec.server_ids), membership.metadata.deleting]))


def awaited(membership: Membership, waits: Plan) -> Blocker:
    """That a plan waits for a person's word."""
    what, word = [], membership.metadata.annotations.get(APPROVED_PLAN_ANNOTATION)
    if waits.add:
        what.append(f"{counted(waits.add, 'server')} would be WIPED in {counted(waits.calls, 'call')}")
    if waits.remove:
        what.append(f"{counted(waits.remove, 'member')} would be removed, which REINSTALLS them")
    other = "" if word is None else f" (it names {word[:DIGEST_LENGTH]!a}, which is no plan that waits)"
    text = (
        f"{' and '.join(what)}; spec.approval is Manual: nothing of it is called before the annotation"
        f" {APPROVED_PLAN_ANNOTATION} names the plan {waits.id}{other}"
    )
    return Blocker(Reason.AWAITING_APPROVAL, text)
