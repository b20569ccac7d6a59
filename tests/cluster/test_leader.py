"""Two replicas on a real API server: one calls the cloud, the other one takes over, and what was frozen does nothing.

Not for: the rules of the election (`tests/unit/runtime/scheduling/test_runtime_election.py`).
"""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from cce_simulator.faults import FaultRule
from controlplane import ControlPlane
from harness import Cluster, Object, Operator, Scene, wait_for
from harness.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, jobs
from harness.gateway import Gateway, is_finalizer, is_intent
from harness.operator_process import ELECTING
from harness.scene import server_ids

# The cloud itself would refuse a server that is a node already: here it does not, so that a second call would show.
CLOUD = SimulatorConfig(behaviour=Behaviour(job_seconds=1, repeat_add="accept"), writes_per_minute=0)
SLOW = CLOUD.changed({"behaviour": {"jobSeconds": 3}})
WANTED = server_ids(3)
PATIENT: Sequence[str] = (*ELECTING, "--lease-duration=60s")
"""The lease of who vanishes outlives every other deadline of the test."""

Stage = Callable[..., Scene]
Operate = Callable[..., Operator]

pytestmark = pytest.mark.usefixtures("free_lease")


@pytest.fixture
def gateway(
    control_plane: ControlPlane, operator_kubeconfig: Path, tmp_path: Path, programs: ExitStack
) -> Iterator[Gateway]:
    """The first operator's way to the API server."""
    with Gateway(control_plane, operator_kubeconfig, tmp_path) as running:
        yield running
        # The operator must be gone before its way is.
        programs.close()


def phases(membership: Object) -> Sequence[object]:
    return [job["phase"] for job in jobs(membership)]


def holder(cluster: Cluster) -> str:
    return str(cluster.lease().get("holderIdentity"))


def ended(operator: Operator) -> int | None:
    return operator.exit_code


def replicas(stage: Stage, operate: Operate, config: SimulatorConfig, **first: object) -> tuple[Scene, Operator]:
    """A leader on its scene, and a second replica that is ready to take over."""
    scene = stage(config, **{"options": ELECTING, "name": "first", "environment": {"POD_NAME": "pod-first"}, **first})
    scene.operator.wait_leads()
    options = first.get("options", ELECTING)
    second = operate(scene.simulator, options, name="second", environment={"POD_NAME": "pod-second"})
    assert not second.leads()
    return scene, second


def check_joined_once(scene: Scene, *, calls: int = 1) -> None:
    scene.until_joined(WANTED)
    assert scene.simulator.get("summary")["double_adds"] == 0
    assert len(scene.adds()) == calls


def test_one_of_two_works_and_the_other_one_is_ready(stage: Stage, operate: Operate, cluster: Cluster) -> None:
    scene, second = replicas(stage, operate, CLOUD)
    scene.create(WANTED)
    check_joined_once(scene)
    assert holder(cluster).startswith("pod-first_")
    assert second.get("/readyz").status_code == second.get("/healthz").status_code == 200
    told = second.get("/metrics").text
    assert "nodepool_membership_leader 0.0" in told
    assert 'kube_requests_total{kind="lease",outcome="ok"}' in told
    for never in ("cloud_request_duration_seconds_count", 'kind="status"', 'kind="membership"', 'kind="secret"'):
        counted = [line for line in told.splitlines() if never in line and not line.startswith("#")]
        assert all(line.endswith(" 0.0") for line in counted), counted
    assert scene.operator.terminate() == second.terminate() == 0
    assert holder(cluster) == ""


def test_sigterm_hands_over_at_once_in_the_middle_of_a_job(stage: Stage, operate: Operate) -> None:
    scene, second = replicas(stage, operate, SLOW, options=PATIENT)
    scene.create(WANTED, batchSize=2)
    scene.until("Running", lambda m: phases(m) == ["Running"])
    assert scene.operator.terminate() == 0
    begun = monotonic()
    second.wait_leads()
    # It asks every 0.8 to 0.96 s; the rest is for a busy machine, and far from the end of the lease.
    assert monotonic() - begun < 10
    scene.operator = second
    check_joined_once(scene, calls=2)


def test_sigterm_waits_for_the_call_under_way_before_it_gives_up_the_lease(stage: Stage, operate: Operate) -> None:
    late = FaultRule(name="held-up", route="addNodes", times=1, answer_delay_seconds=9)
    scene, second = replicas(stage, operate, SLOW.model_copy(update={"faults": (late,)}))
    scene.create(WANTED)
    scene.until_hit("held-up")
    scene.operator.signal(signal.SIGTERM)

    def over() -> int | None:
        # Asked in this order: who sees the second one lead must find the first one's call answered.
        leads, answered = second.leads(), "add call accepted" in scene.operator.output()
        assert answered or not leads
        return ended(scene.operator)

    # The call takes longer than the lease holds: it is renewed meanwhile.
    assert wait_for("the first one ends", over, seconds=40) == 0
    scene.operator = second
    second.wait_leads()
    check_joined_once(scene)


def test_a_killed_leader_is_replaced_when_its_lease_has_ended(stage: Stage, operate: Operate) -> None:
    scene, second = replicas(stage, operate, SLOW)
    scene.create(WANTED, batchSize=2)
    scene.until("Running", lambda m: phases(m) == ["Running"])
    begun = monotonic()
    scene.operator.kill()
    second.wait_leads()
    # 6 s after the last renewal, which was less than 4 s ago.
    assert monotonic() - begun > 1
    scene.operator = second
    check_joined_once(scene, calls=2)


def test_who_was_frozen_past_its_lease_makes_no_call(stage: Stage, operate: Operate) -> None:
    scene, second = replicas(stage, operate, SLOW)
    frozen = scene.operator
    scene.create(WANTED, batchSize=2)
    scene.until("Running", lambda m: phases(m) == ["Running"])
    frozen.signal(signal.SIGSTOP)
    second.wait_leads()
    scene.operator = second
    frozen.signal(signal.SIGCONT)
    assert wait_for("the frozen one ends", lambda: ended(frozen), seconds=20) == 1
    assert "the lease is lost" in frozen.output()
    assert frozen.output().count("add call accepted") == 1
    check_joined_once(scene, calls=2)


@pytest.mark.parametrize("successor_is_done", [False, True], ids=["at-once", "after-the-settle-window"])
def test_who_was_frozen_between_intent_and_call_does_not_make_the_call(
    stage: Stage, operate: Operate, gateway: Gateway, *, successor_is_done: bool
) -> None:
    scene, second = replicas(stage, operate, CLOUD, kubeconfig=gateway.kubeconfig)
    frozen = scene.operator
    gateway.hold(is_intent)
    scene.create(WANTED)
    gateway.until_held()
    frozen.signal(signal.SIGSTOP)
    assert phases(scene.get()) == ["Submitting"]
    gateway.let_go()
    second.wait_leads()
    scene.operator = second
    if successor_is_done:
        check_joined_once(scene)
    frozen.signal(signal.SIGCONT)
    assert wait_for("the frozen one ends", lambda: ended(frozen), seconds=20) == 1
    assert "add call accepted" not in frozen.output()
    check_joined_once(scene)


def test_who_was_frozen_before_the_intent_does_not_store_it(stage: Stage, operate: Operate, gateway: Gateway) -> None:
    scene, second = replicas(stage, operate, CLOUD, kubeconfig=gateway.kubeconfig)
    frozen = scene.operator
    gateway.hold(is_finalizer)
    scene.create(WANTED)
    gateway.until_held()
    frozen.signal(signal.SIGSTOP)
    gateway.let_go()
    second.wait_leads()
    scene.operator = second
    frozen.signal(signal.SIGCONT)
    assert wait_for("the frozen one ends", lambda: ended(frozen), seconds=20) == 1
    assert "no intent is stored: the lease is lost" in frozen.output()
    check_joined_once(scene)


def test_who_is_cut_off_stops_and_the_other_one_takes_over(stage: Stage, operate: Operate, gateway: Gateway) -> None:
    scene, second = replicas(stage, operate, SLOW, kubeconfig=gateway.kubeconfig)
    scene.create(WANTED, batchSize=2)
    scene.until("Running", lambda m: phases(m) == ["Running"])
    gateway.cut()
    assert wait_for("the leader ends", lambda: ended(scene.operator), seconds=20) == 1
    assert "the lease is lost" in scene.operator.output()
    scene.operator = second
    second.wait_leads()
    check_joined_once(scene, calls=2)


def test_an_api_server_that_is_away_ends_the_leader_but_not_the_record_of_its_call(
    stage: Stage, operate: Operate, control_plane: ControlPlane
) -> None:
    late = FaultRule(name="held-up", route="addNodes", times=1, answer_delay_seconds=3)
    scene = stage(SLOW.model_copy(update={"faults": (late,)}), options=ELECTING)
    scene.create(WANTED)
    scene.until_hit("held-up")
    control_plane.stop_apiserver()
    try:
        scene.until_logged("the lease is lost")
        assert scene.operator.get("/metrics").text.count("nodepool_membership_leader 0.0") == 1
    finally:
        scene.cluster.start_apiserver()
    assert wait_for("the leader ends", lambda: ended(scene.operator)) == 1
    assert [job["jobID"] for job in jobs(scene.get())] == [scene.adds()[0]["job_id"]]
    scene.operator = operate(scene.simulator, ELECTING)
    check_joined_once(scene)


def test_a_lease_that_is_taken_by_hand_is_lost(stage: Stage, operate: Operate, cluster: Cluster) -> None:
    scene, second = replicas(stage, operate, CLOUD)
    cluster.write_lease(holderIdentity="somebody")
    assert wait_for("the leader ends", lambda: ended(scene.operator), seconds=20) == 1
    assert '"holder": "somebody"' in scene.operator.output()
    scene.operator = second
    scene.create(WANTED)
    second.wait_leads()
    check_joined_once(scene)
    assert holder(cluster).startswith("pod-second_")


def test_a_replica_that_cannot_see_the_lease_is_not_ready(stage: Stage, operate: Operate, gateway: Gateway) -> None:
    scene, second = replicas(stage, operate, CLOUD)
    third = operate(scene.simulator, ELECTING, name="third", kubeconfig=gateway.kubeconfig)
    gateway.cut()

    def told() -> str | None:
        text = third.get("/readyz").text
        return text if "lease nodepool-membership/nodepool-membership-operator: not seen for" in text else None

    wait_for("it is not ready", told, seconds=20)
    assert third.get("/healthz").status_code == 200
    assert second.get("/readyz").status_code == 200


@pytest.mark.parametrize("holder", ["another-program-7d9f_1", ""], ids=["held", "given up"])
def test_a_lease_of_another_program_is_left_alone_and_named(
    stage: Stage, control_plane: ControlPlane, holder: str
) -> None:
    """`--lease-name` by mistake: whoever took it would stop that program."""
    name, spec = OPERATOR_ACCOUNT, {"holderIdentity": holder, "leaseDurationSeconds": 1, "leaseTransitions": 3}
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE, "labels": {"app.kubernetes.io/name": "another"}},
        "spec": spec,
    }
    control_plane.kubectl("create", "--filename=-", input=json.dumps(lease))
    scene = stage(CLOUD, options=ELECTING, wait=False)
    try:
        scene.create(WANTED)
        scene.until_logged("it is another program's")
        answer = wait_for("it serves", partial(_answer, scene.operator))
        assert "--lease-name" in answer
        stored = json.loads(control_plane.kubectl("get", "lease", name, f"-n={OPERATOR_NAMESPACE}", "-o=json").stdout)
        assert (stored["spec"], stored["metadata"]["labels"]) == (spec, {"app.kubernetes.io/name": "another"})
        assert scene.adds() == []
    finally:
        scene.cluster.delete_lease()
    # It makes its own then.
    check_joined_once(scene)


def _answer(operator: Operator) -> str | None:
    """What it says of its readiness, once it is asked after a second look at the lease."""
    text = operator.get("/readyz").text
    return text if "another program" in text else None
