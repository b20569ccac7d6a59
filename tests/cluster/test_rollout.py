"""A new template meets one server first, and nothing is called that nobody approved: real API server, over the wire.

Not for: each case of either (`unit.core.servers.test_core_rollout`, `unit.core.planning.test_core_approval`), or
every history (tests/explore).
"""

from collections.abc import Callable, Sequence
from typing import Final

from cce_simulator.config import BadServer, Behaviour, SimulatorConfig
from harness import Scene
from harness.cluster import Object, condition, status
from harness.scene import server_ids

APPROVED: Final = "cce.nodepools.dev/approved-plan"
IDS: Final = server_ids(450)
SLOW: Final = SimulatorConfig(behaviour=Behaviour(job_seconds=3), writes_per_minute=0)
BROKEN: Final = SimulatorConfig(
    behaviour=Behaviour(job_seconds=0.2),
    writes_per_minute=0,
    bad_servers=(BadServer(servers=tuple(IDS), way="failInstall"),),
)
Stage = Callable[..., Scene]


def sizes(scene: Scene) -> list[int]:
    """Of the adds that were accepted, in their order."""
    named = [call["server_ids"] for call in scene.adds() if call["status"] == 200]
    assert all(isinstance(ids, Sequence) for ids in named)
    return [len(ids) for ids in named]  # type: ignore[arg-type]


def plan_of(membership: Object) -> Object:
    found = status(membership)["plan"]
    assert isinstance(found, dict)
    return found


def approve(scene: Scene, plan: object) -> None:
    """Write the annotation; None takes it off."""
    scene.cluster.patch(scene.namespace, scene.name, {"metadata": {"annotations": {APPROVED: plan}}})


def test_one_goes_first_and_two_hundred_at_a_time_when_it_is_active(stage: Stage) -> None:
    scene = stage()
    scene.create(IDS, rollout={"canary": 1})
    scene.until_joined(IDS)
    assert sizes(scene) == [1, 200, 200, 49]


def test_where_nothing_installs_one_server_is_wiped(stage: Stage) -> None:
    scene = stage(BROKEN)
    scene.create(IDS, rollout={"canary": 1}, maxAttempts=3)
    halted = scene.until_reason("CanaryFailed")
    assert condition(halted, "Stalled")["reason"] == "CanaryFailed"
    looks = len(scene.calls("listNodes"))
    scene.until_called("listNodes", times=looks + 3)
    assert sum(scene.simulator.accepted().values()) == 1
    # The template is mended, and somebody says that it may be tried again.
    scene.simulator.post("config", {"badServers": []})
    scene.request("again", reset=True)
    scene.until_called("addNodes", times=3)
    assert sizes(scene)[:2] == [1, 1]


def test_nothing_is_called_before_a_person_said_yes_and_progress_asks_for_nothing_more(stage: Stage) -> None:
    scene = stage()
    servers = IDS[:5]
    scene.create(servers, approval="Manual", batchSize=2)
    plan = plan_of(scene.until_reason("AwaitingApproval"))
    assert [plan[name] for name in ("add", "calls", "adopt", "remove")] == [5, 3, 0, 0]
    looks = len(scene.calls("listNodes"))
    scene.until_called("listNodes", times=looks + 2)
    assert scene.adds() == []
    approve(scene, plan["id"])
    scene.until_joined(servers)
    assert sizes(scene) == [2, 2, 1]


def test_an_edit_that_adds_needs_another_yes_and_a_removal_one_of_its_own(stage: Stage) -> None:
    scene = stage(options=("--poll-interval=200ms", "--resync-interval=2s", "--settle-window=4s", "--removal-delay=1s"))
    first, second = IDS[:1], IDS[:2]
    scene.create(first, approval="Manual", removalPolicy="Remove")
    one = plan_of(scene.until_reason("AwaitingApproval"))
    approve(scene, one["id"])
    scene.until_joined(first)
    scene.edit(serverIDs=second)
    two = plan_of(scene.until_reason("AwaitingApproval"))
    assert (two["add"], two["id"] != one["id"]) == (1, True)
    approve(scene, "another")
    scene.until("it is said that this is no plan", lambda m: "no plan that waits" in str(condition(m)["message"]))
    assert sizes(scene) == [1]
    approve(scene, two["id"])
    scene.until_joined(second)
    scene.edit(serverIDs=first)
    three = plan_of(scene.until_reason("AwaitingApproval"))
    assert (three["add"], three["remove"], scene.calls("removeNodes")) == (0, 1, [])
    approve(scene, three["id"])
    scene.until("it is removed", lambda m: status(m).get("members") == first)
    scene.until_called("removeNodes")


def test_a_yes_that_is_taken_back_in_mid_run_stops_what_is_not_called_yet(stage: Stage) -> None:
    scene = stage(SLOW)
    scene.create(IDS[:4], approval="Manual", batchSize=1)
    plan = plan_of(scene.until_reason("AwaitingApproval"))
    approve(scene, plan["id"])
    scene.until_called("addNodes")
    approve(scene, None)
    waits = scene.until("it waits again", lambda m: "plan" in status(m) and status(m).get("joined") == 1)
    assert plan_of(waits)["add"] == 3
    assert sizes(scene) == [1]
