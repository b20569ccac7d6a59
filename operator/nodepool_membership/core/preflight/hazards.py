"""What endangers the members of a pool from outside: settings of the pool by which the cloud removes nodes.

Not for: servers (`rules`). Told as findings, nothing follows from them. Sources: a manual scale-in chooses nodes at
random (https://docs.otc.t-systems.com/cloud-container-engine/umn/node_pools/node_pool_overview.html).
"""

from collections.abc import Iterable

from nodepool_membership.api.reasons import FindingReason
from nodepool_membership.core.preflight.facts import Template
from nodepool_membership.core.preflight.judge import Found


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
