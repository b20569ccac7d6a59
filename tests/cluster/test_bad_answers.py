"""Whatever the cloud answers to an add or says of a job, no server is added twice and no recorded job id is lost.

Not for: what keeps an add from being called (`test_bad_input`). As there, all cases are there at once, and after each
the process lives, its log has no traceback, and nothing secret is in log, Events or status.
"""

from collections.abc import Callable

import pytest

from cce_simulator.faults import Answer, FaultRule, lost_answer
from harness import Case, Scene, wait_for
from harness.cluster import condition, finalizers, jobs, status


def _answered(name: str, **fault: object) -> Case:
    """A case whose add calls are hit, once unless told."""
    return Case(name, faults=(FaultRule.model_validate({"route": "addNodes", "times": 1, **fault}),))


LOST = [
    Case("html-502", faults=(lost_answer(status=502),)),
    Case("dropped", faults=(lost_answer(),)),
    _answered("cut-off", when="after", cutBody=True),
    _answered("no-job-id", when="after", answer={"status": 200, "body": '{"jobid": ""}'}),
    _answered("conflict", when="after", answer={"status": 409, "errorCode": "CCE.01409001"}),
]
THROTTLED = _answered(
    "throttled", times=None, answer={"status": 429, "errorCode": "APIGW.0308", "headers": {"Retry-After": "1.5"}}
)
LOCKED = _answered("locked", answer={"status": 429, "errorCode": "CCE.01429002"})
FORBIDDEN = Case("forbidden", key={"deny": ["cce:node:add"]}, spec={"maxAttempts": 2})
ODD_JOB = Case(
    "odd-job",
    faults=(FaultRule(route="getJob", times=3, answer=Answer(status=200, body='{"status":{"phase":"Odd"}}')),),
)
LOST_JOB = Case("lost-job", faults=(FaultRule(route="getJob", answer=Answer(status=404, error_code="CCE.01404001")),))
NO_JOBS = Case("no-jobs", faults=(FaultRule(route="getJob", answer=Answer(status=503, html=True)),))
CASES = [*LOST, THROTTLED, LOCKED, FORBIDDEN, ODD_JOB, LOST_JOB, NO_JOBS]


def test_a_throttled_add_is_put_off_and_costs_no_attempt(scene_of: Callable[[Case], Scene]) -> None:
    # The first test of all: the operator waits for a minute, then it calls again.
    scene = scene_of(THROTTLED)
    waits = scene.until("a refusal", lambda m: [job["phase"] for job in jobs(m)] == ["Refused"])
    assert "429 APIGW.0308" in str(jobs(waits)[0]["message"])
    assert "the operator waits" in str(jobs(waits)[0]["message"])
    assert (status(waits)["pending"], status(waits)["failed"]) == (2, 0)
    assert status(waits).get("failures", []) == []
    wait_for("Events", lambda: {"BatchRefused", "Throttled"} <= scene.event_reasons() or None)
    scene.request("look again")
    scene.until("answered", lambda m: status(m).get("lastHandledReconcileAt") == "look again")
    assert len(scene.adds()) == 1


@pytest.mark.parametrize("case", LOST, ids=lambda case: case.name)
def test_an_add_whose_answer_is_lost_is_not_called_again(scene_of: Callable[[Case], Scene], case: Case) -> None:
    scene = scene_of(case)
    done = scene.until_joined(case.servers)
    assert len(scene.adds()) == 1
    assert [job["phase"] for job in jobs(done)] == ["Succeeded"]
    wait_for("an Event", lambda: "BatchVerifying" in scene.event_reasons() or None)


def test_a_locked_pool_is_tried_again(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(LOCKED)
    done = scene.until_joined(LOCKED.servers)
    assert [(job["phase"], job["attempt"]) for job in jobs(done)] == [("Refused", 1), ("Succeeded", 1)]
    assert "busy with another task" in str(jobs(done)[0]["message"])
    wait_for("Events", lambda: {"BatchRefused", "Locked"} <= scene.event_reasons() or None)


def test_a_forbidden_add_stops_after_its_attempts_until_a_reset(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(FORBIDDEN)
    stalled = scene.until("Stalled", lambda m: condition(m, "Stalled") != {})
    assert condition(stalled)["reason"] == "Forbidden"
    assert "grant cce:node:add" in str(condition(stalled)["message"])
    assert (status(stalled)["failed"], status(stalled)["joined"]) == (2, 0)
    assert len(scene.adds()) == 2
    keys = scene.simulator.get("config")["accessKeys"]
    assert isinstance(keys, list)
    granted = [{**key, "deny": []} for key in keys]
    scene.simulator.post("config", {"accessKeys": granted})
    scene.request("granted", reset=True)
    scene.until_joined(FORBIDDEN.servers)


def test_a_job_in_an_unknown_phase_is_followed(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(ODD_JOB)
    scene.until_joined(ODD_JOB.servers)
    assert len(scene.adds()) == 1
    assert len(scene.calls("getJob")) >= 4


def test_of_a_lost_job_the_nodes_decide(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(LOST_JOB)
    done = scene.until_joined(LOST_JOB.servers)
    assert len(scene.adds()) == 1
    assert status(done)["failed"] == 0


def test_a_job_id_is_kept_while_the_cloud_is_away(scene_of: Callable[[Case], Scene]) -> None:
    scene = scene_of(NO_JOBS)
    waits = scene.until_waits("CloudUnreachable", "a job", "503")
    job_id = scene.adds()[0]["job_id"]
    assert [(job["jobID"], job["phase"]) for job in jobs(waits)] == [(job_id, "Running")]
    assert finalizers(waits) == ["cce.nodepools.dev/release"]
    scene.simulator.delete(f"faults?name={NO_JOBS.name}")
    scene.request("it is back")
    done = scene.until_joined(NO_JOBS.servers)
    assert [job["jobID"] for job in jobs(done)] == [job_id]
    assert len(scene.adds()) == 1
