"""Nothing is removed unless the spec says so, and then by the call that keeps servers (promise 5).

Not for: which members are removed when, in all its cases (`test_core_removing`). Rules P18, P20.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import pytest

from cce_simulator.config import (
    CLUSTER_ID,
    NODE_POOL_ID,
    BadServer,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
)
from cce_simulator.faults import Answer, FaultRule
from controlplane import ControlPlane
from harness import Operator, Scene, wait_for
from harness.cluster import condition, finalizers, jobs, status
from harness.operator_process import FAST
from harness.scene import server_ids

QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.3, remove_seconds=0.5), writes_per_minute=0)
OTHER_POOL = "77777777-7777-8888-9999-000000000000"
POOLS = (NodePoolConfig(id=NODE_POOL_ID), NodePoolConfig(id=OTHER_POOL))
TWO_POOLS = QUICK.model_copy(update={"clusters": (ClusterConfig(id=CLUSTER_ID, node_pools=POOLS),)})
DELAYED: Sequence[str] = (*FAST, "--removal-delay=2s")
SEEN: Sequence[str] = (*FAST, "--removal-delay=5s")
"""Something has to be seen or done before the delay is over: stored times are whole seconds, so it is 4 to 5 s."""
WANTED = server_ids(4)
OFF, KEPT = WANTED[0], WANTED[1:]

Stage = Callable[..., Scene]
Operate = Callable[..., Operator]


def faulty(fault: FaultRule) -> SimulatorConfig:
    return QUICK.model_copy(update={"faults": (fault,)})


def joined(
    stage: Stage,
    config: SimulatorConfig = QUICK,
    *,
    removal: str = "Remove",
    deletion: str = "Retain",
    size: int = 200,
    options: Sequence[str] = DELAYED,
) -> Scene:
    """All of WANTED are members."""
    scene = stage(config, options=options)
    scene.create(WANTED, removalPolicy=removal, deletionPolicy=deletion, batchSize=size)
    scene.until_ready()
    return scene


def removed(scene: Scene) -> list[str]:
    """Servers that a removal was accepted for, in the order of the calls; no call ever destroys one."""
    assert scene.calls("deleteNode") == []
    found: list[str] = []
    for call in scene.calls("removeNodes"):
        servers = call["removed"]
        assert isinstance(servers, list)
        found += servers
    return found


def until_gone(scene: Scene) -> None:
    def gone() -> bool | None:
        scene.operator.check()
        return None if scene.cluster.exists(scene.namespace, scene.name) else True

    wait_for("the object is gone", gone, seconds=30)


def delete(scene: Scene) -> None:
    scene.cluster.delete(scene.namespace, scene.name)


def test_a_member_that_left_the_list_is_removed_after_the_delay(stage: Stage) -> None:
    scene = joined(stage, options=SEEN)
    scene.edit(serverIDs=KEPT)
    surplus = scene.until("owed", lambda m: status(m).get("surplus") == 1)
    assert "1 member to be removed and REINSTALLED (" in str(condition(surplus)["message"])
    assert condition(surplus, "Reconciling")["status"] == "True"
    assert removed(scene) == []
    done = scene.until_ready()
    assert status(done)["members"] == KEPT
    assert "surplusSince" not in status(done)
    assert removed(scene) == [OFF]
    (call,) = scene.calls("removeNodes")
    assert str(call["path"]).endswith("/nodes/operation/remove?removeNodeSystemSecurityGroup=false")
    batch = jobs(done)[-1]
    assert (batch["operation"], batch["phase"], batch["jobID"]) == ("Remove", "Succeeded", call["job_id"])
    wait_for("the Events tell of it", lambda: {"BatchSubmitted", "BatchSucceeded"} <= scene.event_reasons() or None)
    scene.until_released()


def test_a_member_that_is_put_back_before_the_delay_stays(stage: Stage) -> None:
    scene = joined(stage, options=SEEN)
    scene.edit(serverIDs=KEPT)
    scene.until("owed", lambda m: status(m).get("surplus") == 1)
    scene.edit(serverIDs=WANTED)
    scene.until_ready()
    # By the time that another one has waited out its delay, that of the first has long passed.
    scene.edit(serverIDs=WANTED[:-1])
    scene.until("removed", lambda m: status(m)["members"] == WANTED[:-1])
    scene.until_ready()
    assert removed(scene) == [WANTED[-1]]


def test_under_retain_nothing_is_removed_then_or_later(stage: Stage) -> None:
    scene = joined(stage, removal="Retain")
    scene.edit(serverIDs=KEPT)
    scene.until_ready()
    scene.edit(removalPolicy="Remove")
    scene.until_ready()
    # By the time that another one has waited out the delay, it has long passed for the first.
    scene.edit(serverIDs=KEPT[:-1])
    scene.until_ready()
    assert removed(scene) == [KEPT[-1]]


def test_a_list_cannot_be_emptied_by_an_edit_under_remove(stage: Stage) -> None:
    scene = joined(stage)
    with pytest.raises(AssertionError, match="serverIDs must not be emptied under removalPolicy Remove"):
        scene.edit(serverIDs=[])
    scene.edit(removalPolicy="Retain")
    with pytest.raises(AssertionError, match="set removalPolicy to Retain, or delete the resource"):
        scene.edit(serverIDs=[], removalPolicy="Remove")
    scene.edit(serverIDs=[])
    scene.until_ready()
    scene.edit(removalPolicy="Remove")
    scene.until_ready()
    assert removed(scene) == []


def test_a_mass_disappearance_removes_nobody(stage: Stage) -> None:
    scene = joined(stage, deletion="Remove")
    scene.simulator.post("nodes", {"remove": KEPT})
    scene.until_reason("ListingImplausible")
    assert scene.calls("removeNodes") == []


def test_a_server_that_somebody_moved_to_another_pool_is_not_removed(stage: Stage) -> None:
    scene = joined(stage, TWO_POOLS)
    scene.simulator.post("nodes", {"alter": [{"serverID": OFF, "nodePoolID": OTHER_POOL}]})
    scene.until_reason("OtherPool")
    scene.edit(serverIDs=KEPT[1:])
    done = scene.until_ready()
    assert status(done)["members"] == KEPT[1:]
    assert removed(scene) == [KEPT[0]]


@pytest.mark.parametrize("policy", ["Retain", "Remove"])
def test_a_deletion_does_what_its_policy_says(stage: Stage, policy: str) -> None:
    scene = joined(stage, removal="Retain", deletion=policy, size=3)
    held = policy == "Remove"
    scene.until("settled", lambda m: bool(finalizers(m)) is held)
    delete(scene)
    until_gone(scene)
    assert sorted(removed(scene)) == (WANTED if held else [])
    assert len(scene.calls("removeNodes")) == (2 if held else 0)


def logged_nodes(scene: Scene, text: str) -> dict[str, str]:
    """The servers that the operator's log names with this text, and their nodes."""
    scene.until_logged(text)
    lines = [json.loads(line) for line in scene.operator.output().splitlines() if text in line]
    return {i: uid for line in lines for i, uid in zip(line["serverIDs"], line["nodeUIDs"], strict=True)}


def test_nodes_of_failed_servers_are_named_when_they_fail_and_when_they_are_left_behind(stage: Stage) -> None:
    bad = BadServer(servers=(OFF,), way="failInstall")
    scene = stage(QUICK.model_copy(update={"bad_servers": (bad,)}), options=DELAYED)
    scene.create(WANTED, deletionPolicy="Remove")
    scene.until_reason("DiskPartitioned")
    named = logged_nodes(scene, "servers failed and hold a node: DiskPartitioned")
    assert list(named) == [OFF]
    assert str(UUID(named[OFF])) == named[OFF]
    scene.until("held", lambda m: bool(finalizers(m)))
    delete(scene)
    until_gone(scene)
    assert logged_nodes(scene, "released with nodes of failed servers: DiskPartitioned") == named
    assert removed(scene) == KEPT


def test_a_deletion_while_suspended_keeps_the_servers(stage: Stage) -> None:
    scene = joined(stage, deletion="Remove")
    scene.edit(suspend=True)
    scene.until_reason("Suspended")
    delete(scene)
    until_gone(scene)
    assert removed(scene) == []


def test_retain_is_the_way_out_of_a_deletion(stage: Stage) -> None:
    refused = Answer(status=429, error_code="CCE.01429002")
    scene = joined(stage, faulty(FaultRule(route="removeNodes", answer=refused)), deletion="Remove")
    delete(scene)
    waits = scene.until("why it waits", lambda m: "busy with another task" in str(condition(m)["message"]))
    assert [condition(waits, kind).get("reason") for kind in ("Ready", "Reconciling")] == ["Deleting", "Deleting"]
    scene.edit(deletionPolicy="Retain")
    until_gone(scene)
    assert removed(scene) == []


def test_the_deletion_of_the_namespace_keeps_the_servers(stage: Stage, control_plane: ControlPlane) -> None:
    scene = joined(stage, deletion="Remove")
    control_plane.kubectl("delete", "namespace", scene.namespace, "--wait=false")
    # No controller runs here that would delete what is in it.
    delete(scene)
    until_gone(scene)
    assert removed(scene) == []
    scene.until_logged("the servers are kept: the namespace is being deleted, too")


def test_the_deletion_of_the_definition_keeps_the_servers(stage: Stage, control_plane: ControlPlane, crd: str) -> None:
    scene = joined(stage, deletion="Remove")
    scene.until("held", lambda m: bool(finalizers(m)))
    try:
        control_plane.kubectl("delete", "crd", crd)
    finally:
        scene.cluster.install()
    scene.until_logged("the servers are kept: the definition is being deleted, too")
    assert removed(scene) == []


def test_the_lost_answer_to_a_removal_is_looked_for_and_the_call_not_repeated(stage: Stage) -> None:
    scene = joined(stage, faulty(FaultRule(name="lost", route="removeNodes", times=1, when="after", drop=True)))
    scene.edit(serverIDs=KEPT)
    scene.until("removed", lambda m: status(m)["members"] == KEPT and not status(m)["surplus"])
    done = scene.until_ready()
    assert jobs(done)[-1]["phase"] == "Succeeded"
    assert len(scene.calls("removeNodes")) == 1
    assert removed(scene) == [OFF]


def test_killed_with_a_removal_under_way_it_is_found_and_not_repeated(stage: Stage, operate: Operate) -> None:
    scene = joined(stage, faulty(FaultRule(name="held-up", route="removeNodes", times=1, answer_delay_seconds=10)))
    scene.edit(serverIDs=KEPT)
    scene.until_hit("held-up")
    scene.operator.kill()
    assert [job["phase"] for job in jobs(scene.get())][-1] == "Submitting"
    scene.operator = operate(scene.simulator, options=DELAYED)
    done = scene.until_ready()
    assert status(done)["members"] == KEPT
    assert removed(scene) == [OFF]
    assert len(scene.calls("removeNodes")) == 1


def test_killed_with_a_removal_that_never_arrived_it_is_made_anew_after_the_settle_window(
    stage: Stage, operate: Operate
) -> None:
    fault = FaultRule(name="held-up", route="removeNodes", times=1, delay_seconds=1, drop=True)
    scene = joined(stage, faulty(fault))
    scene.edit(serverIDs=KEPT)
    scene.until_hit("held-up")
    scene.operator.kill()
    intended = datetime.fromisoformat(str(jobs(scene.get())[-1]["submitTime"]))
    scene.operator = operate(scene.simulator, options=DELAYED)
    done = scene.until_ready()
    assert removed(scene) == [OFF]
    assert jobs(done)[-1]["attempt"] == 2
    # From the stored time, which has whole seconds: the call itself may have been made almost a second later.
    _, second = scene.calls("removeNodes")
    assert float(str(second["time"])) - intended.timestamp() >= 4


def test_who_comes_back_during_the_removal_is_added_once_its_node_is_gone(stage: Stage) -> None:
    scene = joined(stage, QUICK.changed({"behaviour": {"removeSeconds": 2}}))
    scene.edit(serverIDs=KEPT)
    scene.until_called("removeNodes")
    scene.edit(serverIDs=WANTED)
    done = scene.until_ready()
    assert status(done)["members"] == WANTED
    assert scene.accepted(WANTED) == {OFF: 2, **dict.fromkeys(KEPT, 1)}
    assert scene.simulator.get("summary")["double_adds"] == 0
