"""The control API under `/_sim/`, for tests and demos that run in another process. No credentials are asked for.

Not for: clients of the cloud; nothing here exists in CCE. Answers are JSON; bad input is 400
`{"error": "<field>: ..."}`.

| call | body | answer |
|---|---|---|
| GET /_sim/summary | | ledger.Summary |
| GET /_sim/ledger?since=SEQ&route=NAME&writes=true | | {"entries": [ledger.Entry, ...]}, fields as named there |
| GET /_sim/servers | | {"accepted": {server: how often}, "destroyed": [server]} |
| GET /_sim/jobs | | {"jobs": [{jobID, type, clusterID, nodePoolID, phase, reason, servers, created, ended}]} |
| POST /_sim/jobs | {jobID, phase, reason} | {}; ends an open job now |
| GET /_sim/config | | the configuration in force |
| POST /_sim/config | some of config.LIVE_FIELDS | the new configuration |
| GET /_sim/faults | | {"faults": [{rule, seen, hits}]} |
| POST /_sim/faults | a FaultRule, or {"faults": [...]} | {"added": n} |
| DELETE /_sim/faults?name=NAME | | {"removed": n}; without name all |
| POST /_sim/nodes | {add: [{clusterID, nodePoolID, serverID, phase, ageSeconds}], remove: [serverID], | |
| | alter: [{serverID, phase, nodePoolID}]} | {"added", "removed", "altered": n} |
| POST /_sim/clusters | {clusterID, phase} | {} |
| POST /_sim/pools | {nodePoolID, phase, currentNode (-1: count again), initialNodeCount, | {} |
| | spec (merged into what differs from the usual one)} | |
"""

import json
from collections.abc import Callable, Mapping

from pydantic import Field

from cce_simulator.config import Uuid, merged
from cce_simulator.errors import ApiError
from cce_simulator.faults import FaultRule, Faults, Seconds
from cce_simulator.inventory import Pool
from cce_simulator.ledger import Ledger
from cce_simulator.model import ConfigError, Record
from cce_simulator.world import World

PREFIX = "/_sim/"


class NodeToAdd(Record):
    cluster_id: Uuid
    node_pool_id: str  # any string, as the annotation has it
    server_id: Uuid
    phase: str = "Active"
    age_seconds: Seconds = 0


class NodeChange(Record):
    server_id: Uuid
    phase: str | None = None
    node_pool_id: str | None = None


class NodesPatch(Record):
    add: tuple[NodeToAdd, ...] = ()
    remove: tuple[Uuid, ...] = ()
    alter: tuple[NodeChange, ...] = ()


class FaultList(Record):
    faults: tuple[FaultRule, ...]


class JobEnd(Record):
    job_id: Uuid
    phase: str
    reason: str = ""


class ClusterChange(Record):
    cluster_id: Uuid
    phase: str


class PoolChange(Record):
    node_pool_id: Uuid
    phase: str | None = None
    current_node: int | None = Field(default=None, ge=-1)
    initial_node_count: int | None = Field(default=None, ge=0)
    spec: dict[str, object] | None = None


class Control:
    """Answers control calls; `configure` takes a patch of the configuration."""

    def __init__(
        self,
        world: World,
        ledger: Ledger,
        faults: Faults,
        configure: Callable[[dict[str, object]], None],
    ) -> None:
        self._world = world
        self._ledger = ledger
        self._faults = faults
        self._configure = configure
        self._routes: dict[tuple[str, str], Callable[[object, Mapping[str, str]], dict[str, object]]] = {
            ("GET", "summary"): lambda _, __: self._ledger.summary().to_json(),
            ("GET", "ledger"): self._entries,
            ("GET", "servers"): self._servers,
            ("GET", "jobs"): self._jobs,
            ("POST", "jobs"): self._end_job,
            ("GET", "config"): lambda _, __: self._world.config.to_json(),
            ("POST", "config"): self._patch_config,
            ("GET", "faults"): lambda _, __: {"faults": self._faults.to_json()},
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): lambda _, query: {"removed": self._faults.clear(query.get("name"))},
            ("POST", "nodes"): self._patch_nodes,
            ("POST", "clusters"): self._patch_cluster,
            ("POST", "pools"): self._patch_pool,
        }

    def handle(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, dict[str, object]]:
        """Status and JSON of the answer; refusals are answers too."""
        route = self._routes.get((method, path.removeprefix(PREFIX)))
        if route is None:
            known = ", ".join(f"{verb} {PREFIX}{name}" for verb, name in self._routes)
            return 404, {"error": f"no {method} {path}; there are: {known}"}
        self._world.timeline.advance()
        try:
            return 200, route(json.loads(body) if body else {}, query)
        except (ApiError, ValueError) as error:
            return 400, {"error": str(error)}

    def _entries(self, _: object, query: Mapping[str, str]) -> dict[str, object]:
        entries = self._ledger.select(
            since=int(query.get("since", "0")),
            route=query.get("route"),
            writes=query.get("writes") == "true",
        )
        return {"entries": [entry.to_json() for entry in entries]}

    def _servers(self, _: object, __: Mapping[str, str]) -> dict[str, object]:
        return {
            "accepted": dict(self._ledger.accepted_per_server),
            "destroyed": sorted(self._world.destroyed),
        }

    def _jobs(self, _: object, __: Mapping[str, str]) -> dict[str, object]:
        return {
            "jobs": [
                {
                    "jobID": job.uid,
                    "type": job.type,
                    "clusterID": job.cluster_id,
                    "nodePoolID": job.pool_id,
                    "phase": job.phase,
                    "reason": job.reason,
                    "servers": [sub.server_id for sub in job.subs],
                    "created": job.created,
                    "ended": job.ended,
                }
                for job in self._world.jobs.values()
            ]
        }

    def _end_job(self, body: object, _: Mapping[str, str]) -> dict[str, object]:
        end = JobEnd.from_json(body)
        self._world.end_job(end.job_id, end.phase, end.reason)
        return {}

    def _patch_config(self, body: object, _: Mapping[str, str]) -> dict[str, object]:
        if not isinstance(body, dict):
            raise ConfigError("the body must be a JSON object of configuration fields")
        self._configure(body)
        return self._world.config.to_json()

    def _add_faults(self, body: object, _: Mapping[str, str]) -> dict[str, object]:
        many = isinstance(body, dict) and "faults" in body
        rules = FaultList.from_json(body).faults if many else (FaultRule.from_json(body),)
        self._faults.add(*rules)
        return {"added": len(rules)}

    def _patch_nodes(self, body: object, _: Mapping[str, str]) -> dict[str, object]:
        patch = NodesPatch.from_json(body)
        clusters = self._world.inventory.clusters
        for new in patch.add:
            if new.cluster_id not in clusters:
                raise ConfigError(f"add.clusterID: no cluster {new.cluster_id}; there are: {list(clusters)}")
        changes = []
        for change in patch.alter:
            found = self._world.inventory.find(change.server_id)
            if found is None:
                raise ConfigError(f"alter.serverID: no node shows for server {change.server_id}")
            changes.append((change, found[1]))
        for new in patch.add:
            self._world.put_node(
                clusters[new.cluster_id],
                new.node_pool_id,
                new.server_id,
                phase=new.phase,
                age=new.age_seconds,
            )
        for change, node in changes:
            node.phase = node.phase if change.phase is None else change.phase
            node.pool_id = node.pool_id if change.node_pool_id is None else change.node_pool_id
        removed = sum(self._world.drop_node(server) for server in patch.remove)
        return {"added": len(patch.add), "removed": removed, "altered": len(changes)}

    def _patch_cluster(self, body: object, _: Mapping[str, str]) -> dict[str, object]:
        change = ClusterChange.from_json(body)
        cluster = self._world.inventory.clusters.get(change.cluster_id)
        if cluster is None:
            raise ConfigError(f"clusterID: no cluster {change.cluster_id}")
        cluster.phase = change.phase
        return {}

    def _patch_pool(self, body: object, _: Mapping[str, str]) -> dict[str, object]:
        change = PoolChange.from_json(body)
        pool = self._find_pool(change.node_pool_id)
        if change.phase is not None:
            pool.phase = change.phase
        if change.current_node is not None:
            pool.current_node = None if change.current_node < 0 else change.current_node
        if change.initial_node_count is not None:
            pool.initial_node_count = change.initial_node_count
        if change.spec is not None:
            pool.spec = merged(pool.spec, change.spec)
        return {}

    def _find_pool(self, pool_id: str) -> Pool:
        for cluster in self._world.inventory.clusters.values():
            if pool_id in cluster.pools:
                return cluster.pools[pool_id]
        raise ConfigError(f"nodePoolID: no node pool {pool_id}")
