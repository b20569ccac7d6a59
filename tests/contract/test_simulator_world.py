"""Each switch of config.Behaviour and each way of config.BadServer, both ways, in virtual time.

Not for: HTTP's own oddities (test_simulator_http) and injected faults (test_simulator_faults).
"""

import pytest

from cce_simulator import server_id
from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID
from simulator_calls import ADD, CLUSTER, NODES, PROJECT, Cloud, config, servers

OTHER_POOL = "77777777-0000-4000-8000-000000000000"
OTHER_CLUSTER = "88888888-0000-4000-8000-000000000000"
THIRD_POOL = "99999999-0000-4000-8000-000000000000"
A, B, C = servers(3)


def two_clusters() -> list[dict[str, object]]:
    return [
        {"id": CLUSTER_ID, "nodePools": [{"id": NODE_POOL_ID}, {"id": OTHER_POOL}]},
        {"id": OTHER_CLUSTER, "nodePools": [{"id": THIRD_POOL}]},
    ]


async def test_a_job_is_initializing_then_running_then_over_and_forgotten_after_its_retention() -> None:
    async with Cloud.running(config(behaviour={"jobSeconds": 100, "jobRetentionSeconds": 50})) as cloud:
        job = await cloud.added([A])
        assert await cloud.phase_of_job(job) == "Initializing"
        cloud.clock.tick(20)
        assert await cloud.phase_of_job(job) == "Running"
        cloud.clock.tick(79)
        assert await cloud.phase_of_job(job) == "Running"
        cloud.clock.tick(1)
        assert await cloud.phase_of_job(job) == "Success"
        cloud.clock.tick(49)
        assert await cloud.phase_of_job(job) == "Success"
        cloud.clock.tick(1)
        assert (await cloud.job(job)).status_code == 404


async def test_job_durations_are_spread_between_min_and_max_and_follow_from_the_seed() -> None:
    async def ends() -> list[float]:
        behaviour = {"jobSeconds": {"min": 10, "max": 50}}
        async with Cloud.running(config(behaviour=behaviour)) as cloud:
            begun = cloud.clock.now
            for server in servers(5):
                await cloud.added([server])
            cloud.clock.tick(50)
            jobs = (await cloud.control("GET", "jobs")).json()["jobs"]
            return [job["ended"] - begun for job in jobs]

    first = await ends()
    assert first == await ends()
    assert len(set(first)) == 5
    assert all(10 <= seconds <= 50 for seconds in first)


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("atOnce", [{A: "Installing"}, {A: "Installing"}, {A: "Active"}, {A: "Active"}]),
        ("late", [{}, {}, {}, {A: "Active"}]),
        ("atEnd", [{}, {}, {A: "Active"}, {A: "Active"}]),
    ],
)
async def test_when_a_node_shows(visibility: str, seen: list[dict[str, str]]) -> None:
    behaviour = {"nodeVisibility": visibility, "nodeVisibleAfterSeconds": 150}
    async with Cloud.running(config(behaviour=behaviour)) as cloud:
        await cloud.added([A])
        got = []
        for seconds in (0, 50, 50, 50):
            cloud.clock.tick(seconds)
            got.append(await cloud.phases())
        assert got == seen


@pytest.mark.parametrize(("mode", "active"), [("spread", [0, 2, 4]), ("atEnd", [0, 0, 4])])
async def test_nodes_become_active_one_by_one_or_together(mode: str, active: list[int]) -> None:
    async with Cloud.running(config(behaviour={"nodesActive": mode})) as cloud:
        await cloud.added(servers(4))
        got = []
        for seconds in (50, 25, 25):
            cloud.clock.tick(seconds)
            got.append(list((await cloud.phases()).values()).count("Active"))
        assert got == active


async def test_sub_jobs_embedded_tell_server_and_node_once_they_run() -> None:
    async with Cloud.running() as cloud:
        job = await cloud.added([A])
        sub = (await cloud.job(job)).json()["spec"]["subJobs"][0]
        assert (sub["spec"]["resourceID"], sub["spec"]["extendParam"]) == ("", {"serverID": A})
        cloud.clock.tick(50)
        sub = (await cloud.job(job)).json()["spec"]["subJobs"][0]
        assert (sub["spec"]["resourceID"], sub["status"]) == (cloud.uid(A), {"phase": "Running"})


async def test_sub_jobs_separate_are_read_by_their_own_id() -> None:
    async with Cloud.running(config(behaviour={"subJobs": "separate", "rootJobType": "Adopt"})) as cloud:
        job = await cloud.added([A])
        cloud.clock.tick(50)
        root = (await cloud.job(job)).json()
        reference = root["spec"]["subJobs"][0]
        assert root["spec"]["type"] == "Adopt"
        assert set(reference["spec"]) == {"type"}
        sub = (await cloud.job(reference["metadata"]["uid"])).json()
        assert sub["spec"]["resourceID"] == cloud.uid(A)


async def test_sub_jobs_absent_or_without_server_id() -> None:
    async with Cloud.running(config(behaviour={"subJobs": "none"})) as cloud:
        assert "subJobs" not in (await cloud.job(await cloud.added([A]))).json()["spec"]
    async with Cloud.running(config(behaviour={"subJobServerID": False})) as cloud:
        sub = (await cloud.job(await cloud.added([A]))).json()["spec"]["subJobs"][0]
        assert "extendParam" not in sub["spec"]


@pytest.mark.parametrize(
    ("naming", "text"),
    [
        ("first", f"nodeList: server {B}: partitioned"),
        ("all", f"nodeList: server {B}, {C}: partitioned"),
        ("none", "nodeList: partitioned"),
        ("upper", f"nodeList: server {B.upper()}: partitioned"),
        ("foreign", f"nodeList: server {server_id('foreign', 0)}: partitioned"),
    ],
)
async def test_a_bad_server_refuses_the_whole_call_and_is_named(naming: str, text: str) -> None:
    bad = {"servers": [B, C], "reason": "partitioned", "naming": naming, "errorCode": "CCE.01400013"}
    async with Cloud.running(config(bad_servers=[bad])) as cloud:
        answer = await cloud.add([A, B, C])
        assert (answer.status_code, answer.json()["errorCode"], answer.json()["message"]) == (
            400,
            "CCE.01400013",
            text,
        )
        assert await cloud.phases() == {}
        assert cloud.simulator.summary().accepted_adds == 0


async def test_a_refusal_that_is_not_atomic_takes_the_others() -> None:
    async with Cloud.running(config(bad_servers=[{"servers": [B], "atomic": False}])) as cloud:
        answer = await cloud.add([A, B])
        assert answer.status_code == 400
        assert await cloud.phases() == {A: "Installing"}
        assert cloud.simulator.ledger.adds()[0].accepted == (A,)


@pytest.mark.parametrize(("left", "phases"), [("stay", {A: "Active", B: "Error"}), ("vanish", {A: "Active"})])
@pytest.mark.parametrize("root", ["Failed", "Success"])
async def test_a_failed_install_fails_its_part_of_the_job(left: str, phases: dict[str, str], root: str) -> None:
    behaviour = {"failedNodes": left, "partialFailurePhase": root}
    bad = {"servers": [B], "way": "failInstall", "reason": "no disk"}
    async with Cloud.running(config(behaviour=behaviour, bad_servers=[bad])) as cloud:
        job = await cloud.added([A, B])
        cloud.clock.tick(100)
        document = (await cloud.job(job)).json()
        assert document["status"] == ({"phase": "Failed", "reason": "no disk"} if root == "Failed" else {"phase": root})
        assert [sub["status"] for sub in document["spec"]["subJobs"]] == [
            {"phase": "Success"},
            {"phase": "Failed", "reason": "no disk"},
        ]
        assert await cloud.phases() == phases


async def test_a_server_that_failed_and_left_no_node_may_be_added_again_and_is_good_after_its_times() -> None:
    bad = {"servers": [A], "way": "failInstall", "times": 1}
    async with Cloud.running(config(behaviour={"failedNodes": "vanish"}, bad_servers=[bad])) as cloud:
        await cloud.added([A])
        cloud.clock.tick(100)
        assert await cloud.phases() == {}
        await cloud.added([A])
        cloud.clock.tick(100)
        assert await cloud.phases() == {A: "Active"}
        summary = cloud.simulator.summary()
        assert (summary.double_adds, summary.accepted_more_than_once) == (0, {A: 2})


async def test_a_job_succeeds_though_a_node_ends_abnormal_or_never_appears() -> None:
    bad = [
        {"servers": [B], "way": "nodePhase", "nodePhase": "Abnormal"},
        {"servers": [C], "way": "neverAppears"},
    ]
    async with Cloud.running(config(bad_servers=bad)) as cloud:
        job = await cloud.added([A, B, C])
        cloud.clock.tick(100)
        assert await cloud.phase_of_job(job) == "Success"
        assert await cloud.phases() == {A: "Active", B: "Abnormal"}


async def test_an_unknown_server_refuses_the_call_or_fails_in_the_job() -> None:
    async with Cloud.running(config(unknown_servers=[B])) as cloud:
        answer = await cloud.add([A, B])
        assert (answer.status_code, B in answer.json()["message"]) == (400, True)
    async with Cloud.running(config(unknown_servers=[B], behaviour={"badEntry": "failInstall"})) as cloud:
        job = await cloud.added([A, B])
        cloud.clock.tick(100)
        assert await cloud.phase_of_job(job) == "Failed"
        assert await cloud.phases() == {A: "Active"}


async def test_duplicates_refuse_or_merge_whatever_their_case() -> None:
    async with Cloud.running() as cloud:
        assert (await cloud.add([A, A.upper()])).status_code == 400
    async with Cloud.running(config(behaviour={"duplicates": "merge"})) as cloud:
        await cloud.added([A, A.upper()])
        assert cloud.simulator.ledger.adds()[0].accepted == (A,)
        assert cloud.simulator.summary().double_adds == 0


async def test_a_server_that_is_a_node_or_being_added_is_refused() -> None:
    async with Cloud.running(config(behaviour={"nodeVisibility": "atEnd"}, clusters=two_clusters())) as cloud:
        await cloud.added([A])
        assert "is being added" in (await cloud.add([A])).json()["message"]
        cloud.clock.tick(100)
        assert "is already in a cluster" in (await cloud.add([A])).json()["message"]
        elsewhere = ADD.replace(CLUSTER_ID, OTHER_CLUSTER).replace(NODE_POOL_ID, THIRD_POOL)
        assert "is already in a cluster" in (await cloud.add([A], elsewhere)).json()["message"]
        assert cloud.simulator.summary().double_adds == 0


async def test_a_repeated_add_that_is_accepted_wipes_the_server_and_is_a_double_add() -> None:
    async with Cloud.running(config(behaviour={"repeatAdd": "accept"})) as cloud:
        await cloud.added([A, B])
        cloud.clock.tick(100)
        old = cloud.uid(A)
        await cloud.added([A])
        assert await cloud.phases() == {A: "Installing", B: "Active"}
        assert cloud.uid(A) != old
        assert cloud.simulator.ledger.adds()[1].doubled == (A,)
        assert cloud.simulator.summary().double_adds == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [("allowed", 200), ("CCE.01429002", 429), ("CCE.01429003", 429), ("CCE.01400023", 400)],
)
async def test_a_second_job_of_a_pool_while_one_runs(answer: str, status: int) -> None:
    async with Cloud.running(config(behaviour={"parallelJobs": answer})) as cloud:
        await cloud.added([A])
        second = await cloud.add([B])
        assert second.status_code == status
        assert second.json().get("errorCode") == (None if status == 200 else answer)
        cloud.clock.tick(100)
        assert (await cloud.add([C])).status_code == 200


@pytest.mark.parametrize(("scope", "status"), [("nodePool", 200), ("cluster", 429)])
async def test_the_lock_is_the_pools_or_the_clusters(scope: str, status: int) -> None:
    behaviour = {"parallelJobs": "CCE.01429002", "parallelJobsScope": scope}
    async with Cloud.running(config(behaviour=behaviour, clusters=two_clusters())) as cloud:
        await cloud.added([A])
        assert (await cloud.add([B], ADD.replace(NODE_POOL_ID, OTHER_POOL))).status_code == status


@pytest.mark.parametrize(("raised", "desired"), [(True, 2), (False, 0)])
async def test_the_pools_desired_count_is_raised_or_not(raised: bool, desired: int) -> None:
    async with Cloud.running(config(behaviour={"raiseInitialNodeCount": raised})) as cloud:
        await cloud.added([A, B])
        pool = (await cloud.http.get(f"{CLUSTER}/nodepools/{NODE_POOL_ID}")).json()
        assert pool["spec"]["initialNodeCount"] == desired
        assert (pool["status"]["currentNode"], pool["status"]["activeNode"]) == (2, 0)


async def test_pool_and_cluster_phases_that_refuse() -> None:
    async with Cloud.running() as cloud:
        await cloud.control("POST", "pools", {"nodePoolID": NODE_POOL_ID, "phase": "Deleting"})
        assert (await cloud.add([A])).json()["errorCode"] == "CCE.01403003"
        await cloud.control("POST", "pools", {"nodePoolID": NODE_POOL_ID, "phase": "Synchronized"})
        await cloud.added([A])
        await cloud.control("POST", "clusters", {"clusterID": CLUSTER_ID, "phase": "Upgrading"})
        assert (await cloud.add([B])).json()["errorCode"] == "CCE.01403001"
    behaviour = {"nodePoolPhasesRefusing": [], "clusterPhasesAccepting": ["Upgrading"]}
    clusters = [{"id": CLUSTER_ID, "phase": "Upgrading", "nodePools": [{"id": NODE_POOL_ID, "phase": "Error"}]}]
    async with Cloud.running(config(behaviour=behaviour, clusters=clusters)) as cloud:
        await cloud.added([A])


async def test_a_cluster_takes_no_more_nodes_than_its_scale_allows() -> None:
    clusters = [{"id": CLUSTER_ID, "maxNodes": 3, "nodePools": [{"id": NODE_POOL_ID, "serverCount": 2}]}]
    async with Cloud.running(config(clusters=clusters)) as cloud:
        refused = await cloud.add([A, B])
        assert (refused.status_code, refused.json()["errorCode"]) == (400, "CCE.01400014")
        await cloud.added([A])


@pytest.mark.parametrize("present", [True, False])
async def test_owner_references_are_an_object_or_absent(present: bool) -> None:
    async with Cloud.running(config(behaviour={"ownerReferences": present})) as cloud:
        await cloud.added([A])
        metadata = (await cloud.http.get(f"{NODES}/{cloud.uid(A)}")).json()["metadata"]
        expected = {"nodepoolName": "pool", "nodepoolID": NODE_POOL_ID} if present else None
        assert metadata.get("ownerReferences") == expected


async def test_removing_takes_time_refuses_installing_nodes_and_releases_the_server() -> None:
    async with Cloud.running() as cloud:
        await cloud.added([A, B])
        uid = cloud.uid(A)
        assert (await cloud.remove([uid])).json()["errorCode"] == "CCE.01403006"
        cloud.clock.tick(100)
        removed = await cloud.remove([uid])
        assert removed.json()["status"]["jobID"] == cloud.simulator.ledger.entries[-1].job_id
        assert await cloud.phases() == {A: "Deleting", B: "Active"}
        assert (await cloud.remove([uid])).status_code == 403
        cloud.clock.tick(5)
        assert await cloud.phases() == {B: "Active"}
        assert (await cloud.remove([uid])).status_code == 404
        assert await cloud.phase_of_job(removed.json()["status"]["jobID"]) == "Success"
        await cloud.added([A])
        assert cloud.simulator.summary().double_adds == 0


async def test_deleting_a_node_destroys_its_server() -> None:
    async with Cloud.running() as cloud:
        await cloud.added([A])
        cloud.clock.tick(100)
        deleted = await cloud.http.delete(f"{NODES}/{cloud.uid(A)}", params={"nodepoolScaleDown": "NoScaleDown"})
        assert deleted.json()["status"]["phase"] == "Deleting"
        cloud.clock.tick(5)
        assert "does not exist" in (await cloud.add([A])).json()["message"]
        assert (await cloud.control("GET", "servers")).json() == {"accepted": {A: 1}, "destroyed": [A]}


async def test_jobs_and_clusters_of_another_project_are_not_there() -> None:
    clusters = [*two_clusters(), {"id": THIRD_POOL, "projectID": "f" * 32}]
    async with Cloud.running(config(clusters=clusters)) as cloud:
        assert (await cloud.http.get(f"{PROJECT}/clusters/{THIRD_POOL}")).status_code == 404
