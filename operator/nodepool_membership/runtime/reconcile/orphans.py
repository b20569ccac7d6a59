"""What the log says of nodes that the operator leaves behind: status holds no ids beside its own (rules P19, P20).

Not for: deciding what is left behind (`core.decision.decide`).
"""

import logging
from collections.abc import Iterable

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import HOLDS_NODE
from nodepool_membership.api.status import Status
from nodepool_membership.core.observed.observation import Observation
from nodepool_membership.runtime.reconcile.store import about

_log = logging.getLogger(__name__)


def tell_of_failed(membership: Membership, status: Status, seen: Observation) -> None:
    """Name the nodes of servers that fail with `status` and did not before."""
    known = {i for group in membership.status.failures if group.reason in HOLDS_NODE for i in group.server_ids}
    for group in status.failures:
        new = [i for i in group.server_ids if i not in known] if group.reason in HOLDS_NODE else []
        if new:
            extra = {**about(membership), **_nodes(new, seen)}
            _log.warning("servers failed and hold a node: %s", group.reason, extra=extra)


def tell_on_release(membership: Membership, status: Status, seen: Observation) -> None:
    """Name what a deleted object leaves in the cloud; `status` is what is known at the end."""
    if seen.namespace_state is not None and seen.namespace_state.keeps is not None:
        extra = {**about(membership), **_nodes(membership.status.members, seen)}
        _log.warning("the servers are kept: %s", seen.namespace_state.keeps, extra=extra)
    for batch in status.open_batches:
        left = {"serverIDs": list(batch.server_ids), "nodeUIDs": list(batch.node_ids)}
        _log.warning("released with an open batch", extra={**about(membership, batch), **left})
    for group in status.failures:
        if group.reason in HOLDS_NODE:
            extra = {**about(membership), **_nodes(group.server_ids, seen)}
            _log.warning("released with nodes of failed servers: %s", group.reason, extra=extra)
    if status.surplus:
        extra = {**about(membership), **_nodes(status.members, seen)}
        _log.warning("released with members whose removal is owed", extra=extra)


def _nodes(server_ids: Iterable[str], seen: Observation) -> dict[str, list[str]]:
    """Log fields that name servers and, where the listing shows them, their nodes."""
    ids = list(server_ids)
    nodes = seen.listing.nodes(ids) if seen.listing is not None else {}
    return {"serverIDs": ids, "nodeUIDs": [nodes[i].uid if i in nodes else "" for i in ids]}
