"""The routes of CCE: from a parsed call to an answer, on top of the world; those that read servers pass through.

Not for: sockets, credentials, throttling and faults, which server adds around it; nor the routes of IAM (iam).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from cce_simulator.auth import Identity
from cce_simulator.config import DEFAULT_POOL, merged
from cce_simulator.documents import (
    NodeTemplate,
    PoolCounts,
    cluster_document,
    go_time,
    job_document,
    node_page,
    pool_document,
    sub_job_document,
)
from cce_simulator.ecs import ServersApi
from cce_simulator.errors import denied, forbidden, invalid, not_found
from cce_simulator.inventory import Cluster, Pool
from cce_simulator.routes import JSON, Call, Reply, json_object, json_reply
from cce_simulator.world import World

MAX_SERVERS = 200  # per add or remove
MAX_PAGE = 2000


class CceApi:
    """Answers calls that are authenticated. Raises ApiError for refusals."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._servers = ServersApi(world)
        self._templates: dict[tuple[str, bool], NodeTemplate] = {}
        self._handlers: dict[str, Callable[[Call, Cluster], Reply]] = {
            "addNodes": self._add_nodes,
            "listNodes": self._list_nodes,
            "getNode": self._get_node,
            "listNodePools": self._list_node_pools,
            "getNodePool": self._get_node_pool,
            "getCluster": self._get_cluster,
            "removeNodes": self._remove_nodes,
            "deleteNode": self._delete_node,
        }

    def handle(self, call: Call, caller: Identity) -> Reply:
        """Check the caller's right to the project and action, then answer."""
        project_id = call.params["project_id"]
        if caller.project_id != project_id:
            raise forbidden(f"the credentials are not for project {project_id}")
        if call.headers.get("x-project-id", project_id) != project_id:
            raise forbidden(f"X-Project-Id is not the project {project_id} of the URI")
        if call.route.action in caller.deny:
            raise denied(call.route.action)
        if call.route.method in {"POST", "PUT"} and not call.headers.get("content-type", "").startswith(JSON):
            raise invalid(f"Content-Type must be {JSON}")
        self._world.timeline.advance()
        if (answer := self._servers.handle(call)) is not None:
            return answer
        if call.route.name == "getJob":
            return self._get_job(call)
        cluster = self._world.inventory.cluster(project_id, call.params["cluster_id"])
        return self._handlers[call.route.name](call, cluster)

    def _get_job(self, call: Call) -> Reply:
        behaviour = self._world.config.behaviour
        uid, project_id = call.params["job_id"], call.params["project_id"]
        job, sub = self._world.sub_jobs.get(uid, (self._world.jobs.get(uid), None))
        if job is None or self._world.inventory.clusters[job.cluster_id].project_id != project_id:
            raise not_found("job", uid)
        if sub is not None:
            return json_reply(sub_job_document(job, sub, server_id=behaviour.sub_job_server_id))
        return json_reply(job_document(job, sub_jobs=behaviour.sub_jobs, sub_job_server_id=behaviour.sub_job_server_id))

    def _add_nodes(self, call: Call, cluster: Cluster) -> Reply:
        servers = _checked_servers(call.body)
        result = self._world.add_nodes(cluster, call.params["nodepool_id"], servers, call.effects)
        return replace(
            json_reply({"jobid": result.job_id}),
            refusal=result.refusal,
            job_id=result.job_id,
            accepted=result.accepted,
            doubled=result.doubled,
        )

    def _list_nodes(self, call: Call, cluster: Cluster) -> Reply:
        paging = self._world.config.behaviour.paging
        limit = _limit(call.query)
        marker = "" if paging == "none" else call.query.get("marker", "")
        nodes, more = cluster.page(limit, marker)
        hide = call.hide_servers
        if hide:
            nodes = [] if "*" in hide else [node for node in nodes if node.server_id not in hide]
        probe = go_time(self._world.timeline.now)
        items = [self._template(cluster, node.pool_id).render(node, probe) for node in nodes]
        next_marker = None if call.omit_next_marker else more
        return Reply(200, node_page(items, page_info=paging == "marker", next_marker=next_marker))

    def _get_node(self, call: Call, cluster: Cluster) -> Reply:
        node = cluster.node(call.params["node_id"])
        template = self._template(cluster, node.pool_id)
        return Reply(200, template.render(node, go_time(self._world.timeline.now)).encode())

    def _template(self, cluster: Cluster, pool_id: str) -> NodeTemplate:
        owner_references = self._world.config.behaviour.owner_references
        found = self._templates.get((pool_id, owner_references))
        if found is None:
            pool = cluster.pools.get(pool_id)
            found = NodeTemplate(pool_id, None if pool is None else pool.name, owner_references=owner_references)
            self._templates[pool_id, owner_references] = found
        return found

    def _list_node_pools(self, call: Call, cluster: Cluster) -> Reply:
        counts = cluster.counts()
        items = [self._pool_document(pool, counts) for pool in cluster.pools.values()]
        if call.query.get("showDefaultNodePool", "").lower() == "true":
            default = Pool(DEFAULT_POOL, DEFAULT_POOL, "", 0, None, {})
            items.append(self._pool_document(default, counts))
        return json_reply({"kind": "List", "apiVersion": "v3", "items": items})

    def _get_node_pool(self, call: Call, cluster: Cluster) -> Reply:
        pool = cluster.pool(call.params["nodepool_id"])
        return json_reply(self._pool_document(pool, cluster.counts()))

    def _pool_document(self, pool: Pool, all_counts: Mapping[str, PoolCounts]) -> dict[str, object]:
        counts = all_counts.get(pool.id, PoolCounts(0, 0, 0))
        if pool.current_node is not None:
            counts = PoolCounts(pool.current_node, counts.active, counts.deleting)
        created = self._world.started
        document = pool_document(pool.id, pool.name, pool.phase, pool.initial_node_count, counts, created)
        return merged(document, {"spec": pool.spec, "status": pool.status})

    def _get_cluster(self, _: Call, cluster: Cluster) -> Reply:
        document = cluster_document(cluster.id, cluster.name, cluster.phase, self._world.started)
        return json_reply(merged(document, {"spec": cluster.spec}))

    def _remove_nodes(self, call: Call, cluster: Cluster) -> Reply:
        document = json_object(call.body)
        spec = document.get("spec")
        entries = spec.get("nodes") if isinstance(spec, dict) else None
        if document.get("apiVersion") != "v3" or document.get("kind") != "RemoveNodesTask":
            raise invalid("apiVersion must be v3 and kind RemoveNodesTask")
        uids = _entries(entries, "spec.nodes", "uid")
        result = self._world.remove_nodes(cluster, uids)
        answer = json_reply({**document, "status": {"jobID": result.job_id}})
        return replace(answer, job_id=result.job_id, removed=result.server_ids)

    def _delete_node(self, call: Call, cluster: Cluster) -> Reply:
        uid = call.params["node_id"]
        result = self._world.remove_nodes(cluster, [uid], destroy=True)
        node = cluster.nodes[uid]
        document = self._template(cluster, node.pool_id).render(node, go_time(self._world.timeline.now))
        return Reply(200, document.encode(), job_id=result.job_id, removed=result.server_ids)


def _checked_servers(body: bytes) -> list[str]:
    document = json_object(body)
    if document.get("apiVersion") != "v3":
        raise invalid("apiVersion must be v3")
    if document.get("kind") != "List":
        raise invalid("kind must be List")
    return _entries(document.get("nodeList"), "nodeList", "serverID")


def _entries(entries: object, name: str, key: str) -> list[str]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SERVERS:
        raise invalid(f"{name} must hold 1 to {MAX_SERVERS} entries")
    values = []
    for number, entry in enumerate(entries):
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, str) or not value:
            raise invalid(f"{name}[{number}].{key} must not be empty")
        values.append(value)
    return values


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(MAX_PAGE))
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PAGE:
        raise invalid(f"limit must be 1 to {MAX_PAGE}, not {text}")
    return int(text)
