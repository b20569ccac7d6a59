"""The simulator's configuration: what exists, how it behaves, what goes wrong.

Not for: state that changes by itself (world) and transport faults (faults.FaultRule, listed under `faults`).

JSON names are the Python names in camelCase, with `ID`/`IDs` in capitals: `cluster_id` -> `clusterID`. Unknown
fields are refused. `SimulatorConfig()` has one access key, one cluster and one empty pool (the constants below).

Top level (* = may be changed while running, `POST /_sim/config` or `Simulator.configure`):

| field | default | |
|---|---|---|
| seed | "sim" | all generated ids follow from it |
| clusters[] | one | ClusterConfig: id, name, projectID, phase, maxNodes, nodePools[], spec |
| clusters[].nodePools[] | one | NodePoolConfig: id, name, phase, initialNodeCount, currentNode, servers[], |
| | | serverCount, firstServer, spec |
| accessKeys[] * | one | accessKey, secretKey, projectID, securityToken, expiresAt, deny[] |
| tokens[] * | none | value, projectID, expiresAt, deny[] |
| users[] * | none | name, password, domain, projectID (for POST /v3/auth/tokens) |
| identityProviders[] * | none | IdentityProviderConfig: whose service accounts' tokens are taken, and for whom |
| agencies[] * | none | AgencyConfig: who may be assumed, and by whom |
| agent * | none | AgentConfig: the pod identity agent of a node, POST /v1/credentials |
| behaviour * | | Behaviour: one switch per thing the public documents do not say |
| badServers[] * | none | BadServer: servers[], way, naming, nodePhase, reason, errorCode, status, times |
| unknownServers[] * | none | server ids that do not exist (any other UUID does) |
| servers[] * | none | ServerConfig: servers[], kind, patch, fromRead, dataDisks, systemDisk: what is said of them |
| writesPerMinute * | 10 | per access key, rejected calls counted, any 60 s; 0 = no limit |
| readsPerSecond * | 0 | per access key; 0 = no limit |
| clockSkewSeconds * | 0 | of the cloud's clock (Date header, signatures) to the host's |
| ledgerReads * | "entries" | "counts": GET calls are only counted |
| faults[] | none | FaultRule; while running: `Faults.add`, `POST /_sim/faults` |
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self
from uuid import UUID, uuid5

from pydantic import Field, model_validator

from cce_simulator.errors import ErrorBody
from cce_simulator.faults import FaultRule, Seconds
from cce_simulator.model import ConfigError, Record

_NAMESPACE = UUID("5f2b0c1e-8a55-4f0e-9d0b-7a6c1f0e2d11")

PROJECT_ID = "0123456789abcdef0123456789abcdef"
CLUSTER_ID = "11111111-2222-3333-4444-555555555555"
NODE_POOL_ID = "66666666-7777-8888-9999-000000000000"
ACCESS_KEY = "SIMULATORACCESSKEY00"
DEFAULT_POOL = "DefaultPool"
VPC_ID = "77777777-8888-9999-aaaa-bbbbbbbbbbbb"
SUBNET_ID = "2b7f4f3c-4c5d-4f0e-8e0a-51f2f7d0c7aa"

Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
ProjectId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Code = Annotated[str, Field(pattern=r"^CCE\.\d{2}[45]\d{5}$")]  # two digits, the HTTP status, a serial
BadServerWay = Literal["refuseCall", "clash", "failInstall", "nodePhase", "neverAppears"]
Naming = Literal["first", "all", "none", "upper", "foreign"]


def generated_id(seed: str, kind: str, index: int) -> str:
    """A UUID that follows from its arguments."""
    return str(uuid5(_NAMESPACE, f"{seed}/{kind}/{index}"))


def merged(document: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """The document with the patch's values; tables are merged name by name."""
    result = dict(document)
    for name, value in patch.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def server_id(seed: str, index: int) -> str:
    """The id of the index-th generated server (>= 0) of a seed; what `serverCount` of a pool uses."""
    return generated_id(seed, "server", index)


class NodePoolConfig(Record):
    """A pool, and its Active nodes at the start: `servers`, then `server_count` generated ones."""

    id: Uuid
    name: str = "pool"
    phase: str = ""  # empty = usable
    initial_node_count: int | None = Field(default=None, ge=0)  # None: as many as there are at the start
    current_node: int | None = Field(default=None, ge=0)  # None: counted; else what the pool claims, true or not
    servers: tuple[Uuid, ...] = ()
    server_count: int = Field(default=0, ge=0, le=100_000)
    first_server: int = Field(default=0, ge=0)  # index of the first generated one
    spec: dict[str, object] = Field(default_factory=dict)  # merged into the pool's spec: nodeTemplate, autoscaling, ...
    status: dict[str, object] = Field(default_factory=dict)  # merged into the pool's status: conditions, ...

    def all_servers(self, seed: str) -> list[str]:
        """Server ids of the pool's nodes at the start."""
        generated = range(self.first_server, self.first_server + self.server_count)
        return [*self.servers, *(server_id(seed, index) for index in generated)]


class ClusterConfig(Record):
    id: Uuid
    name: str = "cluster"
    project_id: ProjectId = PROJECT_ID
    phase: str = "Available"
    max_nodes: int | None = Field(default=None, ge=0)  # over it: 400 CCE.01400014
    node_pools: tuple[NodePoolConfig, ...] = ()
    spec: dict[str, object] = Field(default_factory=dict)  # merged into the cluster's spec: hostNetwork, version, ...


class AccessKeyConfig(Record):
    """An AK/SK pair; with `security_token` a temporary one."""

    access_key: str = Field(min_length=1)
    secret_key: str = Field(min_length=1)
    project_id: ProjectId = PROJECT_ID
    security_token: str | None = None
    expires_at: float | None = None  # seconds since 1970; None = never
    deny: tuple[str, ...] = ()  # IAM actions refused with 403, e.g. cce:node:add


class TokenConfig(Record):
    value: str = Field(min_length=1)
    project_id: ProjectId = PROJECT_ID
    expires_at: float | None = None
    deny: tuple[str, ...] = ()


class UserConfig(Record):
    name: str
    password: str
    domain: str
    project_id: ProjectId = PROJECT_ID


class MappingConfig(Record):
    """A rule of a provider of the old IAM: whom a subject is taken for, and what that one may not do."""

    subject: str  # system:serviceaccount:<namespace>:<name>
    project_id: ProjectId = PROJECT_ID
    deny: tuple[str, ...] = ()


class IdentityProviderConfig(Record):
    """An OpenID Connect provider: by its `name` one of the old IAM, by its `urn` one of the new."""

    name: str
    urn: str = ""
    issuer: str
    client_ids: tuple[str, ...] = Field(min_length=1)  # audiences that are taken
    keys: tuple[dict[str, str], ...] = ()  # of the cluster's JWKS
    mappings: tuple[MappingConfig, ...] = ()
    console_only: bool = False  # 403 IAM.0081


class TrustConfig(Record):
    """Whose tokens assume an agency."""

    provider_urn: str
    subject: str
    audience: str


class AgencyConfig(Record):
    """An agency of the account `domain_name`/`domain_id`; the new IAM calls it by its URN."""

    name: str
    domain_name: str = "acct"
    domain_id: str = "d78cbac186b744899480f25bd022f468"
    project_id: ProjectId = PROJECT_ID
    trusts: tuple[TrustConfig, ...] = ()  # of a trust agency, for assume-with-oidc
    callers: tuple[str, ...] = ()  # access keys, or names of issued keys' users, that may assume it
    external_id: str | None = None
    max_session_seconds: int = Field(default=3600, ge=3600, le=43_200)
    deny: tuple[str, ...] = ()

    @property
    def urn(self) -> str:
        """What STS calls it."""
        return f"iam::{self.domain_id}:agency:{self.name}"


class AgentConfig(Record):
    """Gives keys of an agency to whoever sends the present content of a file as `Authorization`."""

    token_file: str
    agency: str  # a name of agencies[]
    trust_agency: bool = True  # else the answer names no assumed agency


class Range(Record):
    min: Seconds
    max: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self


class BadServer(Record):
    """Servers that do not join as asked.

    `refuseCall`: the whole add is refused (`atomic` false: the others are taken all the same); `clash`: so it is if two
    of them are named, or one while another is a node; `failInstall`: the job fails for them; `nodePhase`: the job
    succeeds, the node stays in `node_phase`; `neverAppears`: the job succeeds and no node ever shows.
    """

    servers: tuple[Uuid, ...] = Field(min_length=1)
    way: BadServerWay = "refuseCall"
    times: int | None = Field(default=None, ge=1)  # so many accepted or refused calls per server, then it is good
    # refuseCall, clash
    status: int = Field(default=400, ge=400, le=599)
    error_code: str = "CCE.01400001"
    reason: str = "the data disk has been partitioned"  # also the job's text under failInstall
    naming: Naming = "first"  # which ids the text names: bad ones, in capitals, or one that is not in the call
    atomic: bool = True
    # nodePhase
    node_phase: str = "Abnormal"


class DiskConfig(Record):
    """A disk; `size` in GiB."""

    size: int = Field(ge=1)
    volume_type: str = "GPSSD"


class ServerConfig(Record):
    """Servers as ECS and BMS describe them. Those that no entry names are fit for the default pool."""

    servers: tuple[Uuid, ...] = Field(min_length=1)
    kind: Literal["ecs", "bms"] = "ecs"
    patch: dict[str, object] = Field(default_factory=dict)  # merged into the document: status, tags, metadata, ...
    from_read: int = Field(default=1, ge=1)  # the patch shows from this read of the server on
    data_disks: tuple[DiskConfig, ...] | None = None  # None: as the pool's template has them
    system_disk: DiskConfig = DiskConfig(size=50)  # as there


def is_fit(rule: ServerConfig | None) -> bool:
    """Whether an add can work at all for a server that is described so: it runs, in the default cluster's VPC."""
    if rule is None:
        return True
    metadata = rule.patch.get("metadata")
    vpc = metadata.get("vpc_id", VPC_ID) if isinstance(metadata, dict) else VPC_ID
    return rule.patch.get("status", "ACTIVE") == "ACTIVE" and vpc == VPC_ID


class Behaviour(Record):
    """Switches for what is unknown or differs between deployments ."""

    job_seconds: Annotated[float, Field(ge=0)] | Range = 10.0
    remove_seconds: Seconds = 5.0  # also for DELETE of a node
    job_retention_seconds: Seconds = 3600.0  # from the job's end until GET answers 404
    root_job_type: str = "AddNodeToNodePool"
    sub_jobs: Literal["embedded", "separate", "none"] = "embedded"  # separate: details only by GET of their own uid
    sub_job_server_id: bool = True  # extendParam.serverID
    partial_failure_phase: str = "Failed"  # of the root job when some servers failed and some joined
    node_visibility: Literal["atOnce", "late", "atEnd"] = "atOnce"  # when Installing nodes enter the listing
    node_visible_after_seconds: Seconds = 60.0  # for late, counted from acceptance; may exceed the job
    nodes_active: Literal["spread", "atEnd"] = "spread"  # one by one while the job runs, or all at its end
    failed_nodes: Literal["stay", "vanish"] = "stay"  # after failInstall: phase Error, or gone
    bad_entry: Literal["refuseCall", "failInstall"] = "refuseCall"  # how an unknown server is answered
    bad_entry_naming: Naming = "first"
    duplicates: Literal["refuse", "merge"] = "refuse"  # one id twice in a nodeList
    repeat_add: Literal["refuse", "accept"] = "refuse"  # a server that is a node, or being added, anywhere
    parallel_jobs: Literal["allowed", "CCE.01429002", "CCE.01429003", "CCE.01400023"] = "allowed"
    parallel_jobs_scope: Literal["nodePool", "cluster"] = "nodePool"
    raise_initial_node_count: bool = True
    paging: Literal["marker", "markerWithoutPageInfo", "none"] = "marker"  # none: marker ignored, no pageInfo
    owner_references: bool = True  # metadata.ownerReferences of nodes, a newer field
    cluster_phases_accepting: tuple[str, ...] = ("Available", "ScalingUp")
    cluster_phase_error: Code = "CCE.01403001"
    node_pool_phases_refusing: tuple[str, ...] = ("Deleting", "Error")
    node_pool_phase_error: Code = "CCE.01403003"
    error_body: ErrorBody = "full"
    unfit_server: Literal["ignored", "refuseCall", "failInstall"] = "ignored"  # an add of one that cannot work
    ecs_server_id: Literal["honoured", "ignored"] = "honoured"  # the parameter of the ECS list
    ecs_limit_cuts: bool = False  # `limit` also cuts a list by ids
    ecs_unknown: Literal["entry", "leftOut"] = "entry"  # an unknown id: an entry with nothing but id and fault, or none
    ecs_nulls: Literal["null", "missing"] = "null"  # fields without a value
    bms_in_ecs: bool = True  # whether ECS knows bare metal servers by their ids
    removal_clears_tags: bool = True
    failed_adoption_leaves_tags: bool = True  # where failedNodes is vanish
    session_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None  # of temporary keys, whatever is asked for
    expiry_digits: Literal[0, 3, 6] | None = None  # of a key's expiry; None: as each service writes it


def _default_keys() -> tuple[AccessKeyConfig, ...]:
    return (AccessKeyConfig.model_validate({"accessKey": ACCESS_KEY, "secretKey": "simulator-secret-key"}),)


def _default_clusters() -> tuple[ClusterConfig, ...]:
    return (ClusterConfig(id=CLUSTER_ID, node_pools=(NodePoolConfig(id=NODE_POOL_ID),)),)


class SimulatorConfig(Record):
    """See the module docstring."""

    seed: str = "sim"
    clusters: tuple[ClusterConfig, ...] = Field(default_factory=_default_clusters)
    access_keys: tuple[AccessKeyConfig, ...] = Field(default_factory=_default_keys)
    tokens: tuple[TokenConfig, ...] = ()
    users: tuple[UserConfig, ...] = ()
    identity_providers: tuple[IdentityProviderConfig, ...] = ()
    agencies: tuple[AgencyConfig, ...] = ()
    agent: AgentConfig | None = None
    behaviour: Behaviour = Behaviour()
    bad_servers: tuple[BadServer, ...] = ()
    unknown_servers: tuple[Uuid, ...] = ()
    servers: tuple[ServerConfig, ...] = ()
    writes_per_minute: int = Field(default=10, ge=0)
    reads_per_second: int = Field(default=0, ge=0)
    clock_skew_seconds: float = Field(default=0, allow_inf_nan=False)
    ledger_reads: Literal["entries", "counts"] = "entries"
    faults: tuple[FaultRule, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        _refuse_repeats("clusters id", [cluster.id for cluster in self.clusters])
        pools = [pool for cluster in self.clusters for pool in cluster.node_pools]
        _refuse_repeats("nodePools id", [pool.id for pool in pools])
        _refuse_repeats("servers of nodePools", [s for pool in pools for s in pool.all_servers(self.seed)])
        _refuse_repeats("accessKeys accessKey", [key.access_key for key in self.access_keys])
        _refuse_repeats("identityProviders name", [provider.name for provider in self.identity_providers])
        _refuse_repeats("agencies urn", [agency.urn for agency in self.agencies])
        return self

    def changed(self, patch: dict[str, object]) -> Self:
        """A copy with live fields replaced; `behaviour` is merged field by field. Raises ConfigError."""
        document = self.to_json()
        for name, value in patch.items():
            if name not in LIVE_FIELDS:
                raise _not_live(name)
            old = document.get(name)
            document[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        return self.from_json(document)


LIVE_FIELDS = frozenset(
    {
        "accessKeys", "tokens", "users", "identityProviders", "agencies", "agent", "behaviour", "badServers",
        "unknownServers", "servers", "writesPerMinute", "readsPerSecond", "clockSkewSeconds", "ledgerReads",
    }
)  # fmt: skip


def _not_live(name: str) -> ConfigError:
    return ConfigError(f"{name}: cannot be changed while running; these can: {', '.join(sorted(LIVE_FIELDS))}")


def _refuse_repeats(what: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value} is given twice; every one must be unique")
        seen.add(value)
