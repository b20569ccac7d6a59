"""What exists in the simulated cloud: clusters, pools, the nodes that listings show, and which server is which node.

Not for: how nodes come and go (world). Server ids are kept in lower case. Raises ApiError 404 for what is not there.
"""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cce_simulator.config import ClusterConfig, generated_id
from cce_simulator.documents import Node, PoolCounts, go_time
from cce_simulator.errors import not_found

_AGE_AT_START = 86_400.0


@dataclass(slots=True)
class Pool:
    id: str
    name: str
    phase: str
    initial_node_count: int
    current_node: int | None  # what it claims instead of the count
    spec: Mapping[str, object]  # what differs from the usual one
    status: Mapping[str, object] = field(default_factory=dict)  # what differs from the usual one


@dataclass(slots=True)
class Cluster:
    id: str
    name: str
    project_id: str
    phase: str
    max_nodes: int | None
    spec: Mapping[str, object] = field(default_factory=dict)  # what differs from the usual one
    pools: dict[str, Pool] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    listing: list[str] = field(default_factory=list)  # uids, sorted: the order of ListNodes

    def pool(self, pool_id: str) -> Pool:
        pool = self.pools.get(pool_id)
        if pool is None:
            raise not_found("nodepool", pool_id)
        return pool

    def node(self, uid: str) -> Node:
        node = self.nodes.get(uid)
        if node is None:
            raise not_found("node", uid)
        return node

    def page(self, limit: int, marker: str) -> tuple[list[Node], str | None]:
        """Up to `limit` nodes behind the marker (empty: from the start), and the next marker if there are more."""
        start = bisect_right(self.listing, marker)
        uids = self.listing[start : start + limit]
        more = start + limit < len(self.listing)
        return [self.nodes[uid] for uid in uids], (uids[-1] if more else None)

    def counts(self) -> dict[str, PoolCounts]:
        """Node counts per pool id; pools without nodes are left out."""
        phases = Counter((node.pool_id, node.phase) for node in self.nodes.values())
        totals: Counter[str] = Counter()
        for (pool_id, _), number in phases.items():
            totals[pool_id] += number
        return {
            pool_id: PoolCounts(
                current=total - phases[pool_id, "Deleting"],
                active=phases[pool_id, "Active"],
                deleting=phases[pool_id, "Deleting"],
            )
            for pool_id, total in totals.items()
        }


class Inventory:
    """All clusters, and the way from a server to its node."""

    def __init__(self, clusters: Iterable[ClusterConfig], seed: str, now: float) -> None:
        self.clusters: dict[str, Cluster] = {}
        self._seed = seed
        self._serial = 0
        self._by_server: dict[str, tuple[Cluster, Node]] = {}
        self.tags: dict[str, tuple[str, str]] = {}
        """Uid and cluster that CCE's tags on a server name: a node's own, or what a removal has left."""
        for config in clusters:
            self._populate(config, go_time(now - _AGE_AT_START))

    def _populate(self, config: ClusterConfig, created: str) -> None:
        cluster = Cluster(config.id, config.name, config.project_id, config.phase, config.max_nodes, config.spec)
        self.clusters[config.id] = cluster
        for pool in config.node_pools:
            servers = pool.all_servers(self._seed)
            initial = len(servers) if pool.initial_node_count is None else pool.initial_node_count
            cluster.pools[pool.id] = Pool(
                pool.id, pool.name, pool.phase, initial, pool.current_node, pool.spec, pool.status
            )
            for server in servers:
                node = self.new_node(cluster, pool.id, server, created, "Active")
                cluster.nodes[node.uid] = node
                self._by_server[server] = (cluster, node)
                self.tags[server] = (node.uid, cluster.id)
        cluster.listing = sorted(cluster.nodes)

    def new_id(self, kind: str) -> str:
        """The next generated id of that kind."""
        self._serial += 1
        return generated_id(self._seed, kind, self._serial)

    def cluster(self, project_id: str, cluster_id: str) -> Cluster:
        cluster = self.clusters.get(cluster_id)
        if cluster is None or cluster.project_id != project_id:
            raise not_found("cluster", cluster_id)
        return cluster

    def find(self, server: str) -> tuple[Cluster, Node] | None:
        """The node that shows for a server, and its cluster."""
        return self._by_server.get(server.lower())

    def new_node(
        self, cluster: Cluster, pool_id: str, server: str, created: str, phase: str, job_id: str | None = None
    ) -> Node:
        """A node that does not show yet."""
        uid = self.new_id("node")
        pool = cluster.pools.get(pool_id)
        name = f"{cluster.name if pool is None else pool.name}-{uid[:5]}"
        high, low = divmod(self._serial % 2**24, 2**16)
        address = f"10.{high}.{low // 256}.{low % 256}"
        return Node(uid, server, pool_id, name, address, created, created, phase, job_id)

    def show(self, cluster: Cluster, node: Node) -> None:
        """Let a node enter the listing, unless it is gone already."""
        if not node.gone:
            cluster.nodes[node.uid] = node
            insort(cluster.listing, node.uid)
            self._by_server[node.server_id] = (cluster, node)
            self.tags[node.server_id] = (node.uid, cluster.id)

    def drop(self, server: str) -> bool:
        """Take the server's node out of its cluster; whether there was one."""
        found = self._by_server.pop(server.lower(), None)
        if found is None:
            return False
        cluster, node = found
        node.gone = True
        del cluster.nodes[node.uid]
        del cluster.listing[bisect_right(cluster.listing, node.uid) - 1]
        return True
