"""The main job on a real API server: ids in a resource become members of a pool, each by exactly one add call.

Not for: what goes wrong (`test_bad_input`, `test_outages`).
"""

import json
from collections.abc import Callable, Sequence

from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID, Behaviour, ClusterConfig, NodePoolConfig, SimulatorConfig
from controlplane import ControlPlane
from harness import Object, Scene, wait_for
from harness.cluster import condition, has_reason, is_ready, jobs, status
from harness.scene import server_ids

OTHER_POOL_ID = "77777777-7777-8888-9999-000000000000"
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)

Stage = Callable[..., Scene]


def with_pools(*pools: NodePoolConfig) -> SimulatorConfig:
    """A cloud whose cluster has these pools."""
    return QUICK.model_copy(update={"clusters": (ClusterConfig(id=CLUSTER_ID, node_pools=pools),)})


def metadata(membership: Object) -> Object:
    found = membership["metadata"]
    assert isinstance(found, dict)
    return found


def counts(membership: Object) -> Sequence[object]:
    return [status(membership)[name] for name in ("desired", "joined", "joining", "failed", "pending")]


def called(scene: Scene) -> list[list[str]]:
    """The servers that each add call named."""
    return [[str(server) for server in ids] for call in scene.adds() if isinstance(ids := call["server_ids"], list)]


def test_450_servers_join_by_three_calls(stage: Stage, control_plane: ControlPlane) -> None:
    scene = stage(QUICK)
    wanted = server_ids(450)
    scene.create(wanted)
    done = scene.until_joined(wanted)

    assert [len(servers) for servers in called(scene)] == [200, 200, 50]
    assert counts(done) == [450, 450, 0, 0, 0]
    assert [job["jobID"] for job in jobs(done)] == [call["job_id"] for call in scene.adds()]
    assert {job["phase"] for job in jobs(done)} == {"Succeeded"}
    assert status(done)["lastBatch"] == 3
    assert status(done)["lastJobID"] == scene.adds()[-1]["job_id"]
    assert "annotations" not in metadata(scene.get())
    assert all("serverIDs" not in job for job in jobs(done))

    wait_for("the last event", lambda: "Succeeded" in scene.event_reasons() or None)
    reasons = [str(event["reason"]) for event in scene.cluster.events(scene.namespace)]
    assert reasons.count("BatchSubmitted") == 3
    assert reasons.count("BatchSucceeded") == 3
    assert len(reasons) <= 4 * 3
    shown = control_plane.kubectl("get", "npmem", scene.name, "-n", scene.namespace).stdout.split()
    assert shown[:8] == ["NAME", "READY", "REASON", "JOINED", "JOINING", "PENDING", "FAILED", "DESIRED"]
    assert shown[10:18] == [scene.name, "True", "Succeeded", "450", "0", "0", "0", "450"]
    described = control_plane.kubectl("describe", "npmem", scene.name, "-n", scene.namespace).stdout
    assert "BatchSubmitted" in described


def test_an_idle_resync_looks_and_writes_nothing(stage: Stage) -> None:
    scene = stage(QUICK)
    scene.create(server_ids(5))
    scene.until_joined(server_ids(5))
    settled = scene.get()
    scene.until_called("listNodes", times=len(scene.calls("listNodes")) + 3)
    assert scene.get() == settled


def test_new_ids_cause_calls_for_the_new_ones_only(stage: Stage) -> None:
    scene = stage(QUICK)
    old = server_ids(3)
    scene.create(old)
    scene.until_joined(old)
    wanted = server_ids(5)
    scene.edit(serverIDs=wanted)
    done = scene.until_joined(wanted)
    assert called(scene) == [old, [server for server in wanted if server not in old]]
    assert [job["batch"] for job in jobs(done)] == [1, 2]


def test_an_id_that_leaves_the_list_is_released_and_its_node_stays(stage: Stage) -> None:
    scene = stage(QUICK)
    scene.create(server_ids(3))
    scene.until_joined(server_ids(3))
    scene.edit(serverIDs=server_ids(2))
    done = scene.until_joined(server_ids(2))
    assert status(done)["desired"] == 2
    summary = scene.simulator.get("summary")
    assert (summary["remove_calls"], summary["delete_calls"]) == (0, 0)


def test_servers_already_active_in_the_pool_become_members_without_a_call(stage: Stage) -> None:
    wanted = server_ids(3)
    scene = stage(with_pools(NodePoolConfig(id=NODE_POOL_ID, servers=tuple(wanted))))
    scene.create(wanted)
    assert status(scene.until_ready())["members"] == wanted
    assert scene.adds() == []


def test_a_server_in_another_pool_is_a_failure_and_not_called(stage: Stage) -> None:
    elsewhere, free = server_ids(2)
    other = NodePoolConfig(id=OTHER_POOL_ID, name="other", servers=(elsewhere,))
    scene = stage(with_pools(NodePoolConfig(id=NODE_POOL_ID), other))
    scene.create([elsewhere, free])
    stalled = scene.until("OtherPool", has_reason("OtherPool"))
    assert condition(stalled, "Stalled")["status"] == "True"
    assert [status(stalled)[k] for k in ("joined", "failed")] == [1, 1]
    failures = status(stalled)["failures"]
    assert isinstance(failures, list)
    assert failures[0]["serverIDs"] == [elsewhere]
    assert called(scene) == [[free]]


def test_suspended_nothing_is_called_and_the_message_says_what_would_be(stage: Stage) -> None:
    wanted = server_ids(450)
    scene = stage(with_pools(NodePoolConfig(id=NODE_POOL_ID, servers=tuple(wanted[:20]))))
    scene.create(wanted, suspend=True)

    def says(membership: Object) -> bool:
        return "would add 430 in 3 calls, which WIPES them, adopt 20" in str(condition(membership).get("message"))

    shown = scene.until("the preview", says)
    assert (condition(shown)["status"], condition(shown)["reason"]) == ("False", "Suspended")
    assert condition(shown, "Reconciling") == {}
    assert scene.adds() == []
    scene.edit(suspend=False)
    scene.until_ready()
    assert len(scene.adds()) == 3


def test_parallel_jobs_are_bounded_and_used(stage: Stage) -> None:
    scene = stage(QUICK.changed({"behaviour": {"jobSeconds": 2}}))
    scene.create(server_ids(50), batchSize=10, maxParallelJobs=3)
    most = 0

    def watch(membership: Object) -> bool:
        nonlocal most
        most = max(most, sum(1 for job in jobs(membership) if job["phase"] in {"Submitting", "Running"}))
        return is_ready(membership)

    scene.until("Ready", watch)
    assert most == 3
    assert [len(servers) for servers in called(scene)] == [10] * 5


def test_a_deleted_membership_is_let_go_and_its_nodes_stay(stage: Stage) -> None:
    scene = stage(QUICK.changed({"behaviour": {"jobSeconds": 8}}))
    scene.create(server_ids(30), batchSize=10)
    scene.until("the first job runs", lambda m: any(job["phase"] == "Running" for job in jobs(m)))
    scene.cluster.delete(scene.namespace, scene.name)
    assert metadata(scene.get())["finalizers"] == ["cce.nodepools.dev/release"]
    wait_for("the object is gone", lambda: not scene.cluster.exists(scene.namespace, scene.name) or None)
    assert len(scene.adds()) == 1
    assert scene.simulator.get("summary")["servers_removed"] == 0


def test_metrics_and_health_tell_of_the_job(stage: Stage) -> None:
    scene = stage(QUICK)
    scene.create(server_ids(2))
    scene.until_ready()
    operator = scene.operator
    assert operator.get("/healthz").status_code == 200

    def told() -> str | None:
        text = operator.get("/metrics").text
        gauge = f'nodepool_membership_ready{{name="{scene.name}",namespace="{scene.namespace}"}} 1.0'
        return text if gauge in text else None

    text = wait_for("the gauge is 1", told)
    assert 'nodepool_membership_batches_finished_total{phase="Succeeded"} 1.0' in text
    submitted = [json.loads(line) for line in operator.output().splitlines() if "add call accepted" in line]
    assert [(line["batch"], bool(line["jobID"]), bool(line["requestID"])) for line in submitted] == [(1, True, True)]
