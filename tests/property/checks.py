"""What holds for every decision and for every status that is stored, whatever happened before.

Not for: making them happen (`driver`, the state machine).
"""

import re
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.api.membership import Json, Membership, status_json
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import DRIFT, HOLDS_NODE, PREFLIGHT, VANISHED, Reason
from nodepool_membership.api.spec import Approval, RemovalPolicy, Spec
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.decision.decide import Decision
from nodepool_membership.core.observed.drift import LISTINGS_WITHOUT
from nodepool_membership.core.observed.observation import NamespaceState, NodeTable, Observation
from nodepool_membership.core.observed.provenance import is_older
from nodepool_membership.core.state.settings import JOB_GRACE
from property.cloud_model import POOL
from property.inventory import MAX_AGE
from told import condition_of

MIN_HOLD: Final = timedelta(minutes=10)
"""No settle window of the searches is shorter."""
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def _in_flight(batches: list[Batch], spec: Spec, now: datetime) -> int:
    """Jobs that may run, those that should long have ended left out."""
    longest = timedelta(seconds=spec.join_timeout_seconds) + JOB_GRACE
    return sum(
        b.is_open
        and b.settling_since is None
        and (b.job_id is None or b.submit_time is None or now <= b.submit_time + longest)
        for b in batches
    )


def check_decision(membership: Membership, decision: Decision, seen: Observation, now: datetime) -> None:
    """What holds for a decision, held against the listing it was made from (rules P1, P3, P10, P11, P12)."""
    before, after, spec = membership.status, decision.status, membership.spec
    table = seen.listing
    # Who was not removed after all is what it was before: a recorded member, however its node is.
    back = {i for b in before.open_batches if b.operation is Operation.REMOVE for i in b.server_ids}
    fresh_members = set(after.members) - set(before.members) - back
    if fresh_members:
        assert table is not None, "members without a look"
        assert fresh_members <= table.active_in(POOL, fresh_members), "a member that is not Active in the pool"
    ready = condition_of(after, "Ready")
    assert ready is not None, "no Ready condition"
    hidden = table is not None and seen.is_fresh and not seen.proves_absence(POOL)
    if ready.status == "True" and ready.reason is Reason.SUCCEEDED and seen.trouble is None and not hidden:
        assert table is not None, "Ready without a listing"
        doubted = {
            i for i, absence in decision.absences.items() if absence.listings < LISTINGS_WITHOUT and i not in table
        }
        there = table.active_in(POOL, spec.server_ids) | doubted
        assert there >= spec.server_ids, "Ready, but not every server is Active, or absent for a moment only (P13)"
    assert after.next_time is None or after.next_time > now, "NEXT is not to come"
    judged = seen.trouble is None and not seen.is_skewed and not decision.doubted
    if table is not None and table.begun >= seen.read_at and judged:
        for batch in after.open_batches:
            unseen = batch.phase is Phase.VERIFYING and batch.job_id is None and batch.settling_since is None
            begun = batch.submit_time
            if batch.operation is not Operation.ADD or batch == decision.intent or not unseen or begun is None:
                continue
            young = {i for i, node in table.nodes(batch.server_ids).items() if not is_older(node, begun)}
            assert begun > table.begun or not young, "first sight proves acceptance (P11)"
    if decision.intent is not None and decision.intent.operation is Operation.REMOVE:
        _check_removal(membership, decision, decision.intent, seen, now)
    elif decision.intent is not None:
        _check_intent(membership, decision, decision.intent, table, seen, now)


def _check_intent(
    membership: Membership,
    decision: Decision,
    intent: Batch,
    table: NodeTable | None,
    seen: Observation,
    now: datetime,
) -> None:
    spec, ids = membership.spec, set(intent.server_ids)
    others = [b for b in decision.status.jobs if b.batch != intent.batch]
    assert intent in decision.status.jobs, "an intent that would not be stored"
    assert not spec.suspend, "a call while suspended"
    assert 0 < len(ids) == len(intent.server_ids) == intent.servers <= spec.batch_size, "size of a batch"
    assert _in_flight(others, spec, now) < spec.max_parallel_jobs, "too many jobs"
    assert ids <= spec.server_ids, "a server that the spec does not name"
    assert ids.isdisjoint(decision.status.members), "a member is named"
    reset = decision.status.last_handled_reset_at != membership.status.last_handled_reset_at
    gone = {i for g in membership.status.failures if reset and g.reason in VANISHED for i in g.server_ids}
    assert ids.isdisjoint(set(membership.status.members) - gone), "a member is named that nobody asked to take up again"
    assert all(ids.isdisjoint(b.server_ids) for b in others), "a server of another batch is named"
    assert table is not None, "a call without a listing"
    assert table.begun >= seen.read_at, "a call after a stale listing"
    assert not table.present(ids), "a server that has a node is named"
    held = {i: hold.since for hold in membership.status.holds for i in hold.server_ids if i in ids}
    assert all(since is not None and since + MIN_HOLD <= now for since in held.values()), "a held server is named (P8)"
    assert intent.attempt <= spec.max_attempts, "too many attempts"
    looked = now if seen.inspection is None else seen.inspection.began.replace(microsecond=0)
    assert spec.preflight.reads == (seen.inspection is not None), "servers are read, or not"
    assert intent.submit_time == looked, "submitTime is when what is known of the servers was read"
    assert now - MAX_AGE <= looked <= now, "what is known of the servers is old (P27)"
    assert seen.inspection is None or ids <= seen.inspection.asked, "a server is named that was not read (P27)"
    assert intent.batch > (membership.status.last_batch or 0), "a batch number is used again"
    assert seen.write_wait == 0, "a call without a place in the budget"


def _check_removal(membership: Membership, decision: Decision, intent: Batch, seen: Observation, now: datetime) -> None:
    """What holds for a removal (rules P18, P19, P20). How long who was off the list, `driver` knows."""
    spec, ids, table = membership.spec, set(intent.server_ids), seen.listing
    others = [b for b in decision.status.jobs if b.batch != intent.batch]
    assert intent in decision.status.jobs, "an intent that would not be stored"
    assert not spec.suspend, "a removal while suspended"
    if membership.metadata.deleting:
        assert spec.deletion_policy is RemovalPolicy.REMOVE, "a removal on deletion that nobody asked for"
        assert seen.namespace_state == NamespaceState(), "a removal although the namespace may be going"
        released = spec.removal_policy is RemovalPolicy.RETAIN
        assert not released or ids <= spec.server_ids, "who left the list under Retain is removed by a deletion"
    else:
        assert spec.removal_policy is RemovalPolicy.REMOVE, "a removal that nobody asked for"
        assert ids.isdisjoint(spec.server_ids), "a server that the spec names is removed"
    assert 0 < len(ids) == len(intent.server_ids) == intent.servers <= spec.batch_size, "size of a batch"
    assert _in_flight(others, spec, now) < spec.max_parallel_jobs, "too many jobs"
    assert table is not None, "a call without a listing"
    assert table.begun >= seen.read_at, "a call after a stale listing"
    before = membership.status
    joined = {i for b in before.open_batches if b.operation is Operation.ADD for i in b.server_ids} & spec.server_ids
    back = {i for b in before.open_batches if b.operation is Operation.REMOVE for i in b.server_ids}
    assert ids <= set(before.members) | joined | back, "who is no recorded member is removed"
    assert all(ids.isdisjoint(b.server_ids) for b in others), "a server of another batch is removed"
    assert ids.isdisjoint(decision.status.members), "a server in an open removal is a member"
    nodes = table.nodes(ids)
    assert [nodes[i].uid for i in intent.server_ids] == list(intent.node_ids), "not the servers' nodes"
    assert {node.pool_id for node in nodes.values()} == {POOL}, "a node outside our pool is removed"
    assert intent.attempt <= spec.max_attempts, "too many attempts"
    assert intent.submit_time == now, "submitTime"
    assert intent.batch > (before.last_batch or 0), "a batch number is used again"
    assert seen.write_wait == 0, "a call without a place in the budget"


def check_words(membership: Membership, intent: Batch, covered: frozenset[str], template: str) -> None:
    """No add without a yes where one is asked for (rule P29), and a canary goes first and alone (rule P28)."""
    if intent.operation is not Operation.ADD:
        return
    spec, others = membership.spec, [b for b in membership.status.open_batches if b.batch != intent.batch]
    if spec.approval is Approval.MANUAL:
        assert set(intent.server_ids) <= covered, "servers are added that no approval covers (P29)"
    if spec.rollout.canary and membership.status.proven_template != (template or "-"):
        assert len(intent.server_ids) <= spec.rollout.canary, "more than the canary is added (P28)"
        of_template = [b for b in others if b.operation is Operation.ADD and b.template == intent.template]
        open_ones = [b for b in of_template if (b.pardoned or 0) < b.servers]
        assert not open_ones, "an add beside the canary (P28)"


def check_status(membership: Membership, status: Status) -> None:
    """What holds for every status that is stored (rule P25)."""
    spec, generation = membership.spec, membership.metadata.generation
    adds = [b for b in status.jobs if b.server_ids and b.operation is Operation.ADD]
    removals = [b for b in status.jobs if b.server_ids and b.operation is Operation.REMOVE]
    named = [i for b in (*adds, *removals) for i in b.server_ids]
    assert len(named) == len(set(named)), "batches overlap"
    assert all(b.is_open or b.phase is Phase.QUEUED for b in adds), "a finished batch names servers"
    assert all(b.is_open for b in removals), "a finished removal names servers"
    assert all(len(b.node_ids) == len(b.server_ids) for b in removals), "nodes and servers of a removal"
    acting = {i for b in adds if b.phase is Phase.RUNNING and b.job_id for i in b.server_ids}
    assert (set(named) - acting).isdisjoint(status.members), "a member is in an open batch whose job is not overdue"
    held = [i for hold in status.holds for i in hold.server_ids]
    assert len(held) == len(set(held)), "a server in two groups of holds"
    assert set(held).isdisjoint(named), "a server is held while a call for it is open"
    assert not status.open_batches or FINALIZER in membership.metadata.finalizers, "open without a finalizer (P2)"
    assert len(status.failures) <= 50, "too many groups of failures"
    _check_counts(membership, status, {i for b in adds if b.is_open for i in b.server_ids})
    kinds = [c.type for c in status.conditions]
    assert len(kinds) == len(set(kinds)), "a condition twice"
    assert not {"Reconciling", "Stalled"} <= set(kinds), "Reconciling and Stalled"
    assert all(c.status == "True" for c in status.conditions if c.type != "Ready"), "abnormal conditions are True only"
    ready = condition_of(status, "Ready")
    assert ready is not None, "no Ready condition"
    if ready.status == "True":
        assert kinds == ["Ready"], "Ready together with an abnormal condition"
        assert ready.observed_generation == status.observed_generation == generation, "Ready for an older generation"
        assert status.joined == status.desired, "Ready, but not all joined"
        assert not status.surplus, "Ready, but removals are owed"
        assert (ready.reason is Reason.SUSPENDED) == spec.suspend, "Suspended"
    ours = spec.server_ids.union(status.members, named, *(g.server_ids for g in status.failures))
    ours |= {b.job_id for b in status.jobs if b.job_id}
    wire = status_json(status)
    conditions = wire.pop("conditions", [])
    assert isinstance(conditions, list)
    for told in conditions:
        assert isinstance(told, dict)
        assert len(str(told["message"])) <= 1024, "a message is too long"
        assert set(_UUID.findall(str(told["message"]))) <= ours, f"a message names what is not ours: {told['message']}"
    _check_text(wire, ())


def _check_counts(membership: Membership, status: Status, open_ids: set[str]) -> None:
    desired = membership.spec.server_ids
    joining = desired & open_ids
    book = [(i, g) for g in status.failures for i in g.server_ids]
    assert len(book) == len({i for i, _ in book}), "a server in two groups of failures"
    assert all(g.count == len(g.server_ids) for g in status.failures), "count of a group"
    lasting = HOLDS_NODE | DRIFT | PREFLIGHT
    waited_for = {i for i, g in book if g.reason in lasting and g.retry_time is not None}
    final = {i for i, g in book if g.reason in lasting or g.attempts >= membership.spec.max_attempts}
    joining -= set(status.members)
    failed = (final & desired) - joining - waited_for
    joined = (desired & set(status.members)) - joining - {i for i, _ in book}
    pending = desired - joining - failed - joined
    counts = (len(desired), len(joined), len(joining), len(failed), len(pending))
    stored = (status.desired, status.joined, status.joining, status.failed, status.pending)
    assert stored == counts, f"counts {stored}, by definition {counts} (P25)"
    assert status.desired == status.joined + status.joining + status.failed + status.pending, "P25"
    off_the_list = len(set(status.members) - desired)
    if membership.metadata.deleting:
        assert status.surplus in {0, len(status.members)}, "surplus on deletion"
    elif membership.spec.removal_policy is RemovalPolicy.REMOVE:
        assert status.surplus == off_the_list, "surplus"
    else:
        assert off_the_list == status.surplus == 0, "a member that is off the list"
    assert status.surplus_since is not None or not status.surplus, "surplusSince"


def _check_text(value: Json, path: tuple[str, ...]) -> None:
    assert value is not None, f"null at {path}"
    if isinstance(value, dict):
        for name, part in value.items():
            _check_text(part, (*path, name))
    elif isinstance(value, list):
        for part in value:
            _check_text(part, path)
    elif isinstance(value, str) and path[-1] == "message":
        assert len(value) <= 1024, f"{path} is too long"
        assert not _UUID.search(value), f"{path} names an id: {value}"
