"""Whoever goes away in the middle of a join - API server, operator -, no server is added twice and none is lost.

Not for: a cloud that answers badly (`test_bad_input`), or the simulator itself.
"""

import json
import signal
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from cce_simulator.faults import FaultRule
from controlplane import ControlPlane
from harness import Object, Operator, Scene
from harness.cluster import is_ready, jobs
from harness.operator_process import FAST
from harness.scene import server_ids

SLOW = SimulatorConfig(behaviour=Behaviour(job_seconds=2), writes_per_minute=0)
WANTED = server_ids(3)

Stage = Callable[..., Scene]
Operate = Callable[..., Operator]


def with_fault(fault: FaultRule) -> SimulatorConfig:
    return SLOW.model_copy(update={"faults": (fault,)})


def phases(membership: Object) -> Sequence[object]:
    return [job["phase"] for job in jobs(membership)]


def check_joined_once(scene: Scene, *, calls: int = 1) -> Object:
    done = scene.until_joined(WANTED)
    assert scene.simulator.get("summary")["double_adds"] == 0
    assert len(scene.adds()) == calls
    return done


def test_an_answer_that_comes_while_the_api_server_is_away_is_recorded(
    stage: Stage, control_plane: ControlPlane
) -> None:
    scene = stage(with_fault(FaultRule(name="late", route="addNodes", times=1, answer_delay_seconds=5)))
    scene.create(WANTED)
    job_id = scene.until_called("addNodes")[0]["job_id"]
    control_plane.stop_apiserver()
    try:
        scene.until_logged("the answer to a call is not stored yet")
        # Waits of 1, 2 and 4 s: the API server is away for longer than any other deadline of the record.
        scene.until_logged("the object cannot be read", times=3)
    finally:
        scene.cluster.start_apiserver()
    assert str(job_id) in scene.operator.output()
    done = check_joined_once(scene)
    assert [(job["jobID"], job["phase"]) for job in jobs(done)] == [(job_id, "Succeeded")]
    assert scene.operator.get("/healthz").status_code == 200


def test_a_membership_that_comes_after_an_outage_is_seen(stage: Stage, control_plane: ControlPlane) -> None:
    scene = stage(SLOW)
    control_plane.stop_apiserver()
    scene.cluster.start_apiserver()
    scene.create(WANTED)
    check_joined_once(scene)


@pytest.mark.parametrize(
    "fault",
    [
        FaultRule(name="held-up", route="addNodes", times=1, delay_seconds=5),
        FaultRule(name="held-up", route="addNodes", times=1, answer_delay_seconds=5),
    ],
    ids=["before-it-is-accepted", "after-it-is-accepted"],
)
def test_sigterm_waits_for_the_call_under_way_and_records_it(stage: Stage, operate: Operate, fault: FaultRule) -> None:
    scene = stage(with_fault(fault))
    scene.create(WANTED)
    scene.until_hit("held-up")
    assert phases(scene.get()) == ["Submitting"]
    assert scene.operator.terminate() == 0
    left = scene.get()
    assert phases(left) == ["Running"]
    assert jobs(left)[0]["jobID"] == scene.adds()[0]["job_id"]
    scene.operator = operate(scene.simulator)
    check_joined_once(scene)


def test_sigterm_starts_no_further_call(stage: Stage, operate: Operate) -> None:
    scene = stage(with_fault(FaultRule(name="held-up", route="addNodes", times=1, answer_delay_seconds=5)))
    scene.create(WANTED, batchSize=1, maxParallelJobs=3)
    scene.until_hit("held-up")
    assert scene.operator.terminate() == 0
    assert len(scene.adds()) == 1
    scene.operator = operate(scene.simulator)
    check_joined_once(scene, calls=3)


def test_an_end_without_the_api_server_is_bounded_and_says_what_is_not_recorded(
    stage: Stage, operate: Operate, control_plane: ControlPlane
) -> None:
    late = FaultRule(name="late", route="addNodes", times=1, answer_delay_seconds=4)
    scene = stage(with_fault(late), options=(*FAST, "--http-timeout=6s"))
    scene.create(WANTED)
    job_id = scene.until_called("addNodes")[0]["job_id"]
    control_plane.stop_apiserver()
    try:
        scene.until_logged("the answer to a call is not stored yet")
        # The time-out of the call, and 15 s to store its answer.
        assert scene.operator.terminate(seconds=40) == 1
    finally:
        scene.cluster.start_apiserver()
    said = [json.loads(line) for line in scene.operator.output().splitlines()]
    (lost,) = [line for line in said if str(line["msg"]).startswith("the process ends before the answer")]
    assert (lost["level"], lost["object"]) == ("error", f"{scene.namespace}/m")
    assert (lost["batch"], lost["jobID"]) == (1, job_id)
    assert phases(scene.get()) == ["Submitting"]
    scene.operator = operate(scene.simulator)
    check_joined_once(scene)


def test_a_second_signal_ends_the_process_at_once(stage: Stage, operate: Operate) -> None:
    scene = stage(with_fault(FaultRule(name="held-up", route="addNodes", times=1, answer_delay_seconds=20)))
    scene.create(WANTED)
    scene.until_hit("held-up")
    scene.operator.signal(signal.SIGTERM)
    scene.until_logged("stopping")
    assert scene.operator.terminate(seconds=3) == 128 + signal.SIGTERM
    scene.operator = operate(scene.simulator)
    check_joined_once(scene)


@pytest.mark.parametrize(
    "fault",
    [
        FaultRule(name="held-up", route="addNodes", times=1, delay_seconds=4),
        FaultRule(name="held-up", route="addNodes", times=1, answer_delay_seconds=10),
    ],
    ids=["before-it-is-accepted", "before-it-is-recorded"],
)
def test_killed_with_a_call_under_way_it_is_found_and_not_repeated(
    stage: Stage, operate: Operate, fault: FaultRule
) -> None:
    # A call that arrives later than the window would be looked for in vain.
    options = (*FAST, "--settle-window=10s")
    scene = stage(with_fault(fault), options=options)
    scene.create(WANTED)
    scene.until_hit("held-up")
    scene.operator.kill()
    assert phases(scene.get()) == ["Submitting"]
    scene.operator = operate(scene.simulator, options)
    done = check_joined_once(scene)
    assert phases(done) == ["Succeeded"]


def test_killed_with_a_call_that_never_arrived_it_is_made_anew_after_the_settle_window(
    stage: Stage, operate: Operate
) -> None:
    scene = stage(with_fault(FaultRule(name="held-up", route="addNodes", times=1, delay_seconds=1, drop=True)))
    scene.create(WANTED)
    scene.until_hit("held-up")
    scene.operator.kill()
    intended = datetime.fromisoformat(str(jobs(scene.get())[0]["submitTime"]))
    scene.operator = operate(scene.simulator)
    done = check_joined_once(scene, calls=2)
    assert jobs(done)[-1]["attempt"] == 2
    # From the stored time, which has whole seconds: the call itself may have been made almost a second later.
    assert float(str(scene.adds()[1]["time"])) - intended.timestamp() >= 4


def test_killed_while_the_job_runs_it_is_followed(stage: Stage, operate: Operate) -> None:
    scene = stage(SLOW)
    scene.create(WANTED)
    running = scene.until("Running", lambda m: phases(m) == ["Running"])
    scene.operator.kill()
    scene.operator = operate(scene.simulator)
    done = check_joined_once(scene)
    assert jobs(done)[0]["jobID"] == jobs(running)[0]["jobID"]


def test_killed_again_and_again_no_server_is_accepted_twice(stage: Stage, operate: Operate) -> None:
    scene = stage(SLOW.changed({"behaviour": {"jobSeconds": 0.5}}))
    scene.create(WANTED, batchSize=1)
    for number in range(1, 4):
        scene.until_called("addNodes", times=number)
        scene.operator.kill()
        if number < 3:
            # After the last call the job alone is left, and it is short.
            assert not is_ready(scene.get())
        scene.operator = operate(scene.simulator)
    check_joined_once(scene, calls=3)
