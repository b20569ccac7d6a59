"""Servers that are in no open batch, held against the node list: adopted, drifted, failed, or free again.

Not for: servers in batches (`batches`), or which are sent next (`plan`).
"""

from collections.abc import Set
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import DRIFT, HOLDS_NODE, FailureReason
from nodepool_membership.api.spec import Spec
from nodepool_membership.core.batches import node_trouble
from nodepool_membership.core.failures import Cause
from nodepool_membership.core.observation import Node, NodeTable
from nodepool_membership.core.state import State

_MISSING: Final = Cause(
    FailureReason.MEMBER_MISSING,
    "the member is no longer a node of the cluster; it is not added again: find out who removed it",
    0,
)


def forget_unlisted(state: State, spec: Spec) -> State:
    """Release ids that left the list (rule P18); attempts that an add has cost them stay known (rule P12)."""
    desired = spec.server_ids
    unlisted = state.book.keys() - desired
    free = {i for i in unlisted if state.book[i].attempts == 0 or state.book[i].reason in DRIFT}
    members = state.members if state.members <= desired else state.members & desired
    return replace(state, members=members).without_causes(free)


def adoptable(state: State, spec: Spec, table: NodeTable) -> Set[str]:
    """Listed ids, neither members nor in a batch, whose node is already Active in the pool."""
    return table.active_in(spec.node_pool.node_pool_id, spec.server_ids - state.members - state.joining)


def compare(state: State, spec: Spec, table: NodeTable, now: datetime) -> State:
    """Bring members and failures in line with a complete listing; whoever added a node, it counts (rule P19)."""
    mine = spec.server_ids - state.joining
    active = table.active_in(spec.node_pool.node_pool_id, mine)
    if len(active) == len(mine) and active == state.members and not state.book.keys() & active:
        return state
    state = replace(state, members=state.members | active).without_causes(active)
    others = mine - active
    nodes = table.nodes(others)
    causes: dict[str, Cause] = {}
    for server_id in others:
        known = state.book.get(server_id)
        node = nodes.get(server_id)
        if server_id in state.members:
            causes[server_id] = _drifted(node, spec)
        elif node is not None:
            cause = node_trouble(node, state.attempts(server_id), spec, now, now)
            if cause is not None and not _says_more(known, cause):
                causes[server_id] = cause
        elif known is not None and (known.reason in HOLDS_NODE or known.reason in DRIFT):
            # Also without an attempt: a reset has taken the count, the add that made the node may be minutes old.
            text = "its node is gone; it is tried again when the settle window has passed since the last batch"
            causes[server_id] = Cause(FailureReason.NODE_VANISHED, text, known.attempts)
    return state.with_causes(causes.items())


def _drifted(node: Node | None, spec: Spec) -> Cause:
    if node is None:
        return _MISSING
    if node.pool_id != spec.node_pool.node_pool_id:
        text = "the member was moved to another node pool; move it back, or take it off spec.serverIDs"
        return Cause(FailureReason.OTHER_POOL, text, 0)
    text = f"the member's node is in phase {plain_text(node.phase, 40)}, not Active; look at it in the CCE console"
    return Cause(FailureReason.MEMBER_NOT_ACTIVE, text, 0)


def _says_more(known: Cause | None, cause: Cause) -> bool:
    """What a job told of a broken node is worth more than the node's phase."""
    explained = (FailureReason.INSTALL_FAILED, FailureReason.DISK_PARTITIONED)
    return known is not None and cause.reason is FailureReason.NODE_ERROR and known.reason in explained
