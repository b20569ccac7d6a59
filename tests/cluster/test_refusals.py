"""The different noes on the real process: clocks, keys, servers in use, states, and what only a request ends.

Not for: throttled, locked and forbidden adds (`test_bad_answers`). All cases are there at once; each has its own key.
"""

from collections.abc import Callable

import pytest

from cce_simulator.faults import Answer, FaultRule
from harness import Case, Object, Scene, wait_for
from harness.cluster import condition, finalizers, has_reason, is_ready, jobs, status

SKEWED = Case("skewed", faults=(FaultRule(name="skewed", date_skew_seconds=900),))
WRONG_KEY = Case("wrong-key", secret={"secretKey": "not-the-secret-key"})
TAKEN = Case("taken")
BUSY = Case(
    "busy",
    faults=(FaultRule(route="addNodes", times=1, answer=Answer(status=403, error_code="CCE.01403009")),),
)
BUSY_AS_FORBIDDEN = Case(
    "busy-as-forbidden",
    faults=(
        FaultRule(
            route="addNodes",
            times=1,
            answer=Answer(status=403, error_code="CCE.01403001", message="cluster is ScalingUp"),
        ),
    ),
)
QUOTA, BROKE = (
    Case(
        name,
        faults=(FaultRule(route="addNodes", answer=Answer(status=code_status, error_code=code)),),
        spec={"maxAttempts": 10},
    )
    for name, code_status, code in (("quota", 400, "CCE.01400008"), ("broke", 429, "CCE.01429004"))
)
BROKEN = Case("broken")
PRUNED = Case("pruned", faults=(FaultRule(name="slow", route="addNodes", job_seconds=12.0),))
CASES = [SKEWED, WRONG_KEY, TAKEN, BUSY, BUSY_AS_FORBIDDEN, QUOTA, BROKE, BROKEN, PRUNED]
RESET = "set the annotation cce.nodepools.dev/reset-requested-at"


def test_a_clock_that_is_off_adds_nothing_says_by_how_much_and_recovers(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(SKEWED)
    scene.until_waits("ClockSkew", "about 15 minutes behind", "NTP")
    reads = len(scene.calls("listNodes"))
    scene.until_called("listNodes", times=reads + 2)
    assert scene.adds() == []
    scene.simulator.delete("faults?name=skewed")
    scene.until_joined(SKEWED.servers)


def test_a_wrong_key_is_tried_three_times_and_again_when_its_secret_changes(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(WRONG_KEY)
    scene.until("left alone", lambda m: "not called again" in str(condition(m).get("message")))
    waits = scene.until_waits("Unauthenticated", "401 APIGW.0301", "3 times in a row", "spec.credentialsRef")
    assert status(waits)["pending"] == 2
    for size, token in enumerate(("one", "two"), start=1):
        scene.request(token)
        # No request is answered while looks fail: the generation tells that one has ended since.
        scene.edit(batchSize=size)
        scene.until("a look", has_looked)
    assert len(scene.calls()) == 3
    scene.secret(WRONG_KEY.good_secret())
    scene.request("corrected")
    scene.until_joined(WRONG_KEY.servers)


def has_looked(membership: Object) -> bool:
    """The cloud's no to the present generation; a generation that was only seen has another reason."""
    ready, metadata = condition(membership), membership["metadata"]
    assert isinstance(metadata, dict)
    return ready.get("reason") == "Unauthenticated" and ready["observedGeneration"] == metadata["generation"]


@pytest.mark.parametrize("case", [BUSY, BUSY_AS_FORBIDDEN], ids=lambda case: case.name)
def test_a_state_that_is_in_the_way_is_waited_for_and_costs_no_attempt(
    scene_of: Callable[[Case], Scene], case: Case
) -> None:
    done = scene_of(case).until_joined(case.servers)
    assert [(job["phase"], job["attempt"]) for job in jobs(done)] == [("Refused", 1), ("Succeeded", 1)]
    assert "the cluster's state forbids it" in str(jobs(done)[0]["message"])


@pytest.mark.parametrize(
    ("case", "reason"), [(QUOTA, "QuotaExceeded"), (BROKE, "InsufficientBalance")], ids=["quota", "broke"]
)
def test_what_somebody_has_to_repair_is_shown_with_the_next_try_and_ends_on_request(
    scene_of: Callable[[Case], Scene], case: Case, reason: str
) -> None:
    scene = scene_of(case)
    waits = scene.until_waits(reason, RESET)
    assert (status(waits)["pending"], status(waits)["failed"]) == (2, 0)
    until = status(waits)["waits"]
    assert isinstance(until, list)
    assert [(wait["operation"], wait["reason"]) for wait in until] == [("Add", reason)]
    scene.simulator.delete(f"faults?name={case.name}")
    scene.request("repaired", reset=True)
    scene.until_joined(case.servers)


def test_a_server_of_another_cluster_is_waited_for_and_the_others_join(scene_of: Callable[[Case], Scene]) -> None:
    scene, other = scene_of(TAKEN), CASES[0].corner
    taken, free = TAKEN.servers[0], TAKEN.servers[1]
    scene.until_joined(TAKEN.servers)
    third = Case("taken-by-another").servers[0]
    node = {"clusterID": other.cluster_id, "nodePoolID": other.node_pool_id, "serverID": third}
    scene.simulator.post("nodes", {"add": [node]})
    fourth = Case("taken-by-nobody").servers[0]
    scene.edit(serverIDs=[taken, free, third, fourth], preflight={"mode": "Off"})
    waits = scene.until("the others joined", lambda m: status(m).get("joined") == 3 and status(m).get("pending") == 1)
    waits = scene.until_waits("ServerInUse", "already in a cluster", "remove it there")
    assert failures(waits) == [("ServerInUse", [third], 0)]
    groups = status(waits)["failures"]
    assert isinstance(groups, list)
    assert all(group["retryTime"] for group in groups)
    tries = len(scene.adds())
    scene.until_called("addNodes", times=tries + 1)
    assert status(scene.get())["failed"] == 0
    scene.simulator.post("nodes", {"remove": [third]})
    scene.until("all joined", lambda m: is_ready(m) and status(m)["joined"] == 4)


def test_a_status_that_cannot_be_understood_starts_over_on_request_and_waits_a_settle_window(
    scene_of: Callable[[Case], Scene],
) -> None:
    scene = scene_of(BROKEN)
    recorded = status(scene.until_joined(BROKEN.servers))["jobs"]
    assert isinstance(recorded, list)
    more = [*BROKEN.servers, Case("one-more").servers[0]]
    scene.edit_status(jobs=[{**recorded[0], "phase": "Perplexed"}])
    scene.edit(serverIDs=more)
    scene.until("StatusInvalid", has_reason("StatusInvalid"))
    assert RESET in str(condition(scene.get())["message"])
    scene.request("start over", reset=True)
    lost = scene.until("StatusLost", has_reason("StatusLost"))
    assert (status(lost)["jobs"], status(lost)["lastHandledResetAt"]) == ([], "start over")
    assert finalizers(lost) == ["cce.nodepools.dev/release"]
    assert len(scene.adds()) == 1
    done = scene.until("Ready with 3", lambda m: is_ready(m) and status(m)["joined"] == 3)
    assert scene.accepted(more) == dict.fromkeys(more, 1)
    assert status(done)["members"] == sorted(more)


def test_open_batches_of_a_deleted_object_are_followed_although_its_secret_is_gone(
    scene_of: Callable[[Case], Scene],
) -> None:
    scene = scene_of(PRUNED)
    more = [*PRUNED.servers, Case("pruned-too").servers[0]]
    scene.until_joined(PRUNED.servers)
    scene.edit(serverIDs=more)
    scene.until("a job", lambda m: any(job["phase"] == "Running" for job in jobs(m)))
    kubectl(scene, "delete", "secret", PRUNED.corner.secret_name)
    asked = len(scene.calls("getJob"))
    kubectl(scene, "delete", "npmem", scene.name, "--wait=false")
    scene.until_called("getJob", times=asked + 3)
    wait_for("the object is gone", lambda: not scene.cluster.exists(scene.namespace, scene.name) or None)
    assert "released with an open batch" not in scene.operator.output()
    assert scene.accepted(more) == dict.fromkeys(more, 1)


def failures(membership: Object) -> list[tuple[object, object, object]]:
    groups = status(membership)["failures"]
    assert isinstance(groups, list)
    return [(group["reason"], group["serverIDs"], group["attempts"]) for group in groups]


def kubectl(scene: Scene, *arguments: str) -> None:
    scene.cluster.control_plane.kubectl("-n", scene.namespace, *arguments)
