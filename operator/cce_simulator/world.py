"""The simulated cloud in motion: adds, removals, their jobs, and what becomes of the servers as time passes.

Not for: HTTP, credentials, rate limits, transport faults. No I/O: time comes from the clock that is passed in, and
everything due is caught up with at the start of each call, so that a test may run it in virtual time.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from cce_simulator import refusals
from cce_simulator.config import BadServer, Range, SimulatorConfig, is_fit
from cce_simulator.documents import Job, Node, SubJob, go_time
from cce_simulator.errors import ApiError, by_code, forbidden, invalid, not_found
from cce_simulator.inventory import Cluster, Inventory, Pool
from cce_simulator.timeline import Timeline

_STARTS_AFTER = 0.1  # part of a job's time that it is Initializing
_FIRST_ACTIVE_AFTER = 0.5  # part of an add's time after which, under "spread", servers begin to be up


@dataclass(frozen=True, slots=True)
class AddEffects:
    """How an accepted add deviates; None = as configured. Times in seconds."""

    job_phase: str | None = None
    job_never_ends: bool = False
    job_seconds: float | None = None
    node_phase: str | None = None
    visible_after: float | None = None


@dataclass(frozen=True, slots=True)
class AddResult:
    """`refusal`: what the caller is told although `accepted` servers (lower case) were taken."""

    job_id: str
    accepted: tuple[str, ...]
    doubled: tuple[str, ...]
    refusal: ApiError | None


@dataclass(frozen=True, slots=True)
class RemoveResult:
    job_id: str
    server_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of one accepted server: its node's phase at the end (None: no node is left), its job's verdict."""

    phase: str | None = "Active"
    shows: bool = True
    job_phase: str = "Success"
    reason: str = ""


class World:
    """State and rules of the cloud. Raises ApiError where the API refuses."""

    def __init__(self, config: SimulatorConfig, clock: Callable[[], float]) -> None:
        self.timeline = Timeline(clock)
        self.started = self.timeline.now
        self.inventory = Inventory(config.clusters, config.seed, self.started)
        self.jobs: dict[str, Job] = {}  # until their retention has passed
        self.sub_jobs: dict[str, tuple[Job, SubJob]] = {}
        self.destroyed: set[str] = set()
        self._joining: dict[str, Node] = {}  # accepted, no node to be seen yet, outcome open
        self._open_jobs: dict[str, Job] = {}
        self._bad_uses: Counter[str] = Counter()
        self.configure(config)

    def configure(self, config: SimulatorConfig) -> None:
        """Take over changed switches; clusters stay as they are."""
        self.timeline.advance()
        self.config = config
        self._unknown = frozenset(config.unknown_servers)
        self._bad = {server: rule for rule in config.bad_servers for server in rule.servers}
        self.server_rules = {server: rule for rule in config.servers for server in rule.servers}

    # Adding

    def add_nodes(
        self, cluster: Cluster, pool_id: str, named: Sequence[str], effects: AddEffects | None = None
    ) -> AddResult:
        """POST nodes/add. Raises ApiError if nothing was taken."""
        now = self.timeline.advance()
        pool = cluster.pool(pool_id)
        servers = list(dict.fromkeys(server.lower() for server in named))
        self._check_states(cluster, pool)
        if len(servers) < len(named) and self.config.behaviour.duplicates == "refuse":
            raise invalid("nodeList names a server more than once")
        refusal, taken = self._sort_out(named, servers)
        if refusal is not None and not taken:
            raise refusal
        if cluster.max_nodes is not None and len(cluster.nodes) + len(taken) > cluster.max_nodes:
            raise by_code("CCE.01400014", f"the cluster scale allows {cluster.max_nodes} nodes")
        doubled = tuple(server for server in taken if self._is_busy(server))
        job = self._start_add(cluster, pool, taken, effects or AddEffects(), now)
        if self.config.behaviour.raise_initial_node_count:
            pool.initial_node_count += len(taken)
        return AddResult(job.uid, tuple(taken), doubled, refusal)

    def is_joining(self, server: str) -> bool:
        """Whether an add of the server is accepted and its node does not show yet, or is being installed."""
        found = self.inventory.find(server)
        return server in self._joining or (found is not None and found[1].phase == "Installing")

    def _is_busy(self, server: str) -> bool:
        return server in self._joining or self.inventory.find(server) is not None

    def _check_states(self, cluster: Cluster, pool: Pool) -> None:
        behaviour = self.config.behaviour
        if cluster.phase not in behaviour.cluster_phases_accepting:
            raise by_code(behaviour.cluster_phase_error, f"cluster is {cluster.phase}")
        if pool.phase in behaviour.node_pool_phases_refusing:
            raise by_code(behaviour.node_pool_phase_error, f"nodepool is {pool.phase}")
        if behaviour.parallel_jobs == "allowed":
            return
        for job in self._open_jobs.values():
            same_pool = job.pool_id == pool.id or behaviour.parallel_jobs_scope == "cluster"
            if job.cluster_id == cluster.id and same_pool:
                raise by_code(behaviour.parallel_jobs, f"{job.type} {job.uid} is running")

    def _sort_out(self, named: Sequence[str], servers: list[str]) -> tuple[ApiError | None, list[str]]:
        """The refusal on account of single servers, if any, and who is taken all the same."""
        bad = [refused for server in servers if (refused := self._refused(server, servers)) is not None]
        if not bad:
            return None, servers
        for refused in bad:
            self._use_up(refused.server)
        refusal = refusals.refusal(bad, named)
        if all(refused.atomic for refused in bad):
            return refusal, []
        culprits = {refused.server for refused in bad}
        return refusal, [server for server in servers if server not in culprits]

    def _refused(self, server: str, servers: Sequence[str]) -> refusals.Refused | None:
        behaviour = self.config.behaviour
        rule = self._bad_rule(server)
        if rule is not None and rule.way == "refuseCall":
            return refusals.by_rule(server, rule)
        if rule is not None and rule.way == "clash" and self._clashes(server, rule, servers):
            return refusals.by_rule(server, rule)
        if not self.exists(server) and behaviour.bad_entry == "refuseCall":
            return refusals.unknown_server(server, behaviour.bad_entry_naming)
        if behaviour.unfit_server == "refuseCall" and not is_fit(self.server_rules.get(server)):
            return refusals.unfit_server(server, behaviour.bad_entry_naming)
        if behaviour.repeat_add == "refuse" and self._is_busy(server):
            state = "is being added" if server in self._joining else "is already in a cluster"
            return refusals.repeated(server, state, behaviour.bad_entry_naming)
        return None

    def _clashes(self, server: str, rule: BadServer, servers: Sequence[str]) -> bool:
        """Whether another server of the rule is named beside it, or is a node already."""
        return any(other != server and (other in servers or self._is_busy(other)) for other in rule.servers)

    def exists(self, server: str) -> bool:
        """Whether there is such a server, in lower case."""
        return server not in self._unknown and server not in self.destroyed

    def _bad_rule(self, server: str) -> BadServer | None:
        rule = self._bad.get(server)
        if rule is None or (rule.times is not None and self._bad_uses[server] >= rule.times):
            return None
        return rule

    def _use_up(self, server: str) -> None:
        if server in self._bad:
            self._bad_uses[server] += 1

    def _fate(self, server: str, effects: AddEffects) -> _Fate:
        if not self.exists(server):
            return _Fate(None, shows=False, job_phase="Failed", reason=f"server {server} not found")
        stays = "Error" if self.config.behaviour.failed_nodes == "stay" else None
        if self.config.behaviour.unfit_server == "failInstall" and not is_fit(self.server_rules.get(server)):
            return _Fate(stays, job_phase="Failed", reason="the server cannot be reached from the cluster")
        rule = self._bad_rule(server)
        if rule is None or rule.way == "clash":
            return _Fate(effects.node_phase or "Active")
        self._use_up(server)
        if rule.way == "failInstall":
            return _Fate(stays, job_phase="Failed", reason=rule.reason)
        if rule.way == "neverAppears":
            return _Fate(None, shows=False)
        return _Fate(rule.node_phase)

    def _start_add(self, cluster: Cluster, pool: Pool, servers: list[str], effects: AddEffects, now: float) -> Job:
        behaviour, at = self.config.behaviour, self.timeline.at
        seconds = self._job_seconds() if effects.job_seconds is None else effects.job_seconds
        visible_at = now + self._visible_after(effects, seconds)
        job = self._open_job(cluster, pool.id, behaviour.root_job_type, "InstallNode", now)
        for number, server in enumerate(servers, 1):
            fate = self._fate(server, effects)
            self._forget(server)
            node = self.inventory.new_node(cluster, pool.id, server, go_time(now), "Installing", job.uid)
            self._joining[server] = node
            sub = self._sub_job(job, server, node)
            spread = _FIRST_ACTIVE_AFTER + (1 - _FIRST_ACTIVE_AFTER) * number / len(servers)
            part = spread if behaviour.nodes_active == "spread" else 1.0
            if fate.shows:
                at(visible_at, partial(self._appear, cluster, node))
            at(now + seconds * part, partial(self._server_done, job, sub, fate))
        at(now + seconds * _STARTS_AFTER, partial(self._run, job))
        if not effects.job_never_ends:
            at(now + seconds, partial(self._end, job, effects.job_phase))
        return job

    def _visible_after(self, effects: AddEffects, seconds: float) -> float:
        if effects.visible_after is not None:
            return effects.visible_after
        behaviour = self.config.behaviour
        choices = {"atOnce": 0.0, "late": behaviour.node_visible_after_seconds, "atEnd": seconds}
        return choices[behaviour.node_visibility]

    def _job_seconds(self) -> float:
        wanted = self.config.behaviour.job_seconds
        if isinstance(wanted, Range):
            fraction = int(self.inventory.new_id("duration")[:8], 16) / 0xFFFFFFFF
            return wanted.min + (wanted.max - wanted.min) * fraction
        return wanted

    def _forget(self, server: str) -> None:
        """A server is reinstalled: what it was before ends here."""
        if (earlier := self._joining.pop(server, None)) is not None:
            earlier.gone = True
        self.inventory.drop(server)

    def _appear(self, cluster: Cluster, node: Node) -> None:
        if self._joining.get(node.server_id) is node:
            del self._joining[node.server_id]
        self.inventory.show(cluster, node)

    def _server_done(self, job: Job, sub: SubJob, fate: _Fate) -> None:
        node = sub.node
        sub.phase, sub.reason, job.updated = fate.job_phase, fate.reason, self.timeline.now
        if node.gone:
            return
        if fate.phase is not None:
            node.phase, node.updated = fate.phase, go_time(self.timeline.now, 9)
            return
        found = self.inventory.find(node.server_id)
        if found is not None and found[1] is node:
            self.inventory.drop(node.server_id)
            if not self.config.behaviour.failed_adoption_leaves_tags:
                self.inventory.tags.pop(node.server_id, None)
        node.gone = True

    # Jobs

    def _open_job(self, cluster: Cluster, pool_id: str, job_type: str, sub_type: str, now: float) -> Job:
        uid = self.inventory.new_id("job")
        job = Job(uid, job_type, sub_type, cluster.id, pool_id, cluster.name, now, now, [])
        self.jobs[uid] = self._open_jobs[uid] = job
        return job

    def _sub_job(self, job: Job, server: str, node: Node) -> SubJob:
        sub = SubJob(self.inventory.new_id("subjob"), server, node)
        job.subs.append(sub)
        self.sub_jobs[sub.uid] = (job, sub)
        return sub

    def _run(self, job: Job) -> None:
        if job.ended is None:
            job.phase, job.updated = "Running", self.timeline.now
            for sub in job.subs:
                if sub.phase == "Initializing":
                    sub.phase = "Running"

    def _end(self, job: Job, phase: str | None, reason: str = "") -> None:
        if job.ended is not None:
            return
        failed = [sub for sub in job.subs if sub.phase == "Failed"]
        verdict = "Success"
        if failed:
            all_failed = len(failed) == len(job.subs)
            verdict = "Failed" if all_failed else self.config.behaviour.partial_failure_phase
        job.phase = phase or verdict
        if job.phase == "Failed":
            job.reason = reason or next((sub.reason for sub in failed), "the job failed")
        job.ended = job.updated = self.timeline.now
        self._open_jobs.pop(job.uid, None)
        for sub in job.subs:
            if sub.node.gone and self._joining.get(sub.server_id) is sub.node:
                del self._joining[sub.server_id]
        self.timeline.at(job.ended + self.config.behaviour.job_retention_seconds, partial(self._expire, job))

    def _expire(self, job: Job) -> None:
        self.jobs.pop(job.uid, None)
        for sub in job.subs:
            self.sub_jobs.pop(sub.uid, None)

    def end_job(self, job_id: str, phase: str, reason: str = "") -> None:
        """End a job now, whatever its servers do. Raises ApiError if there is none that is open."""
        self.timeline.advance()
        job = self._open_jobs.get(job_id)
        if job is None:
            raise not_found("open job", job_id)
        self._end(job, phase, reason)

    # Nodes, without a call

    def node_of(self, server: str) -> Node | None:
        """The node that shows for a server now."""
        self.timeline.advance()
        found = self.inventory.find(server)
        return None if found is None else found[1]

    def put_node(self, cluster: Cluster, pool_id: str, server: str, *, phase: str = "Active", age: float = 0.0) -> Node:
        """Someone else's node: shows at once, belongs to no job. Replaces what the server was; `age` in seconds."""
        now = self.timeline.advance()
        self._forget(server.lower())
        node = self.inventory.new_node(cluster, pool_id, server.lower(), go_time(now - age), phase)
        self.inventory.show(cluster, node)
        return node

    def drop_node(self, server: str) -> bool:
        """The server's node vanishes; whether there was one."""
        self.timeline.advance()
        return self.inventory.drop(server)

    # Removing

    def remove_nodes(self, cluster: Cluster, uids: Iterable[str], *, destroy: bool = False) -> RemoveResult:
        """PUT nodes/operation/remove, and (`destroy`) DELETE of a node. Raises ApiError if any cannot be removed."""
        now = self.timeline.advance()
        nodes = [_removable(cluster, uid) for uid in dict.fromkeys(uids)]
        job_type, sub_type = ("DeleteNode", "DeleteNodeVM") if destroy else ("RemoveNode", "UninstallNode")
        job = self._open_job(cluster, nodes[0].pool_id, job_type, sub_type, now)
        for node in nodes:
            node.phase, node.job_id, node.updated = "Deleting", job.uid, go_time(now, 9)
            self._sub_job(job, node.server_id, node)
            pool = cluster.pools.get(node.pool_id)
            if pool is not None:
                pool.initial_node_count = max(0, pool.initial_node_count - 1)
        seconds = self.config.behaviour.remove_seconds
        self.timeline.at(now + seconds * _STARTS_AFTER, partial(self._run, job))
        self.timeline.at(now + seconds, partial(self._removed, job, destroy=destroy))
        return RemoveResult(job.uid, tuple(node.server_id for node in nodes))

    def _removed(self, job: Job, *, destroy: bool) -> None:
        for sub in job.subs:
            sub.phase = "Success"
            if not sub.node.gone:
                self.inventory.drop(sub.server_id)
                if self.config.behaviour.removal_clears_tags:
                    self.inventory.tags.pop(sub.server_id, None)
            if destroy:
                self.destroyed.add(sub.server_id)
        self._end(job, None)


def _removable(cluster: Cluster, uid: str) -> Node:
    node = cluster.node(uid)
    if node.phase in {"Installing", "Deleting"}:
        raise forbidden(f"node {uid} is {node.phase}", "CCE.01403006")
    return node
