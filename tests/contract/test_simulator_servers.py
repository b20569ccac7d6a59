"""Servers as the simulator's ECS, BMS and EVS show them, to the official SDK unchanged and to the operator's client.

Not for: what an add does; test_simulator_world.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import httpx
import pytest
from huaweicloudsdkbms.v1 import BmsClient, ListBareMetalServerDetailsRequest, ListBareMetalServersRequest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkecs.v2 import (
    EcsClient,
    ListFlavorsRequest,
    ListServersDetailsRequest,
    ShowServerRequest,
    ShowServerTagsRequest,
)
from huaweicloudsdkevs.v2 import EvsClient, ListVolumesRequest
from huaweicloudsdkvpc.v2 import ShowSubnetRequest, VpcClient

from cce_simulator import Simulator, throttled
from cce_simulator.config import (
    ACCESS_KEY,
    CLUSTER_ID,
    NODE_POOL_ID,
    PROJECT_ID,
    DiskConfig,
    ServerConfig,
    SimulatorConfig,
)
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.servers import ServerEndpoints, ServersClient, ServersRead
from nodepool_membership.cce.transport import make_http
from nodepool_membership.core.preflight.facts import Flavor, Inspection
from nodepool_membership.core.preflight.rules import RULES, Asked
from simulator_calls import Cloud, config, servers

Result = TypeVar("Result")
Client = TypeVar("Client", EcsClient, BmsClient, EvsClient, VpcClient)
A, B, C, D = servers(4)
SECRET = SimulatorConfig().access_keys[0].secret_key
KEY = AccessKey(ACCESS_KEY, SECRET)


async def now_read(simulator: Simulator, *ids: str) -> ServersRead:
    async with make_http(60) as http:
        return await reader(simulator, http).servers(ids)


def reader(simulator: Simulator, http: httpx.AsyncClient) -> ServersClient:
    places = ServerEndpoints(*([simulator.url] * 4))
    return ServersClient(http, places, PROJECT_ID, KEY, now=lambda: datetime.now(UTC), timeout_seconds=60)


def settings(*rules: ServerConfig, **behaviour: object) -> SimulatorConfig:
    return config(servers=rules, behaviour=behaviour, unknown_servers=(D,))


def sdk_of(kind: type[Client], simulator: Simulator) -> Client:
    credentials = BasicCredentials(ACCESS_KEY, SECRET, PROJECT_ID)
    return kind.new_builder().with_credentials(credentials).with_endpoints([simulator.url]).build()


async def call(method: Callable[[object], Result], request: object) -> Result:
    """The SDK is synchronous, and the simulator runs in this thread's event loop."""
    return await asyncio.to_thread(method, request)


async def test_the_official_sdk_reads_servers_by_their_ids() -> None:
    async with Simulator(settings()) as simulator:
        sdk = sdk_of(EcsClient, simulator)
        request = ListServersDetailsRequest(server_id=f"{A},{D},{B}", limit=3)
        found = await call(sdk.list_servers_details, request)
        assert [(s.id, s.status) for s in found.servers] == [(A, "ACTIVE"), (D, None), (B, "ACTIVE")]
        assert found.servers[1].fault["message"] == f"Instance {D} could not be found."
        one = (await call(sdk.show_server, ShowServerRequest(server_id=A))).server
        assert (one.flavor.vcpus, one.metadata["charging_mode"], one.os_ext_st_stask_state) == ("8", "0", None)
        tags = await call(sdk.show_server_tags, ShowServerTagsRequest(server_id=A))
        assert [(tag.key, tag.value) for tag in tags.tags] == [("owner", "nobody=else")]
        with pytest.raises(ClientRequestException) as caught:
            await call(sdk.show_server, ShowServerRequest(server_id=D))
        assert (caught.value.status_code, caught.value.error_code) == (404, "Ecs.0114")


async def test_the_official_sdk_reads_bare_metal_servers() -> None:
    async with Simulator(settings(ServerConfig(servers=(A,), kind="bms"))) as simulator:
        sdk = sdk_of(BmsClient, simulator)
        one = (await call(sdk.list_bare_metal_server_details, ListBareMetalServerDetailsRequest(server_id=A))).server
        listed = await call(sdk.list_bare_metal_servers, ListBareMetalServersRequest(limit=10))
        with pytest.raises(ClientRequestException) as caught:
            await call(sdk.list_bare_metal_server_details, ListBareMetalServerDetailsRequest(server_id=D))
    assert (one.id, one.status) == (A, "ACTIVE")
    assert [server.id for server in listed.servers] == [A]
    assert caught.value.status_code == 404


async def test_the_official_sdk_reads_the_sizes_of_disks_and_a_subnet() -> None:
    disks = (DiskConfig(size=100), DiskConfig(size=500))
    async with Simulator(settings(ServerConfig(servers=(A,), data_disks=disks))) as simulator:
        server = (await call(sdk_of(EcsClient, simulator).show_server, ShowServerRequest(server_id=A))).server
        ids = [volume.id for volume in server.os_extended_volumesvolumes_attached]
        unknown = "00000000-0000-4000-8000-000000000000"
        # As a list that a program prints: so the page of this parameter wants it.
        found = await call(sdk_of(EvsClient, simulator).list_volumes, ListVolumesRequest(ids=str([*ids, unknown])))
        subnet_id = server.network_interfaces[0].subnet_id
        subnet = (await call(sdk_of(VpcClient, simulator).show_subnet, ShowSubnetRequest(subnet_id=subnet_id))).subnet
    assert {volume.id: volume.size for volume in found.volumes} == dict(zip(ids, (50, 100, 500), strict=True))
    assert (subnet.id, subnet.vpc_id, subnet.ipv6_enable) == (subnet_id, server.metadata["vpc_id"], False)


async def test_the_official_sdk_reads_what_flavors_let_a_server_have() -> None:
    async with Simulator(settings()) as simulator, make_http(60) as http:
        sdk = sdk_of(EcsClient, simulator)
        found = (await call(sdk.list_flavors, ListFlavorsRequest(limit=2))).flavors
        rest = (await call(sdk.list_flavors, ListFlavorsRequest(marker=found[-1].id))).flavors
        told = await reader(simulator, http).flavors()
    numbers = [
        (f.id, f.os_extra_specs.quotavif_max_num, f.os_extra_specs.quotasub_network_interface_max_num) for f in found
    ]
    assert numbers == [("c3.large.2", "12", "0"), ("c7.2xlarge.4", "8", "64")]
    assert [flavor.id for flavor in rest] == ["s2.large.2"]
    assert told == {"c3.large.2": Flavor(12, 0), "c7.2xlarge.4": Flavor(8, 64), "s2.large.2": Flavor()}


async def test_a_server_that_no_entry_names_breaks_no_rule() -> None:
    async with Simulator(settings()) as simulator, make_http(60) as http:
        cloud = CloudClient(http, simulator.url, PROJECT_ID, KEY, now=lambda: datetime.now(UTC), timeout_seconds=60)
        template = (await cloud.get_node_pool(CLUSTER_ID, NODE_POOL_ID)).template
        network = (await cloud.get_cluster(CLUSTER_ID)).network
        client = reader(simulator, http)
        server = (await client.servers([A])).found[A]
        assert server.disks is not None
        sizes = await client.volumes(disk.volume_id for disk in server.disks)
        server = replace(server, disks=tuple(sizes[disk.volume_id] for disk in server.disks))
        asked = Asked(PROJECT_ID, template, network, Inspection(datetime.now(UTC), frozenset({A})))
        assert [rule.reason for rule in RULES if rule.check(server, asked)] == []
        # Every field that decides something was told.
        assert all([server.vpc_id, server.subnets, server.flavor, server.vcpus, server.charging, network.vpc_id])
        assert server.subnets & (await client.subnet(*server.subnets)).keys()


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"ecsServerID": "ignored"},
        {"ecsLimitCuts": True},
        {"ecsUnknown": "leftOut"},
        {"ecsNulls": "missing"},
        {"bmsInEcs": False},
        {"bmsInEcs": False, "ecsUnknown": "leftOut", "ecsNulls": "missing"},
    ],
)
async def test_every_server_is_found_whatever_the_deployment_does(behaviour: dict[str, object]) -> None:
    bare, odd = servers(2, 500)
    rules = (
        ServerConfig(servers=(bare,), kind="bms"),
        ServerConfig(servers=(odd,), patch={"status": "SHUTOFF", "tags": None}),
    )
    wanted = [*servers(60), bare, odd]
    async with Simulator(settings(*rules, **behaviour)) as simulator:
        result = await now_read(simulator, *wanted)
    assert result.unread == {}
    assert result.found.keys() == set(wanted) - {D}
    assert [i for i, server in result.found.items() if server.bare_metal] == [bare]
    assert (result.found[odd].status, result.found[odd].tags) == ("SHUTOFF", {})


async def test_an_adopted_server_carries_the_tags_of_its_node_and_a_task_until_it_is_installed() -> None:
    async with Cloud.running(settings()) as cloud:

        async def seen() -> dict[str, object]:
            answer = await cloud.http.get(f"/v1/{PROJECT_ID}/cloudservers/{A}")
            document: dict[str, object] = answer.json()["server"]
            return document

        before = await seen()
        await cloud.added([A])
        during = await seen()
        cloud.clock.tick(200)
        after = await seen()
        assert [d["OS-EXT-STS:task_state"] for d in (before, during, after)] == [None, "rebuilding", None]
        marks = {f"CCE-Dynamic-Provisioning-Node={cloud.uid(A)}", f"CCE-Cluster-ID={CLUSTER_ID}"}
        assert marks <= set(str(after["tags"]).replace("'", "").strip("[]").split(", "))
        assert (before["image"] != after["image"], before["security_groups"] != after["security_groups"]) == (
            True,
            True,
        )
        await cloud.remove([cloud.uid(A)])
        cloud.clock.tick(200)
        assert (await seen())["tags"] == before["tags"]


async def test_a_removal_may_leave_the_tags() -> None:
    async with Cloud.running(settings(removalClearsTags=False)) as cloud:
        await cloud.added([A])
        cloud.clock.tick(200)
        uid = cloud.uid(A)
        await cloud.remove([uid])
        cloud.clock.tick(200)
        answer = await cloud.http.get(f"/v1/{PROJECT_ID}/cloudservers/{A}/tags")
        assert {"key": "CCE-Dynamic-Provisioning-Node", "value": uid} in answer.json()["tags"]


@pytest.mark.parametrize("way", ["ignored", "refuseCall", "failInstall"])
async def test_what_an_add_does_with_a_server_that_cannot_work_is_a_switch(way: str) -> None:
    rule = ServerConfig(servers=(A,), patch={"metadata": {"vpc_id": "elsewhere"}})
    async with Cloud.running(settings(rule, unfitServer=way)) as cloud:
        answer = await cloud.add([A, B])
        assert (answer.status_code == 200) == (way != "refuseCall")
        cloud.clock.tick(200)
        assert (await cloud.phases()).get(A) == {"ignored": "Active", "refuseCall": None, "failInstall": "Error"}[way]


async def test_a_server_may_change_between_two_reads() -> None:
    rule = ServerConfig(servers=(A,), patch={"status": "SHUTOFF"}, from_read=2)
    async with Simulator(settings(rule)) as simulator:
        assert [(await now_read(simulator, A)).found[A].status for _ in range(3)] == ["ACTIVE", "SHUTOFF", "SHUTOFF"]


async def test_disks_are_what_the_configuration_says() -> None:
    rule = ServerConfig(servers=(A,), data_disks=(DiskConfig(size=9, volume_type="SAS"),))
    async with Simulator(settings(rule)) as simulator, make_http(60) as http:
        client = reader(simulator, http)
        disks = (await client.servers([A])).found[A].disks
        assert disks is not None
        sizes = await client.volumes(disk.volume_id for disk in disks)
        assert [(d.gib, d.kind) for d in sizes.values()] == [(9, "SAS")]


async def test_rights_and_limits_of_reads_of_servers() -> None:
    keys = config().access_keys[0]
    denied = keys.model_copy(update={"deny": ("ecs:cloudServers:listServersDetails",)})
    async with Simulator(config(access_keys=(denied,))) as simulator:
        error = (await now_read(simulator, A)).unread[A]
        assert (error.status, error.code) == (403, "Pdp.0001")
    async with Simulator(settings()) as simulator:
        rule = throttled().model_copy(update={"method": "GET"})
        answer = rule.answer.model_copy(update={"error_code": "Common.1503"}) if rule.answer else None
        simulator.faults.add(rule.model_copy(update={"answer": answer}))
        error = (await now_read(simulator, A)).unread[A]
        assert (error.status, error.code) == (429, "Common.1503")
        assert set((await now_read(simulator, A)).found) == {A}


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    async with Cloud.running(settings()) as running:
        yield running


@pytest.mark.parametrize(
    "path", ["cloudservers/detail?limit=0", "cloudservers/detail?limit=x", "cloudservers/detail?limit=2000"]
)
async def test_a_limit_that_ecs_does_not_take_is_refused(cloud: Cloud, path: str) -> None:
    answer = await cloud.http.get(f"/v1/{PROJECT_ID}/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "Ecs.0005")


async def test_a_list_without_ids_shows_what_is_named_page_by_page(cloud: Cloud) -> None:
    for server in servers(30, 600):
        cloud.simulator.world.put_node(cloud.simulator.world.inventory.clusters[CLUSTER_ID], NODE_POOL_ID, server)
    pages = [(await cloud.http.get(f"/v1/{PROJECT_ID}/cloudservers/detail?offset={page}")).json() for page in (1, 2, 3)]
    assert [page["count"] for page in pages] == [25, 5, 0]
    assert {s["id"] for page in pages for s in page["servers"]} == set(servers(30, 600))


async def test_the_template_of_a_pool_may_change(cloud: Cloud) -> None:
    change = {"nodePoolID": NODE_POOL_ID, "spec": {"nodeTemplate": {"os": "another"}, "autoscaling": {"enable": True}}}
    assert (await cloud.control("POST", "pools", change)).status_code == 200
    path = f"/api/v3/projects/{PROJECT_ID}/clusters/{CLUSTER_ID}/nodepools/{NODE_POOL_ID}"
    spec = (await cloud.http.get(path)).json()["spec"]
    assert (spec["nodeTemplate"]["os"], spec["nodeTemplate"]["az"]) == ("another", "cn-north-4a")
    assert spec["autoscaling"] == {"enable": True}
