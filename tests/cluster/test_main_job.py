"""The main job on a real API server: ids in a resource become members of a pool, each by exactly one add call.

Not for: what goes wrong (`test_bad_input`, `test_outages`).
"""

import json
from collections.abc import Callable

import pytest

from cce_simulator.config import (
    CLUSTER_ID,
    NODE_POOL_ID,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
    server_id,
)
from controlplane import ControlPlane
from harness import Cluster, MembershipSpec, Object, Operator, SimulatorProcess, wait_for
from harness.cluster import condition, has_reason, is_ready, status

Simulate = Callable[..., SimulatorProcess]
Operate = Callable[..., Operator]

OTHER_POOL_ID = "77777777-7777-8888-9999-000000000000"
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)


def ids(count: int, seed: str = "job") -> list[str]:
    return [server_id(seed, index) for index in range(count)]


def jobs(membership: Object) -> list[Object]:
    found = status(membership).get("jobs", [])
    assert isinstance(found, list)
    return found


def metadata(membership: Object) -> Object:
    found = membership["metadata"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def spec(cluster: Cluster, namespace: str) -> Callable[..., MembershipSpec]:
    """Makes specs for memberships in the test's namespace, whose Secret it creates."""
    cluster.create_secret(namespace, QUICK)

    def make(name: str, servers: list[str], simulator: SimulatorProcess, **more: object) -> MembershipSpec:
        return MembershipSpec(name, servers, simulator.url, namespace, more=more)

    return make


def test_450_servers_join_by_three_calls(
    cluster: Cluster,
    control_plane: ControlPlane,
    namespace: str,
    simulate: Simulate,
    operate: Operate,
    spec: Callable[..., MembershipSpec],
) -> None:
    simulator = simulate(QUICK)
    operate(simulator)
    wanted = ids(450)
    cluster.create(spec("main", wanted, simulator))
    done = cluster.wait(namespace, "main", "Ready", is_ready)

    adds = simulator.entries("addNodes")
    assert [len(list(call["server_ids"])) for call in adds] == [200, 200, 50]  # type: ignore[call-overload]
    assert simulator.accepted() == dict.fromkeys(wanted, 1)
    now = status(done)
    assert now["members"] == sorted(wanted)
    assert [now[k] for k in ("desired", "joined", "joining", "failed", "pending")] == [450, 450, 0, 0, 0]
    assert [job["jobID"] for job in jobs(done)] == [call["job_id"] for call in adds]
    assert {job["phase"] for job in jobs(done)} == {"Succeeded"}
    assert now["lastBatch"] == 3
    assert now["lastJobID"] == adds[-1]["job_id"]
    wait_for("the finalizer is gone", lambda: "finalizers" not in metadata(cluster.get(namespace, "main")) or None)
    assert "annotations" not in metadata(cluster.get(namespace, "main"))
    assert all("serverIDs" not in job for job in jobs(done))

    events = wait_for("the last event", lambda: _events_with(cluster, namespace, "Succeeded"))
    reasons = [str(event["reason"]) for event in events]
    assert reasons.count("BatchSubmitted") == 3
    assert reasons.count("BatchSucceeded") == 3
    assert len(reasons) <= 4 * 3
    shown = control_plane.kubectl("get", "npmem", "main", "-n", namespace).stdout.split()
    assert shown[:6] == ["NAME", "READY", "REASON", "JOINED", "DESIRED", "FAILED"]
    assert shown[7:12] == ["main", "True", "Succeeded", "450", "450"]
    described = control_plane.kubectl("describe", "npmem", "main", "-n", namespace).stdout
    assert "BatchSubmitted" in described


def _events_with(cluster: Cluster, namespace: str, reason: str) -> list[Object] | None:
    events = cluster.events(namespace)
    return events if any(event["reason"] == reason for event in events) else None


def test_an_idle_resync_looks_and_writes_nothing(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    simulator = simulate(QUICK)
    operate(simulator)
    cluster.create(spec("idle", ids(5), simulator))
    cluster.wait(namespace, "idle", "Ready", is_ready)
    wait_for("the finalizer is gone", lambda: "finalizers" not in metadata(cluster.get(namespace, "idle")) or None)
    settled = cluster.get(namespace, "idle")
    before = len(simulator.entries("listNodes"))
    wait_for("three resyncs", lambda: len(simulator.entries("listNodes")) >= before + 3 or None)
    assert cluster.get(namespace, "idle") == settled


def test_new_ids_cause_calls_for_the_new_ones_only(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    simulator = simulate(QUICK)
    operate(simulator)
    cluster.create(spec("grow", ids(3), simulator))
    cluster.wait(namespace, "grow", "Ready", is_ready)
    cluster.patch(namespace, "grow", {"spec": {"serverIDs": ids(5)}})
    done = cluster.wait(namespace, "grow", "Ready with 5", lambda m: is_ready(m) and status(m)["joined"] == 5)
    assert simulator.entries("addNodes")[-1]["server_ids"] == sorted(ids(5)[3:])
    assert len(simulator.entries("addNodes")) == 2
    assert [job["batch"] for job in jobs(done)] == [1, 2]


def test_an_id_that_leaves_the_list_is_released_and_its_node_stays(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    simulator = simulate(QUICK)
    operate(simulator)
    cluster.create(spec("shrink", ids(3), simulator))
    cluster.wait(namespace, "shrink", "Ready", is_ready)
    cluster.patch(namespace, "shrink", {"spec": {"serverIDs": ids(2)}})
    done = cluster.wait(namespace, "shrink", "Ready with 2", lambda m: is_ready(m) and status(m)["desired"] == 2)
    assert status(done)["members"] == sorted(ids(2))
    summary = simulator.get("summary")
    assert (summary["remove_calls"], summary["delete_calls"]) == (0, 0)


def test_servers_already_active_in_the_pool_become_members_without_a_call(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    pool = NodePoolConfig(id=NODE_POOL_ID, servers=tuple(ids(3)))
    simulator = simulate(QUICK.model_copy(update={"clusters": (ClusterConfig(id=CLUSTER_ID, node_pools=(pool,)),)}))
    operate(simulator)
    cluster.create(spec("adopt", ids(3), simulator))
    done = cluster.wait(namespace, "adopt", "Ready", is_ready)
    assert status(done)["members"] == sorted(ids(3))
    assert simulator.entries("addNodes") == []


def test_a_server_in_another_pool_is_a_failure_and_not_called(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    pools = (NodePoolConfig(id=NODE_POOL_ID), NodePoolConfig(id=OTHER_POOL_ID, name="other", servers=(ids(1)[0],)))
    simulator = simulate(QUICK.model_copy(update={"clusters": (ClusterConfig(id=CLUSTER_ID, node_pools=pools),)}))
    operate(simulator)
    cluster.create(spec("elsewhere", ids(2), simulator))
    stalled = cluster.wait(namespace, "elsewhere", "OtherPool", has_reason("OtherPool"))
    assert condition(stalled, "Stalled")["status"] == "True"
    assert [status(stalled)[k] for k in ("joined", "failed")] == [1, 1]
    failures = status(stalled)["failures"]
    assert isinstance(failures, list)
    assert failures[0]["serverIDs"] == ids(1)
    assert [call["server_ids"] for call in simulator.entries("addNodes")] == [ids(2)[1:]]


def test_suspended_nothing_is_called_and_the_message_says_what_would_be(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    pool = NodePoolConfig(id=NODE_POOL_ID, servers=tuple(ids(20)))
    simulator = simulate(QUICK.model_copy(update={"clusters": (ClusterConfig(id=CLUSTER_ID, node_pools=(pool,)),)}))
    operate(simulator)
    cluster.create(spec("preview", ids(450), simulator, suspend=True))

    def says(membership: Object) -> bool:
        return "would add 430 in 3 call(s), adopt 20" in str(condition(membership).get("message"))

    shown = cluster.wait(namespace, "preview", "the preview", says)
    assert (condition(shown)["status"], condition(shown)["reason"]) == ("False", "Suspended")
    assert condition(shown, "Reconciling") == {}
    assert simulator.entries("addNodes") == []
    cluster.patch(namespace, "preview", {"spec": {"suspend": False}})
    cluster.wait(namespace, "preview", "Ready", is_ready)
    assert len(simulator.entries("addNodes")) == 3


def test_parallel_jobs_are_bounded_and_used(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    simulator = simulate(QUICK.changed({"behaviour": {"jobSeconds": 2}}))
    operate(simulator)
    cluster.create(spec("parallel", ids(50), simulator, batchSize=10, maxParallelJobs=3))
    most = 0

    def watch(membership: Object) -> bool:
        nonlocal most
        most = max(most, sum(1 for job in jobs(membership) if job["phase"] in {"Submitting", "Running"}))
        return is_ready(membership)

    cluster.wait(namespace, "parallel", "Ready", watch)
    assert most == 3
    assert [len(list(c["server_ids"])) for c in simulator.entries("addNodes")] == [10] * 5  # type: ignore[call-overload]


def test_a_deleted_membership_is_let_go_and_its_nodes_stay(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    simulator = simulate(QUICK.changed({"behaviour": {"jobSeconds": 2}}))
    operate(simulator)
    cluster.create(spec("gone", ids(30), simulator, batchSize=10))
    cluster.wait(namespace, "gone", "the first job runs", lambda m: any(j["phase"] == "Running" for j in jobs(m)))
    cluster.delete(namespace, "gone")
    deleting = cluster.get(namespace, "gone")
    assert metadata(deleting)["finalizers"] == ["cce.nodepools.dev/release"]
    wait_for("the object is gone", lambda: not cluster.exists(namespace, "gone") or None)
    assert len(simulator.entries("addNodes")) == 1
    assert simulator.get("summary")["servers_removed"] == 0


def test_metrics_and_health_tell_of_the_job(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, spec: Callable[..., MembershipSpec]
) -> None:
    simulator = simulate(QUICK)
    operator = operate(simulator)
    cluster.create(spec("measured", ids(2), simulator))
    cluster.wait(namespace, "measured", "Ready", is_ready)
    assert operator.get("/healthz").status_code == 200

    def told() -> str | None:
        text = operator.get("/metrics").text
        return text if f'nodepool_membership_ready{{name="measured",namespace="{namespace}"}} 1.0' in text else None

    text = wait_for("the gauge is 1", told)
    assert 'nodepool_membership_batches_finished_total{phase="Succeeded"} 1.0' in text
    submitted = [json.loads(line) for line in operator.output().splitlines() if "add call accepted" in line]
    assert [(line["batch"], bool(line["jobID"]), bool(line["requestID"])) for line in submitted] == [(1, True, True)]
