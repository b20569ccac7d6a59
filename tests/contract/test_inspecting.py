"""One inspection of servers against the simulator: what is read, with how many calls, and what of it is told.

Not for: what is decided from it; test_core_vetting.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpx
import pytest

from cce_simulator import FaultRule, Simulator, SimulatorConfig
from cce_simulator.config import (
    ACCESS_KEY,
    CLUSTER_ID,
    NODE_POOL_ID,
    PROJECT_ID,
    SUBNET_ID,
    DiskConfig,
    ServerConfig,
)
from cce_simulator.faults import Answer
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import NodePoolRef, PreflightMode
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.servers import ServerEndpoints, ServersClient
from nodepool_membership.cce.transport import make_http
from nodepool_membership.core.preflight.facts import CCE_CLUSTER_TAG, CCE_NODE_TAG, Flavor, Inspection
from nodepool_membership.core.program.effects import InspectServers
from nodepool_membership.runtime.cloud.flavors import KEPT_SECONDS, FlavorLists
from nodepool_membership.runtime.cloud.inspecting import MAX_NODES, inspect
from simulator_calls import config, servers

KEY = AccessKey(ACCESS_KEY, SimulatorConfig().access_keys[0].secret_key)
POOL = NodePoolRef(PROJECT_ID, CLUSTER_ID, NODE_POOL_ID, "r")
A, B, C = servers(3)
GONE = "99999999-0000-4000-8000-000000000001"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Site:
    simulator: Simulator
    http: httpx.AsyncClient
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.flavors = FlavorLists(lambda: self.seconds)

    async def inspect(
        self,
        *ids: str,
        mode: PreflightMode = PreflightMode.REPORT,
        subnet: str = SUBNET_ID,
        known: bool = True,
        within: float = 600,
        turbo: bool = False,
    ) -> Inspection:
        url = self.simulator.url
        cloud = CloudClient(self.http, url, PROJECT_ID, KEY, now=now, timeout_seconds=60)
        places = ServerEndpoints(url, url, url, url)
        reader = ServersClient(self.http, places, PROJECT_ID, KEY, now=now, timeout_seconds=60)
        wanted = InspectServers(POOL, frozenset(ids), frozenset({subnet}), mode, turbo)
        flavors = partial(self.flavors.get, (url, PROJECT_ID, "a source"))
        return await inspect(wanted, cloud, reader if known else None, now=now, within=within, flavors=flavors)

    def calls(self) -> dict[str, int]:
        return self.simulator.summary().calls_per_route


@asynccontextmanager
async def site(*rules: ServerConfig) -> AsyncIterator[Site]:
    async with Simulator(config(servers=rules)) as simulator, make_http(60) as http:
        yield Site(simulator, http)


async def test_ten_thousand_servers_are_two_hundred_reads() -> None:
    async with site() as here:
        seen = await here.inspect(*servers(10_000))
        assert (len(seen.servers), seen.unread, seen.why) == (10_000, frozenset(), None)
        assert here.calls() == {"listServers": 200}


async def test_without_an_address_nothing_is_read_and_it_is_said_which_file_names_one() -> None:
    async with site() as here:
        seen = await here.inspect(A, B, known=False)
        assert (dict(seen.servers), seen.unread) == ({}, frozenset({A, B}))
        assert seen.why is not None
        assert "name it in the file of --endpoints" in seen.why.message
        assert here.calls() == {}


async def test_what_is_not_answered_in_time_is_not_read_and_that_is_told() -> None:
    async with site() as here:
        here.simulator.faults.add(FaultRule(route="listServers", delay_seconds=2))
        seen = await here.inspect(A, B, within=0.2)
        assert (dict(seen.servers), seen.unread) == ({}, frozenset({A, B}))
        assert seen.why is not None
        assert "no answer within 0.2 s" in seen.why.message


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "Pdp.0001", Reason.FORBIDDEN),
        (429, "Common.1503", Reason.THROTTLED),
        (500, "Ecs.0000", Reason.CLOUD_UNREACHABLE),
    ],
)
async def test_why_servers_could_not_be_read_is_told_once_for_all(status: int, code: str, reason: Reason) -> None:
    async with site() as here:
        here.simulator.faults.add(FaultRule(route="listServers", answer=Answer(status=status, error_code=code)))
        seen = await here.inspect(*servers(120))
        assert (seen.servers, len(seen.unread)) == ({}, 120)
        assert seen.why is not None
        assert (seen.why.reason, code in seen.why.message) == (reason, True)


async def test_sizes_of_disks_are_read_only_where_they_decide() -> None:
    rule = ServerConfig(servers=(A,), data_disks=(DiskConfig(size=9),), system_disk=DiskConfig(size=8))
    async with site(rule) as here:
        assert [d.gib for d in (await here.inspect(A)).servers[A].disks or ()] == [0]
        enforced = await here.inspect(A, mode=PreflightMode.ENFORCE)
        assert [d.gib for d in enforced.servers[A].disks or ()] == [9]
        assert str(enforced.servers[A].system_disk) == "8 GiB GPSSD"
        here.simulator.faults.add(FaultRule(route="listVolumes", answer=Answer(status=403, error_code="EVS.0001")))
        refused = await here.inspect(A, mode=PreflightMode.ENFORCE)
        assert (dict(refused.servers), refused.unread) == ({}, frozenset({A}))


async def test_the_node_that_a_tag_names_is_looked_up() -> None:
    async with site(tagged(B, GONE), tagged(C, GONE.replace("1", "2"), "ffffffff-0000-4000-8000-000000000001")) as here:
        cluster = here.simulator.world.inventory.clusters[CLUSTER_ID]
        node = here.simulator.world.put_node(cluster, NODE_POOL_ID, A)
        seen = await here.inspect(A, B, C)
        assert seen.nodes == {node.uid: True, GONE: False, GONE.replace("1", "2"): False}
        here.simulator.faults.add(FaultRule(route="getNode", answer=Answer(status=403, error_code="CCE.01403001")))
        assert (await here.inspect(A, B, C)).nodes == {}


async def test_a_node_whose_cluster_no_tag_names_may_be_another_clusters() -> None:
    alone = ServerConfig(servers=(A,), patch={"tags": [f"{CCE_NODE_TAG}={GONE}"]})
    async with site(alone) as here:
        assert (await here.inspect(A)).nodes == {}


def tagged(server: str, uid: str, cluster: str = CLUSTER_ID) -> ServerConfig:
    return ServerConfig(servers=(server,), patch={"tags": [f"{CCE_NODE_TAG}={uid}", f"{CCE_CLUSTER_TAG}={cluster}"]})


async def test_only_so_many_nodes_are_looked_up() -> None:
    rules = [tagged(server, server) for server in servers(MAX_NODES + 5)]
    async with site(*rules) as here:
        assert len((await here.inspect(*servers(MAX_NODES + 5))).nodes) == MAX_NODES


async def test_the_pools_subnet_is_read_where_a_server_names_another_id() -> None:
    other = {"network_interfaces": [{"port_id": "p", "subnet_id": "elsewhere"}]}
    async with site(ServerConfig(servers=(B,), patch=other)) as here:
        assert (await here.inspect(A)).ipv6_by_subnet == {}
        assert "showSubnet" not in here.calls()
        assert SUBNET_ID in (await here.inspect(A, B)).ipv6_by_subnet
        assert (await here.inspect(A, B, subnet="unknown")).ipv6_by_subnet == {}


async def test_flavors_are_read_for_turbo_clusters_only_and_once_an_hour() -> None:
    async with site() as here:
        assert (await here.inspect(A)).flavors == {}
        assert "listFlavors" not in here.calls()
        looks = await asyncio.gather(*(here.inspect(server, turbo=True) for server in (A, B)))
        assert [seen.flavors for seen in looks] == [{"c7.2xlarge.4": Flavor(8, 64)}] * 2
        here.seconds = KEPT_SECONDS - 1
        await here.inspect(A, turbo=True)
        assert here.calls()["listFlavors"] == 1
        here.seconds = KEPT_SECONDS
        await here.inspect(A, turbo=True)
        assert here.calls() == {"listServers": 5, "listFlavors": 2}


@pytest.mark.parametrize(
    "fault",
    [
        FaultRule(route="listFlavors", answer=Answer(status=403, error_code="Ecs.0003")),
        FaultRule(route="listFlavors", delay_seconds=2),
    ],
    ids=["refused", "late"],
)
async def test_flavors_that_cannot_be_read_stop_nothing_unless_all_rules_must_be_held(fault: FaultRule) -> None:
    async with site() as here:
        here.simulator.faults.add(fault)
        seen = await here.inspect(A, turbo=True, within=1)
        assert (list(seen.servers), seen.unread, seen.flavors) == ([A], frozenset(), {})
        enforced = await here.inspect(A, turbo=True, within=1, mode=PreflightMode.ENFORCE)
        assert (dict(enforced.servers), enforced.unread) == ({}, frozenset({A}))
        assert enforced.why is not None
