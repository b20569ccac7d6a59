"""Servers that are in no open batch, held against the node list: adopted, drifted, failed, or free again.

Not for: servers in batches (`batches`), or which are sent next (`plan`).
"""

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import DRIFT, EXPLAINED, HOLDS_NODE, VANISHED, FailureReason
from nodepool_membership.api.spec import DriftPolicy, Leaving, Spec
from nodepool_membership.core.batches import node_trouble
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.observation import Node, NodeTable
from nodepool_membership.core.state import State

_MISSING: Final = Cause(
    FailureReason.MEMBER_MISSING,
    "the member is no longer a node of the cluster; find out who removed it, then take it off"
    " spec.serverIDs, or set the reset annotation to add it again",
    0,
)


_IMPLAUSIBLE: Final = Cause(
    FailureReason.LISTING_IMPLAUSIBLE,
    "the member is gone together with many others at once; none of them is added again until the reset annotation is"
    " set: make sure first that the node list is right and the servers may be wiped",
    0,
)


_OF_A_NODE: Final = frozenset({FailureReason.JOIN_TIMEOUT, FailureReason.NODE_ERROR, FailureReason.OTHER_POOL})
"""Failures that only the node tells of: they end with what it tells, or when `spec.joinTimeoutSeconds` is raised."""

_ON_ITS_WAY: Final = (
    "it failed before, its node is on its way again: it is waited for until spec.joinTimeoutSeconds after the node was"
    " made"
)


def sort_out(state: State, membership: Membership) -> State:
    """Hold what is recorded against the spec: what left the list is owed or released (rule P18).

    Attempts that an add has cost a server stay known when it leaves the list (rule P12), and so does its node (P1).
    """
    desired = membership.spec.server_ids
    recorded = state.members | state.owed
    owed = _owed(recorded, membership)
    members = recorded if recorded <= desired else recorded & desired
    return replace(state, members=members, owed=owed).without_causes(
        i for i, cause in state.book.items() if _is_forgotten(cause, listed=i in desired, owed=i in owed)
    )


def _owed(recorded: frozenset[str], membership: Membership) -> frozenset[str]:
    spec = membership.spec
    # The object may be deleted before the edit that took a server off its list is seen: under Retain that released it.
    off_the_list = recorded - spec.server_ids if spec.removal_policy is Leaving.REMOVE else frozenset()
    if not membership.metadata.deleting:
        return off_the_list
    # A deletion while suspended behaves as Retain.
    removes = spec.deletion_policy is Leaving.REMOVE and not spec.suspend
    return recorded & spec.server_ids | off_the_list if removes else frozenset()


def _is_forgotten(cause: Cause, *, listed: bool, owed: bool) -> bool:
    if cause.reason is FailureReason.REMOVAL_FAILED:
        return not owed
    return not listed and not owed and cause.is_forgettable


def adoptable(state: State, spec: Spec, table: NodeTable) -> Set[str]:
    """Listed ids, neither members nor in a batch, whose node is already Active in the pool."""
    return table.active_in(spec.node_pool.node_pool_id, spec.server_ids - state.members - state.engaged)


@dataclass(frozen=True, slots=True)
class Vanished:
    """Servers whose nodes count as gone (rule P13), and whether so many members at once are not to be believed."""

    ids: frozenset[str] = frozenset()
    implausible: bool = False


def compare(state: State, spec: Spec, table: NodeTable, now: datetime, vanished: Vanished) -> State:
    """Bring members and failures in line with a complete listing; whoever added a node, it counts (rule P19)."""
    mine = spec.server_ids - state.engaged
    active = table.active_in(spec.node_pool.node_pool_id, mine)
    if len(active) == len(mine) and active == state.members and not state.book.keys() & active:
        return state
    state = replace(state, members=state.members | active).without_causes(active)
    others = mine - active
    nodes = table.nodes(others)
    causes: dict[str, Cause] = {}
    for server_id in others:
        known, node = state.book.get(server_id), nodes.get(server_id)
        if node is None:
            stands = known is None or server_id in state.members or server_id not in vanished.ids
            cause = known if known is None or stands else _without_node(known)
        elif server_id in state.members:
            cause = _drifted(node, spec)
        else:
            cause = node_trouble(node, state.attempts(server_id), spec, now, now)
            if cause is None:
                cause = _in_time(known, node)
            elif _says_more(known, cause):
                cause = known
        if cause is not None:
            causes[server_id] = cause
    return _take_leave(state.with_causes(causes.items()), spec, vanished)


def holding_nodes(state: State) -> Set[str]:
    """Failed servers that had a node when they were last seen: one listing without it frees none (rules P8, P13)."""
    return {i for i, cause in state.book.items() if cause.reason in HOLDS_NODE | DRIFT} - state.engaged


def _without_node(known: Cause) -> Cause:
    """What remains of a failure once the server's node is gone."""
    # Also without an attempt: a reset has taken the count, the add that made the node may be minutes old.
    text = "its node is gone; it is tried again when the settle window has passed since the last batch"
    if known.reason in EXPLAINED:
        text = plain_text(f"{text}; before: {known.message}")
    return Cause(FailureReason.NODE_VANISHED, text, known.attempts)


def _in_time(known: Cause | None, node: Node) -> Cause | None:
    """What remains of a failure while the server's node is on its way and may become a member, as after a repair.

    A cause that a job told is kept, and so is any if the node's age is not known: its time would never be over.
    """
    if known is None or known.reason not in _OF_A_NODE or node.created is None:
        return known
    # Also without an attempt, as in `_without_node`: else one listing without the node would free it (rule P8).
    return Cause(FailureReason.INSTALLING, _ON_ITS_WAY, known.attempts)


def _take_leave(state: State, spec: Spec, vanished: Vanished) -> State:
    """Report members that are gone, or make them eligible again where the spec asks for it."""
    newly = {i for i in vanished.ids & state.members if i not in state.book or state.book[i].reason not in VANISHED}
    if vanished.implausible:
        return state.with_causes((server_id, _IMPLAUSIBLE) for server_id in newly)
    if spec.drift_policy is DriftPolicy.REPORT:
        return state.with_causes((server_id, _MISSING) for server_id in newly)
    back = newly | {i for i, cause in state.book.items() if cause == _MISSING}
    return replace(state, members=state.members - back).without_causes(back)


def take_up_again(state: State) -> State:
    """A reset: members that vanished may be added again."""
    back = {i for i, cause in state.book.items() if cause.reason in VANISHED}
    return replace(state, members=state.members - back, owed=state.owed - back).without_causes(back)


def _drifted(node: Node, spec: Spec) -> Cause:
    if node.pool_id != spec.node_pool.node_pool_id:
        text = "the member was moved to another node pool; move it back, or take it off spec.serverIDs"
        return Cause(FailureReason.OTHER_POOL, text, 0)
    text = f"the member's node is in phase {plain_text(node.phase, 40)}, not Active; look at it in the CCE console"
    return Cause(FailureReason.MEMBER_NOT_ACTIVE, text, 0)


def _says_more(known: Cause | None, cause: Cause) -> bool:
    """What a job told of a broken node is worth more than the node's phase."""
    return known is not None and cause.reason is FailureReason.NODE_ERROR and known.reason in EXPLAINED
