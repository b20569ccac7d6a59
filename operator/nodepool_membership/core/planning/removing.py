"""What is removed next, if anything: the next intent of a removal, or what keeps one from being made (rules P18, P20).

Not for: which recorded members are owed removal (`edits.apply_spec`), or what becomes of a removal (`removals`).
A removal reinstalls the operating system: whatever is in doubt is left alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Batch, Operation, Phase
from nodepool_membership.core.observed.observation import ACTIVE, BROKEN, Node, Observation, Query
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.observed.waiting import Blocker
from nodepool_membership.core.planning import eligibility, gates
from nodepool_membership.core.planning.approval import Standing
from nodepool_membership.core.planning.gates import Step
from nodepool_membership.core.servers import batches
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import Held, State
from nodepool_membership.core.wording import counted

REMOVABLE: Final = BROKEN | {ACTIVE}
"""Phases of nodes that a call may name: one that installs makes the cloud refuse the whole call."""


def due(
    membership: Membership, state: State, seen: Observation, now: datetime, settings: Settings
) -> Mapping[str, Node]:
    """The members that a removal may name now, by server id: THE rule of what is removed.

    Owed for the removal delay; named by no batch and no other membership; their node in our pool in a listing begun
    after the object was read; not refused too often or too recently.
    """
    if seen.listing is None or seen.rivals is None or not seen.is_fresh or now < settled_at(state, now, settings):
        return {}
    named = {i for b in state.batches for i in b.server_ids} | seen.rivals.keys()
    pool_id = membership.spec.node_pool.node_pool_id
    return {
        server_id: node
        for server_id, node in seen.listing.nodes(state.surplus - named).items()
        if node.pool_id == pool_id
        and not _is_unready(node)
        and state.attempts(server_id) < membership.spec.max_attempts
        and _not_before(server_id, state, now) <= now
    }


def may_remove(membership: Membership, state: State, now: datetime, settings: Settings) -> bool:
    """Whether a removal could start now as far as the membership itself is concerned."""
    waits = state.recovers(now) or state.waits_until(Operation.REMOVE, now) is not None
    waits = waits or gates.paused_object(membership) is not None
    return (
        bool(state.surplus)
        and not membership.spec.suspend
        and not waits
        and now >= settled_at(state, now, settings)
        and not batches.fill_all_turns(state.open_batches, membership.spec, now)
    )


def is_surplus_since_the_future(state: State, now: datetime) -> bool:
    """Whether a clock was off when `surplusSince` was stored, or is off now: a look at the cloud tells (rule P21)."""
    return bool(state.surplus) and state.surplus_since is not None and state.surplus_since > now


def without_lost(state: State, spec: Spec, seen: Observation, gone: Mapping[str, datetime]) -> State:
    """Owed members that are no longer ours to remove: in another pool, or `gone` by the rule of drift (P13)."""
    if not state.surplus or seen.listing is None or not seen.is_fresh:
        return state
    nodes = seen.listing.nodes(state.surplus)
    moved = {i for i, node in nodes.items() if node.pool_id != spec.node_pool.node_pool_id}
    vanished = (state.surplus & gone.keys()) - nodes.keys()
    lost = moved | vanished
    if not lost:
        return state
    state = state.with_holds({i: Held(gone[i].replace(microsecond=0)) for i in vanished})
    return replace(state, members=state.members - lost, surplus=state.surplus - lost).without_causes(lost)


def without_claimed(state: State, rivals: Rivals) -> State:
    """Owed members that another membership names: it takes them over, and nothing is removed (rules P16, P18)."""
    claimed = state.surplus & rivals.keys()
    if not claimed:
        return state
    return replace(state, members=state.members - claimed, surplus=state.surplus - claimed).without_causes(claimed)


def next_removal(  # noqa: C901, PLR0911 - a chain of questions: the first that has an answer ends it
    membership: Membership, standing: Standing, seen: Observation, now: datetime, settings: Settings
) -> Step | Query:
    """The intent of the next removal, else what removing waits for. It never waits for what an add waits for."""
    spec, state = membership.spec, standing.state
    if not state.surplus or spec.suspend:
        return Step(state)
    if membership.metadata.deleting:
        if seen.namespace_state is None:
            return Query(namespace_state=True)
        if seen.namespace_state.keeps is not None:
            return Step(released(state))
    settled = settled_at(state, now, settings)
    if now < settled:
        return _unsettled(membership, state, seen, gates.seconds(settled - now))
    wait = state.waits_until(Operation.REMOVE, now)
    # Also where nobody looked for it: what is waited for is told as long as that is so.
    left = any(state.attempts(i) < spec.max_attempts for i in state.surplus)
    if left and (paused := gates.paused_object(membership)) is not None:
        return Step(state, blocker=paused)
    if left and wait is not None:
        return Step(state, blocker=Blocker(wait.reason, wait.message), delay=gates.seconds(wait.until - now))
    nodes = due(membership, state, seen, now, settings)
    if not nodes:
        moments = [m for i in state.surplus if (m := _not_before(i, state, now)) > now]
        delay = gates.seconds(min(moments) - now) if moments else None
        return Step(state, blocker=_not_due(membership.spec, state, seen) if left else None, delay=delay)
    if standing.covered is not None and not (nodes := {i: n for i, n in nodes.items() if i in standing.covered}):
        # No person has said yes to it, or none could: what is to be done is not certain (rules P13, P29).
        return Step(state, blocker=standing.blocker, waits_for=standing.waits_for)
    blocked = gates.before_call(
        membership, state, gates.Wanted(Operation.REMOVE, min(len(nodes), spec.batch_size)), seen, now
    )
    if isinstance(blocked, Step) and blocked.blocker is not None:
        return blocked
    if batches.fill_all_turns(state.open_batches, spec, now):
        return Step(state, more=True)
    if blocked is not None:
        return blocked
    planned, intent = _intend(state, spec, nodes, now)
    return Step(planned, intent=intent)


def _not_due(spec: Spec, state: State, seen: Observation) -> Blocker | None:
    """Why none of those who are owed is named now, where neither a time nor a call of ours is waited for."""
    if seen.rivals is None:
        return gates.STARTING
    if seen.listing is None or not seen.is_fresh or state.open_batches:
        return None
    left = (i for i in state.surplus if state.attempts(i) < spec.max_attempts)
    unready = [node for node in seen.listing.nodes(left).values() if _is_unready(node)]
    if not unready:
        return None
    phases = sorted({plain_text(node.phase, 40) if node.uid else "several nodes" for node in unready})
    text = (
        f"{counted(len(unready), 'member')} to be removed cannot be yet ({', '.join(phases)}): the cloud is asked to"
        " remove a node that is Active or broken, and the only one of its server"
    )
    return Blocker(Reason.PROGRESSING, text)


def _is_unready(node: Node) -> bool:
    return not node.uid or node.phase not in REMOVABLE


def _unsettled(membership: Membership, state: State, seen: Observation, delay: float) -> Step | Query:
    """Nothing is removed before the delay is over; that nothing will be then, for a pause, is told already."""
    if gates.paused_object(membership) is not None:
        return Step(state, delay=delay)
    if seen.namespace_state is None:
        return Query(namespace_state=True)
    why = seen.namespace_state.paused
    return Step(state, blocker=None if why is None else gates.paused_namespace(why), delay=delay)


def released(state: State) -> State:
    """Let go of everybody without a removal."""
    return replace(state, members=frozenset(), surplus=frozenset()).without_causes(state.surplus)


def settled_at(state: State, now: datetime, settings: Settings) -> datetime:
    """When those who are owed have been so for the removal delay: until then an edit, or Retain, stops it."""
    # A stored time in the future counts as now (rule P21).
    since = now if state.surplus_since is None else min(state.surplus_since, now)
    return since + settings.removal_delay


def _not_before(server_id: str, state: State, now: datetime) -> datetime:
    cause = state.failures.get(server_id)
    return now if cause is None or cause.retry_at is None else cause.retry_at


def _intend(state: State, spec: Spec, nodes: Mapping[str, Node], now: datetime) -> tuple[State, Batch]:
    """At most `batchSize` servers with as few failed removals behind them as there are, smallest ids first."""
    fewest = min(state.attempts(i) for i in nodes)
    ids = sorted(i for i in nodes if state.attempts(i) == fewest)[: spec.batch_size]
    number = eligibility.next_number(state)
    batch = Batch(
        batch=number,
        operation=Operation.REMOVE,
        attempt=fewest + 1,
        phase=Phase.SUBMITTING,
        servers=len(ids),
        server_ids=tuple(ids),
        node_ids=tuple(nodes[i].uid for i in ids),
        submit_time=now,
    )
    state = replace(state, members=state.members - set(ids), surplus=state.surplus - set(ids)).without_causes(ids)
    return replace(state, last_batch=number).without_waits(Operation.REMOVE).with_batch(batch), batch
