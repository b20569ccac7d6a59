"""Where the nodes of a batch's servers come from: its own job, somebody else's, or from before the call.

Not for: whether a node counts (`batches`): whoever made it, it does. Rules P10 and P17.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from nodepool_membership.core.observed.observation import JobReport, Node, NodeTable
from nodepool_membership.core.state.state import State

OLDER: Final = timedelta(minutes=5)
"""So far two clocks may be apart; a node that is older than a call by more was not made by it."""


def is_older(node: Node, begun: datetime) -> bool:
    """Whether the node was there before the call."""
    return node.created is not None and node.created < begun - OLDER


def foreign_jobs(
    nodes: Iterable[Node], begun: datetime, report: JobReport | None, state: State, table: NodeTable
) -> int:
    """How many nodes of a batch were made by a job that is certainly not ours.

    A node may carry the id of its call's job or of a sub job, which the job's document may leave out
    (docs/cloud-facts.md, Jobs). So a strange id says nothing before another node has shown which of both this cloud
    uses.
    """
    if report is None:
        return 0
    made = {node.job_id for node in nodes if node.job_id and not is_older(node, begun)}
    known = {b.job_id.lower() for b in state.batches if b.job_id} | report.sub_jobs
    strange = made - known
    if not strange:
        return 0
    others = {node.job_id for node in table.nodes(state.members).values()}
    if known.isdisjoint(made | others):
        return 0
    return sum(1 for node in nodes if node.job_id in strange and not is_older(node, begun))
