"""Snapshots of the small cloud: what one process shows to all of its programs that wait.

Not for: programs (`process`), or when a snapshot is taken (`moves`).
"""

from datetime import datetime, timedelta
from typing import Final

from explore import physics
from explore.objects import moment, server_id
from explore.world import KEPT, Process, Seen, World
from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.observed.observation import ClusterReport, Freshness, Node, NodeTable, PoolReport, Trouble
from nodepool_membership.core.preflight.facts import Template
from nodepool_membership.core.program import effects as fx
from nodepool_membership.core.state.settings import Settings

SHARED: Final = Settings().poll_interval / 2
"""So long after its begin a snapshot proves absence to whoever did not wait for it."""
AWAY: Final = Trouble(Reason.CLOUD_UNREACHABLE, "no route to the cloud")


def ticked(process: Process, now: int) -> tuple[Process, datetime]:
    """A moment of the process that no other is the same as; `now` by the cloud's clock."""
    at = moment(now + process.skew) + timedelta(microseconds=process.steps)
    return process._replace(steps=process.steps + 1), at


def snapshot(world: World, how: str) -> World:
    """The leader takes a snapshot for all that wait for one; they are worked next."""
    process, begun = ticked(world.processes[world.leader], world.now)
    shown, count = physics.shown(world.cloud, world.now), physics.counted(world.cloud, world.now)
    nodes = [Node(server_id(s), n.uid, n.pool, n.phase, moment(n.created)) for s, n in shown]
    if how.startswith("miss:"):
        nodes = [n for n in nodes if n.server_id != server_id(int(how[5:]))]
    elif how.startswith("repeat:"):
        nodes = [n for n in nodes if n.server_id != server_id(int(how[7:]))]
        nodes += [n for n in nodes if n.pool_id == physics.POOL][:1]
    count += {"more": 1, "fewer": -1}.get(how, 0)
    template = f"template {world.cloud.template}"
    pool, cluster = PoolReport("", count, Template(template)), ClusterReport("Available")
    view = fx.ClusterView(NodeTable(begun, nodes), pool, cluster, float(-process.skew))
    seen = Seen(begun, (tuple(nodes), count, template, how == "trouble"), AWAY if how == "trouble" else view)
    processes = list(world.processes)
    waited = process.parked
    processes[world.leader] = process._replace(seen=seen, parked=frozenset(), entitled=process.entitled | waited)
    return world._replace(processes=tuple(processes), todo=tuple(sorted(waited)))


def at_hand(process: Process, now: int, key: int, look: fx.ReadCluster) -> fx.ClusterView | Trouble | None:
    """What answers a look at once; `now` by the clock of the process."""
    seen, entitled = process.seen, key in process.entitled
    if seen is None or seen.begun > moment(now + 1) or (isinstance(seen.view, Trouble) and not entitled):
        return None
    found: fx.ClusterView | Trouble = seen.view
    recent = look.freshness is Freshness.RECENT
    young = seen.begun >= moment(now) - (timedelta(seconds=KEPT) if recent else SHARED)
    late = isinstance(found, fx.ClusterView) and not recent and found.listing.begun < look.read_at
    return None if late or not (young or entitled) else found
