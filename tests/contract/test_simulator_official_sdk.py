"""The official SDK, unchanged, drives the simulator: what it accepts there, it accepts of the cloud.

Not for: the simulator's switches and faults; test_simulator_world and test_simulator_faults.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
from huaweicloudsdkcce.v3 import (
    AddNodesToNodePool,
    AddNodesToNodePoolList,
    AddNodesToNodePoolRequest,
    CceClient,
    DeleteNodeRequest,
    ListNodePoolsRequest,
    ListNodesRequest,
    NodeItem,
    RemoveNodeRequest,
    RemoveNodesSpec,
    RemoveNodesTask,
    ShowClusterRequest,
    ShowJobRequest,
    ShowJobResponse,
    ShowNodePoolRequest,
    ShowNodeRequest,
)
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException

from cce_simulator import Behaviour, ClusterConfig, NodePoolConfig, Simulator, SimulatorConfig, server_id, throttled
from cce_simulator.config import ACCESS_KEY, CLUSTER_ID, NODE_POOL_ID, PROJECT_ID, AccessKeyConfig

Result = TypeVar("Result")

MISSING = "00000000-0000-0000-0000-000000000000"
SECRET = SimulatorConfig().access_keys[0].secret_key
SERVERS = [server_id("sdk", index) for index in range(5)]
TEMPORARY = AccessKeyConfig(access_key="TEMPORARYKEY", secret_key="temporary", security_token="security/token+=")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    pool = NodePoolConfig(id=NODE_POOL_ID, server_count=3)
    config = SimulatorConfig(
        clusters=(ClusterConfig(id=CLUSTER_ID, node_pools=(pool,)),),
        access_keys=(*SimulatorConfig().access_keys, TEMPORARY),
        behaviour=Behaviour(job_seconds=0.4, remove_seconds=0.2),
        writes_per_minute=20,
    )
    async with Simulator(config) as running:
        yield running


def client(simulator: Simulator, credentials: BasicCredentials) -> CceClient:
    return CceClient.new_builder().with_credentials(credentials).with_endpoints([simulator.url]).build()


@pytest.fixture
def sdk(simulator: Simulator) -> CceClient:
    return client(simulator, BasicCredentials(ACCESS_KEY, SECRET, PROJECT_ID))


async def call(method: Callable[[object], Result], request: object) -> Result:
    """The SDK is synchronous, and the simulator runs in this thread's event loop."""
    return await asyncio.to_thread(method, request)


async def refusal(method: Callable[[object], object], request: object) -> ClientRequestException:
    with pytest.raises(ClientRequestException) as caught:
        await call(method, request)
    return caught.value


def add_request(servers: list[str]) -> AddNodesToNodePoolRequest:
    nodes = [AddNodesToNodePool(server_id=server) for server in servers]
    body = AddNodesToNodePoolList(api_version="v3", kind="List", node_list=nodes)
    return AddNodesToNodePoolRequest(cluster_id=CLUSTER_ID, nodepool_id=NODE_POOL_ID, body=body)


async def finished(sdk: CceClient, job_id: str) -> ShowJobResponse:
    """The job once it is over."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        job = await call(sdk.show_job, ShowJobRequest(job_id=job_id))
        if job.status.phase not in {"Initializing", "Running"}:
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(f"job {job_id} did not end")


async def test_added_servers_are_listed_as_active_nodes_of_the_pool_when_the_job_is_over(sdk: CceClient) -> None:
    accepted = await call(sdk.add_nodes_to_node_pool, add_request(SERVERS))
    job = await finished(sdk, accepted.jobid)
    nodes = await call(sdk.list_nodes, ListNodesRequest(cluster_id=CLUSTER_ID))
    joined = [node for node in nodes.items if node.status.server_id in SERVERS]

    assert (job.metadata.uid, job.status.phase) == (accepted.jobid, "Success")
    assert {sub.spec.extend_param["serverID"] for sub in job.spec.sub_jobs} == set(SERVERS)
    assert {sub.spec.resource_id for sub in job.spec.sub_jobs} == {node.metadata.uid for node in joined}
    assert {node.status.phase for node in joined} == {"Active"}
    assert {node.metadata.annotations["kubernetes.io/node-pool.id"] for node in joined} == {NODE_POOL_ID}
    assert {node.metadata.owner_references.nodepool_id for node in joined} == {NODE_POOL_ID}
    assert {node.status.job_id for node in joined} == {accepted.jobid}


async def test_a_listing_is_read_page_by_page(sdk: CceClient) -> None:
    uids: list[str] = []
    marker = None
    for _ in range(2):
        page = await call(sdk.list_nodes, ListNodesRequest(cluster_id=CLUSTER_ID, limit="2", marker=marker))
        assert page.page_info.current_count == len(page.items)
        uids += [node.metadata.uid for node in page.items]
        marker = page.page_info.next_marker
    assert marker is None
    assert len(set(uids)) == 3
    node = await call(sdk.show_node, ShowNodeRequest(cluster_id=CLUSTER_ID, node_id=uids[0]))
    assert (node.metadata.uid, node.kind) == (uids[0], "Node")


async def test_pool_and_cluster_are_read(sdk: CceClient) -> None:
    pool = await call(sdk.show_node_pool, ShowNodePoolRequest(cluster_id=CLUSTER_ID, nodepool_id=NODE_POOL_ID))
    pools = await call(sdk.list_node_pools, ListNodePoolsRequest(cluster_id=CLUSTER_ID))
    cluster = await call(sdk.show_cluster, ShowClusterRequest(cluster_id=CLUSTER_ID))
    assert (pool.metadata.uid, pool.status.current_node, pool.status.active_node) == (NODE_POOL_ID, 3, 3)
    assert pool.spec.initial_node_count == 3
    assert [item.metadata.uid for item in pools.items] == [NODE_POOL_ID]
    assert cluster.status.phase == "Available"


async def test_a_removed_node_leaves_and_its_server_can_be_added_again(sdk: CceClient, simulator: Simulator) -> None:
    listed = await call(sdk.list_nodes, ListNodesRequest(cluster_id=CLUSTER_ID))
    gone = listed.items[0]
    task = RemoveNodesTask(
        api_version="v3", kind="RemoveNodesTask", spec=RemoveNodesSpec(nodes=[NodeItem(uid=gone.metadata.uid)])
    )
    removed = await call(sdk.remove_node, RemoveNodeRequest(cluster_id=CLUSTER_ID, body=task))
    await finished(sdk, removed.status.job_id)
    left = await call(sdk.list_nodes, ListNodesRequest(cluster_id=CLUSTER_ID))
    again = await call(sdk.add_nodes_to_node_pool, add_request([gone.status.server_id]))

    assert gone.metadata.uid not in {node.metadata.uid for node in left.items}
    assert again.jobid is not None
    assert simulator.summary().double_adds == 0
    assert simulator.summary().servers_removed == 1


async def test_a_deleted_node_takes_its_server_along(sdk: CceClient, simulator: Simulator) -> None:
    listed = await call(sdk.list_nodes, ListNodesRequest(cluster_id=CLUSTER_ID))
    node = listed.items[0]
    request = DeleteNodeRequest(cluster_id=CLUSTER_ID, node_id=node.metadata.uid)
    deleted = await call(sdk.delete_node, request)
    await finished(sdk, deleted.status.job_id)
    refused = await refusal(sdk.add_nodes_to_node_pool, add_request([node.status.server_id]))
    assert "does not exist" in refused.error_msg
    assert simulator.summary().delete_calls == 1


async def test_a_temporary_key_works_with_its_security_token_only(simulator: Simulator) -> None:
    credentials = BasicCredentials(TEMPORARY.access_key, TEMPORARY.secret_key, PROJECT_ID)
    without = client(simulator, credentials)
    refused = await refusal(without.show_cluster, ShowClusterRequest(cluster_id=CLUSTER_ID))
    assert (refused.status_code, refused.error_code) == (401, "APIGW.0301")

    token = TEMPORARY.security_token
    with_token = BasicCredentials(TEMPORARY.access_key, TEMPORARY.secret_key, PROJECT_ID).with_security_token(token)
    accepted = await call(client(simulator, with_token).add_nodes_to_node_pool, add_request(SERVERS))
    assert accepted.jobid is not None


async def test_a_bad_request_shows_the_second_error_family(sdk: CceClient) -> None:
    refused = await refusal(sdk.add_nodes_to_node_pool, add_request([]))
    assert (refused.status_code, refused.error_code) == (400, "CCE_CM.0004")
    assert refused.error_msg == "Request is invalid, nodeList must hold 1 to 200 entries"


async def test_a_wrong_secret_key_shows_what_the_gateway_signed(simulator: Simulator) -> None:
    wrong = client(simulator, BasicCredentials(ACCESS_KEY, "wrong", PROJECT_ID))
    refused = await refusal(wrong.list_nodes, ListNodesRequest(cluster_id=CLUSTER_ID, limit="2"))
    assert (refused.status_code, refused.error_code) == (401, "APIGW.0301")
    path = f"/api/v3/projects/{PROJECT_ID}/clusters/{CLUSTER_ID}/nodes/"
    assert f"canonicalRequest:GET|{path}|limit=2|content-type:application/json|" in refused.error_msg


async def test_a_foreign_project_is_forbidden(simulator: Simulator) -> None:
    foreign = client(simulator, BasicCredentials(ACCESS_KEY, SECRET, "f" * 32))
    refused = await refusal(foreign.show_cluster, ShowClusterRequest(cluster_id=CLUSTER_ID))
    assert (refused.status_code, refused.error_code) == (403, "CCE.01403001")


async def test_what_is_not_there_is_not_found(sdk: CceClient, simulator: Simulator) -> None:
    requests = {
        "show_cluster": ShowClusterRequest(cluster_id=MISSING),
        "show_node_pool": ShowNodePoolRequest(cluster_id=CLUSTER_ID, nodepool_id=MISSING),
        "show_node": ShowNodeRequest(cluster_id=CLUSTER_ID, node_id=MISSING),
        "show_job": ShowJobRequest(job_id=MISSING),
    }
    for method, request in requests.items():
        refused = await refusal(getattr(sdk, method), request)
        assert (refused.status_code, refused.error_code) == (404, "CCE_CM.0003"), method
        assert refused.request_id == simulator.ledger.entries[-1].request_id


async def test_a_throttled_add_is_refused_with_the_gateways_code(sdk: CceClient, simulator: Simulator) -> None:
    simulator.faults.add(throttled(retry_after="56.818"))
    refused = await refusal(sdk.add_nodes_to_node_pool, add_request(SERVERS))
    assert (refused.status_code, refused.error_code) == (429, "APIGW.0308")
    assert "policy user over ratelimit" in refused.error_msg
    assert simulator.summary().accepted_adds == 0
