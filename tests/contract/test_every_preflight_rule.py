"""Every rule of preflight over the wire: a server whose document breaks it, read by the client and judged.

Not for: the checks themselves (`unit.core.preflight.test_preflight_rules`), or what becomes of a server
(`unit.core.planning.test_core_vetting`).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pytest

from cce_simulator import Simulator, SimulatorConfig
from cce_simulator.config import (
    ACCESS_KEY,
    CLUSTER_ID,
    NODE_POOL_ID,
    PROJECT_ID,
    SUBNET_ID,
    VPC_ID,
    ClusterConfig,
    DiskConfig,
    NodePoolConfig,
    ServerConfig,
)
from nodepool_membership.api.reasons import FailureReason, FindingReason
from nodepool_membership.api.spec import NodePoolRef, PreflightMode
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.servers import ServerEndpoints, ServersClient
from nodepool_membership.cce.transport import make_http
from nodepool_membership.core.preflight.facts import CCE_CLUSTER_TAG, CCE_NODE_TAG, subnets_of
from nodepool_membership.core.preflight.hazards import obstacles
from nodepool_membership.core.preflight.judge import judge
from nodepool_membership.core.preflight.rules import RULES, Asked, Tag
from nodepool_membership.core.program.effects import InspectServers
from nodepool_membership.runtime.cloud.inspecting import inspect
from simulator_calls import config, servers

KEY: Final = AccessKey(ACCESS_KEY, SimulatorConfig().access_keys[0].secret_key)
POOL: Final = NodePoolRef(PROJECT_ID, CLUSTER_ID, NODE_POOL_ID, "r")
BAD, GOOD = servers(2)
ELSEWHERE: Final = "ffffffff-0000-4000-8000-000000000001"
MARK: Final = "nodepool-membership"
MARKED: Final = f"{MARK}={NODE_POOL_ID}"


TWO_NICS: Final = [
    {"version": "4", "addr": f"192.168.0.{n}", "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS:port_id": f"port-{n}"}
    for n in (1, 2)
]
Document = dict[str, object]


@dataclass(frozen=True)
class Case:
    """One rule, and what is odd about the server; the other one fits, with `good` in a pool that asks for more."""

    reason: FailureReason | FindingReason
    patch: Document = field(default_factory=dict)
    disks: tuple[DiskConfig, ...] | None = None
    system_gib: int = 50
    bare_metal: bool = False
    good: Document = field(default_factory=dict)
    pool: Document = field(default_factory=dict)
    cluster: Document = field(default_factory=dict)


def meta(**fields: str) -> Document:
    return {"metadata": fields}


CASES: Final = (
    Case(FailureReason.SERVER_NOT_FOUND, {"tenant_id": "f" * 32}),
    Case(FailureReason.REQUIRED_TAG_MISSING, {"tags": [f"{MARK}=another"]}),
    Case(FailureReason.SERVER_NOT_RUNNING, {"status": "SHUTOFF"}),
    Case(FailureReason.SERVER_NOT_RUNNING, {"OS-EXT-STS:task_state": "deleting"}),
    Case(FailureReason.SERVER_IS_NODE, {"tags": [MARKED, f"{CCE_NODE_TAG}=a-node"]}),
    Case(FailureReason.SPOT_SERVER, meta(charging_mode="2")),
    Case(FailureReason.OTHER_VPC, meta(vpc_id=ELSEWHERE)),
    Case(FailureReason.OTHER_SUBNET, {"network_interfaces": [{"subnet_id": ELSEWHERE}]}),
    Case(FailureReason.SEVERAL_INTERFACES, {"addresses": {VPC_ID: TWO_NICS}}),
    Case(FailureReason.SEVERAL_INTERFACES, meta(baremetalPortIDList=f"[{ELSEWHERE}]")),
    Case(FindingReason.OTHER_BILLING, meta(charging_mode="1")),
    Case(FailureReason.OTHER_FLAVOR, {"flavor": {"id": "another"}}),
    Case(FailureReason.OTHER_FLAVOR, {"OS-EXT-AZ:availability_zone": "another"}),
    Case(FailureReason.SERVER_TOO_SMALL, {"flavor": {"vcpus": "1"}}),
    Case(FailureReason.SERVER_TOO_SMALL, {"flavor": {"ram": "2048"}}),
    Case(
        FailureReason.OTHER_SERVER_GROUP,
        {"os:scheduler_hints": {"group": ["another"]}},
        good={"os:scheduler_hints": {"group": ["a-group"]}},
        pool={"nodeManagement": {"serverGroupReference": "a-group"}},
    ),
    Case(FailureReason.OTHER_RESERVATION, {"capacity_reservation_id": "another"}),
    Case(
        FailureReason.OTHER_RESERVATION,
        {"flavor": {"id": "another"}, "capacity_reservation_specification": {"id": "r", "preference": "none"}},
        pool={
            "extensionScaleGroups": [
                {
                    "spec": {
                        "flavor": "another",
                        "capacityReservationSpecification": {"id": "r", "preference": "targeted"},
                    }
                }
            ]
        },
    ),
    Case(
        FailureReason.OTHER_ENTERPRISE_PROJECT,
        {"enterprise_project_id": "another"},
        cluster={"version": "v1.19.10", "extendParam": {"enterpriseProjectId": "0"}},
    ),
    Case(FailureReason.OTHER_DISK_COUNT, disks=(DiskConfig(size=100),)),
    Case(FailureReason.OTHER_DISK_SIZE, disks=(DiskConfig(size=9), DiskConfig(size=500))),
    Case(FailureReason.OTHER_DISK_SIZE, disks=(DiskConfig(size=100), DiskConfig(size=600))),
    Case(FailureReason.OTHER_DISK_SIZE, system_gib=40),
    Case(FailureReason.OTHER_POOL_KIND, {"tags": [MARKED, "__type_baremetal=true"]}, bare_metal=True),
    Case(
        FailureReason.NO_IPV6,
        good={"network_interfaces": [{"subnet_id": SUBNET_ID, "ipv6_addresses": ["fd00::1"]}]},
        cluster={"ipv6enable": True},
    ),
    Case(
        FailureReason.FLAVOR_NOT_FOR_TURBO,
        {"flavor": {"id": "c3.large.2"}},
        pool={"extensionScaleGroups": [{"spec": {"flavor": "c3.large.2"}}]},
        cluster={"category": "Turbo"},
    ),
    Case(FailureReason.SERVER_FROZEN, meta(EcmResStatus="freeze")),
    Case(FailureReason.SERVER_LOCKED, {"locked": True}),
    Case(FailureReason.SERVER_LOCKED, meta(lockSource="ORDER")),
    Case(FailureReason.ABOUT_TO_TERMINATE, {"auto_terminate_time": "2027-01-01T00:00:00Z"}),
    Case(
        FindingReason.STALE_CCE_TAG,
        {"tags": [MARKED, f"{CCE_NODE_TAG}={ELSEWHERE}", f"{CCE_CLUSTER_TAG}={CLUSTER_ID}"]},
    ),
    Case(FindingReason.WINDOWS_SERVER, meta(os_type="Windows")),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason}-{','.join(case.patch)}")
async def test_a_server_that_breaks_a_rule_is_told_apart_from_one_that_does_not(case: Case) -> None:
    tags: Document = {"tags": [MARKED]}
    rules = (
        ServerConfig(
            servers=(BAD,),
            kind="bms" if case.bare_metal else "ecs",
            patch={**tags, **case.good, **case.patch} if case.patch else tags,
            data_disks=case.disks,
            system_disk=DiskConfig(size=case.system_gib),
        ),
        ServerConfig(servers=(GOOD,), patch={**tags, **case.good}),
    )
    pool = NodePoolConfig(id=NODE_POOL_ID, spec=case.pool)
    cluster = ClusterConfig(id=CLUSTER_ID, node_pools=(pool,), spec=case.cluster)
    async with Simulator(config(servers=rules, clusters=(cluster,))) as simulator, make_http(60) as http:
        url = simulator.url
        if case.reason is FailureReason.SERVER_IS_NODE:
            node = simulator.world.put_node(simulator.world.inventory.clusters[CLUSTER_ID], NODE_POOL_ID, servers(3)[2])
            simulator.world.server_rules[BAD] = ServerConfig(
                servers=(BAD,), patch={"tags": [MARKED, f"{CCE_NODE_TAG}={node.uid}"]}
            )
        cloud = CloudClient(http, url, PROJECT_ID, KEY, now=now, timeout_seconds=60)
        reader = ServersClient(http, ServerEndpoints(url, url, url, url), PROJECT_ID, KEY, now=now, timeout_seconds=60)
        template = (await cloud.get_node_pool(CLUSTER_ID, NODE_POOL_ID)).template
        network = (await cloud.get_cluster(CLUSTER_ID)).network
        subnets = subnets_of(template, network)
        wanted = InspectServers(POOL, frozenset({BAD, GOOD}), subnets, PreflightMode.ENFORCE, network.turbo)
        inspection = await inspect(wanted, cloud, reader, now=now)
    asked = Asked(PROJECT_ID, template, network, inspection, Tag(MARK, NODE_POOL_ID))
    broken = {i: {rule.reason for rule in RULES if rule.check(s, asked)} for i, s in inspection.servers.items()}
    assert broken == {BAD: {case.reason}, GOOD: set()}
    verdict = judge(asked, PreflightMode.ENFORCE)
    assert GOOD in verdict.passed
    stops = isinstance(case.reason, FailureReason)
    assert (BAD in verdict.passed, set(verdict.failed)) == (not stops, {BAD} if stops else set())


def test_no_rule_is_left_out() -> None:
    told = {case.reason for case in CASES}
    assert told == {rule.reason for rule in RULES}, "each check has a Case in this file"


LOCKED = [{"type": "Scalable", "status": "False"}, {"type": "LockedByOrder", "status": "True"}]


@pytest.mark.parametrize(
    ("status", "flavor", "told"),
    [
        ({}, "cce.s2.medium", set()),
        ({"conditions": LOCKED}, "cce.s2.medium", {FindingReason.POOL_CONDITIONS}),
        ({}, "cce.s2.small", {FindingReason.CLUSTER_FULL}),
    ],
)
async def test_a_pool_that_takes_none_and_a_cluster_without_room_are_told(
    status: Document, flavor: str, told: set[FindingReason]
) -> None:
    pool = NodePoolConfig(id=NODE_POOL_ID, server_count=49, status=status)
    cluster = ClusterConfig(id=CLUSTER_ID, node_pools=(pool,), spec={"flavor": flavor})
    async with Simulator(config(clusters=(cluster,))) as simulator, make_http(60) as http:
        cloud = CloudClient(http, simulator.url, PROJECT_ID, KEY, now=now, timeout_seconds=60)
        seen, room = await cloud.get_node_pool(CLUSTER_ID, NODE_POOL_ID), await cloud.get_cluster(CLUSTER_ID)
    found = obstacles(seen.hindrances, room.most_nodes, seen.current_nodes or 0, 2)
    assert {finding.reason for finding in found} == told


def now() -> datetime:
    return datetime.now(UTC)
