"""Takes one snapshot of a cluster: pools counted, nodes listed, pools counted again, phase. All of it, or none.

Not for: when one is taken, and for whom (`snapshots`). A single pool is asked for by its id, several in one request.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.errors import (
    CloudError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
    is_about_the_document,
)
from nodepool_membership.cce.snapshots import Snapshot
from nodepool_membership.core.observed.observation import PoolReport

MOST_SECONDS: Final = 600.0
"""An endpoint that answers each request, and never comes to an end, keeps others that name it waiting no longer."""

MOST_LACKING: Final = 4
"""Of the pools that a cluster's list lacks, such as its default pool, so many are asked for by themselves: whoever
names hundreds that do not exist keeps others of the cluster waiting for no more reads than these."""


class SurveyError(Exception):
    """There is no snapshot: reading `subject`, in words for the user, failed with `error`."""

    def __init__(self, subject: str, error: CloudError) -> None:
        super().__init__(f"{subject}: {error}")
        self.subject = subject
        self.error = error


@dataclass(slots=True)
class _Pools:
    """Pools as they were read, and what kept others from being read."""

    read: dict[str, PoolReport] = field(default_factory=dict)
    unread: dict[str, CloudError] = field(default_factory=dict)


async def survey(
    client: CloudClient, cluster_id: str, pool_ids: frozenset[str], now: Callable[[], datetime]
) -> Snapshot:
    """A snapshot with these pools. One that cannot be read is no trouble of the others.

    Raises:
        SurveyError: nodes, cluster or each of the pools cannot be read, or not in time.
    """
    try:
        async with asyncio.timeout(MOST_SECONDS):
            return await _survey(client, cluster_id, pool_ids, now)
    except TimeoutError:
        late = UnavailableError(f"it was not read to its end within {MOST_SECONDS:.0f} s")
        raise SurveyError("the cluster", late) from None


async def _survey(
    client: CloudClient, cluster_id: str, pool_ids: frozenset[str], now: Callable[[], datetime]
) -> Snapshot:
    begun = now()
    before = await _pools(client, cluster_id, pool_ids)
    try:
        nodes = await client.list_nodes(cluster_id)
    except CloudError as error:
        raise SurveyError("the node list", error) from None
    after = await _pools(client, cluster_id, frozenset(before.read))
    try:
        cluster = await client.get_cluster(cluster_id)
    except CloudError as error:
        raise SurveyError("the cluster", error) from None
    unread = {**before.unread, **after.unread}
    return Snapshot(begun, nodes, _counted(before.read, after.read), unread, cluster, client.clock_offset_seconds)


def _counted(before: Mapping[str, PoolReport], after: Mapping[str, PoolReport]) -> dict[str, PoolReport]:
    return {i: replace(pool, counted_before=before[i].current_nodes) for i, pool in after.items()}


async def _pools(client: CloudClient, cluster_id: str, pool_ids: frozenset[str]) -> _Pools:
    """Some pools of a cluster.

    Raises:
        SurveyError: none of them can be read.
    """
    found = _Pools()
    listed = await _all_at_once(client, cluster_id, pool_ids) if len(pool_ids) > 1 else None
    found.read = listed or {}
    lacking = sorted(pool_ids - found.read.keys())
    singly = len(lacking) if listed is None else MOST_LACKING
    found.unread = dict.fromkeys(lacking[singly:], NotFoundError("the cluster's list of node pools does not show it"))
    for pool_id in lacking[:singly]:
        try:
            found.read[pool_id] = await client.get_node_pool(cluster_id, pool_id)
        except CloudError as error:
            if not _is_about_it(error):
                raise SurveyError("the node pool", error) from None
            found.unread[pool_id] = error
    if not found.read:
        raise SurveyError("the node pool", next(iter(found.unread.values())))
    return found


async def _all_at_once(client: CloudClient, cluster_id: str, pool_ids: frozenset[str]) -> dict[str, PoolReport] | None:
    """Those of the pools that the list of pools shows; None where it cannot be had, but single pools may be."""
    try:
        listed = await client.list_node_pools(cluster_id)
    except CloudError as error:
        if not _is_about_it(error):
            raise SurveyError("the node pools", error) from None
        return None
    return {pool_id: report for pool_id, report in listed.items() if pool_id in pool_ids}


def _is_about_it(error: CloudError) -> bool:
    """Whether it may be of this answer only, so that others are worth asking for."""
    return isinstance(error, ForbiddenError) or is_about_the_document(error)
