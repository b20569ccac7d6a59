"""Servers read before a call names them: one inspection, with all that rules compare.

Not for: the rules (`core.preflight`), or single calls (`cce.servers`). What cannot be read is told in the inspection:
it is no trouble of the membership.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.spec import PreflightMode
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.errors import CloudError, UnavailableError
from nodepool_membership.cce.servers import ServersClient
from nodepool_membership.core.preflight.facts import CCE_CLUSTER_TAG, Disk, Inspection, ReadFailure, Server
from nodepool_membership.core.program.effects import InspectServers
from nodepool_membership.runtime.cloud import error_mapping
from nodepool_membership.runtime.cloud.flavors import Flavors

_log = logging.getLogger(__name__)

MAX_NODES: Final = 20
"""Nodes that are looked up, of those that tags of servers name; the servers of the others count as nodes."""
READ_WITHIN: Final = 30.0
"""Seconds; the call has to leave a minute after the first question at the latest (rule P27)."""
NO_ADDRESS: Final = UnavailableError("no address of ECS is known for this endpoint: name it in the file of --endpoints")


Kept = Callable[[Callable[[], Awaitable[Flavors]]], Awaitable[Flavors]]
"""Gives a list of flavors that was kept, or reads it."""


def _read(read: Callable[[], Awaitable[Flavors]]) -> Awaitable[Flavors]:
    return read()


async def inspect(
    wanted: InspectServers,
    cloud: CloudClient,
    servers: ServersClient | None,
    *,
    now: Callable[[], datetime],
    within: float = READ_WITHIN,
    flavors: Kept = _read,
) -> Inspection:
    """Read servers, and what else the rules need to know of those that are odd; in so many seconds, or not at all."""
    began = now()
    if servers is None:
        return Inspection(began, wanted.server_ids, unread=wanted.server_ids, why=_why(NO_ADDRESS))
    deadline = asyncio.get_running_loop().time() + within
    nodes, subnets = dict[str, bool](), dict[str, bool]()
    late = UnavailableError(f"no answer within {within:g} s")
    known: Flavors | CloudError = late if wanted.turbo else {}
    try:
        async with asyncio.timeout_at(deadline):
            found, unread, why = await _servers(wanted, servers)
    except TimeoutError:
        found, unread, why = {}, set(wanted.server_ids), late
    with contextlib.suppress(TimeoutError):
        # Without them a server that is tagged counts as a node.
        async with asyncio.timeout_at(deadline):
            nodes, subnets, known = await asyncio.gather(
                _nodes(cloud, wanted.pool.cluster_id, found.values()),
                _subnets(servers, wanted.subnets, found.values()),
                _flavors(servers, flavors, needed=wanted.turbo and bool(found)),
            )
    if isinstance(known, CloudError):
        _log.info("the flavors of servers for a Turbo cluster cannot be read: %s", error_mapping.said(known))
        if wanted.mode is PreflightMode.ENFORCE:
            # What must not be sent unread is as good as unread without its flavor.
            found, unread, why = {}, unread | found.keys(), why or known
        known = {}
    if why is not None:
        _log.warning(
            "servers could not be read before an add: %s", error_mapping.said(why), extra={"servers": len(unread)}
        )
    reason = None if why is None else _why(why)
    of_servers = {server.flavor: known[server.flavor] for server in found.values() if server.flavor in known}
    return Inspection(began, wanted.server_ids, found, frozenset(unread), reason, nodes, subnets, of_servers)


async def _servers(
    wanted: InspectServers, servers: ServersClient
) -> tuple[dict[str, Server], set[str], CloudError | None]:
    """Servers that were found, those that could not be read, and why."""
    read = await servers.servers(wanted.server_ids)
    found, unread, why = dict(read.found), set(read.unread), next(iter(read.unread.values()), None)
    if wanted.mode is not PreflightMode.ENFORCE:
        return found, unread, why
    try:
        return await _with_sizes(servers, found), unread, why
    except CloudError as error:
        # What must not be sent unread is as good as unread without its disks.
        return {}, unread | found.keys(), error


def _why(error: CloudError) -> ReadFailure:
    trouble = error_mapping.of_read(error, "the servers")
    return ReadFailure(trouble.reason, trouble.message)


async def _with_sizes(servers: ServersClient, found: Mapping[str, Server]) -> dict[str, Server]:
    """The servers with the sizes of their disks, which only EVS knows."""
    both = {i: [*filter(None, (server.system_disk,)), *(server.disks or ())] for i, server in found.items()}
    ids = [disk.volume_id for disks in both.values() for disk in disks if disk.volume_id]
    sizes = await servers.volumes(ids) if ids else {}

    def sized(disk: Disk) -> Disk:
        return sizes.get(disk.volume_id, disk)

    return {
        server_id: replace(
            server,
            system_disk=None if server.system_disk is None else sized(server.system_disk),
            disks=None if server.disks is None else tuple(map(sized, server.disks)),
        )
        for server_id, server in found.items()
    }


async def _flavors(servers: ServersClient, flavors: Kept, *, needed: bool) -> Flavors | CloudError:
    """Flavors of the region, or why they cannot be read."""
    try:
        return await flavors(servers.flavors) if needed else {}
    except CloudError as error:
        return error


async def _nodes(cloud: CloudClient, cluster_id: str, servers: Iterable[Server]) -> dict[str, bool]:
    """Whether the nodes exist that CCE's tags on servers name; one that cannot be looked up is left out.

    Where no tag names the cluster, ours is asked, and that a node is not there says nothing: it may be another's.
    """
    named = {server.node_uid: server.tags.get(CCE_CLUSTER_TAG) for server in servers if server.node_uid}

    async def exists(uid: str, cluster: str | None) -> bool | None:
        try:
            found = await cloud.get_node(cluster or cluster_id, uid) is not None
        except CloudError as error:
            _log.info("the node that a server's tag names cannot be looked up: %s", error_mapping.said(error))
            return None
        return None if cluster is None and not found else found

    some = dict(sorted(named.items())[:MAX_NODES])
    answers = await asyncio.gather(*(exists(uid, cluster) for uid, cluster in some.items()))
    return {uid: answer for uid, answer in zip(some, answers, strict=True) if answer is not None}


async def _subnets(servers: ServersClient, wanted: frozenset[str], found: Iterable[Server]) -> dict[str, bool]:
    """The other ids of the pool's subnets, where a server's is none of those that the pool names."""
    if not wanted or all(not server.subnets or server.subnets & wanted for server in found):
        return {}
    try:
        ids = await asyncio.gather(*(servers.subnet(subnet) for subnet in sorted(wanted)))
    except CloudError as error:
        _log.info("the pool's subnets cannot be read: %s", error_mapping.said(error))
        return {}
    return {name: ipv6 for subnet in ids for name, ipv6 in subnet.items()}
