"""What endangers the members of a pool from outside, and what may keep it from taking more, by its own documents.

Not for: servers (`rules`). Told as findings, nothing follows from them: which conditions of a pool keep CCE from
adding is not documented, and a cluster that is full refuses by itself (CCE.01400014). Sources: a manual scale-in
chooses nodes at random (https://docs.otc.t-systems.com/cloud-container-engine/umn/node_pools/node_pool_overview.html).
"""

from collections.abc import Iterable, Sequence

from nodepool_membership.api.reasons import FindingReason
from nodepool_membership.core.preflight.facts import Template
from nodepool_membership.core.preflight.judge import Found
from nodepool_membership.core.wording import counted


def hazards(template: Template, members: int, proven: str | None) -> Iterable[Found]:
    """What to tell of a pool with so many recorded members; `proven` is the digest of the template they joined with."""
    if template.autoscaling or any(group.autoscaling for group in template.groups):
        text = "autoscaling of the node pool is on: a scale-in may destroy servers; turn it off, or lock the nodes"
        yield Found(FindingReason.AUTOSCALING_ON, text)
    if template.desired_nodes is not None and template.desired_nodes < members:
        text = (
            f"the node pool's desired number of nodes (initialNodeCount) is {template.desired_nodes}, below the"
            f" {members} members recorded here: the cloud may remove the difference"
        )
        yield Found(FindingReason.DESIRED_COUNT_LOW, text)
    if proven and template.digest and proven != template.digest:
        text = (
            "the node pool's template has changed since the last server joined: the next ones are installed otherwise"
        )
        yield Found(FindingReason.TEMPLATE_CHANGED, text)


def obstacles(conditions: Sequence[str], most_nodes: int | None, nodes: int, wanted: int) -> Iterable[Found]:
    """What to tell of a pool that says so of itself, in a cluster with so many nodes; `wanted` have none yet."""
    if conditions:
        text = (
            f"the node pool's status.conditions say {', '.join(conditions)}: an add may be refused; look at the pool in"
            " the CCE console"
        )
        yield Found(FindingReason.POOL_CONDITIONS, text)
    if wanted and most_nodes is not None and nodes + wanted > most_nodes:
        text = (
            f"by its flavor the cluster takes {counted(most_nodes, 'node')}: {nodes + wanted - most_nodes} too many are"
            " there or listed; take servers off the list, or have the cluster's flavor changed"
        )
        yield Found(FindingReason.CLUSTER_FULL, text)
