"""Refusals that do not say whom they are about: one odd server costs itself only, an account costs nobody.

Not for: refusals that are plainly about servers (`test_bad_servers`), or answers of unknown outcome (`test_outages`).
Cases 4, 5, 13, 15 and 18 of the field, and others of their kinds. Rule P15.
"""

import json
from collections.abc import Callable, Sequence

import pytest

from cce_simulator.config import BadServer, Behaviour, SimulatorConfig, server_id
from cce_simulator.faults import Answer, FaultRule
from harness import Cluster, MembershipSpec, Object, Operator, SimulatorProcess
from harness.cluster import condition, status
from harness.programs import wait_for

Simulate = Callable[..., SimulatorProcess]
Operate = Callable[..., Operator]

IDS = [server_id("odd", index) for index in range(450)]
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.2), writes_per_minute=0)
SUB_ENI = "Flavor [c7.large.2] 's subeni quota is 0, Eni network is not supported"


def create(cluster: Cluster, namespace: str, simulator: SimulatorProcess, ids: Sequence[str], **more: object) -> None:
    cluster.create_secret(namespace, simulator.config)
    cluster.create(MembershipSpec("m", ids, simulator.url, namespace, more=more))


def failures(membership: Object) -> dict[str, tuple[object, object]]:
    groups = status(membership)["failures"]
    assert isinstance(groups, list)
    return {server: (group["reason"], group["message"]) for group in groups for server in group["serverIDs"]}


def all_but(count: int, total: int) -> Callable[[Object], bool]:
    """Whether so many failed for good and the rest joined."""

    def ended(membership: Object) -> bool:
        now = status(membership)
        stalled = condition(membership, "Stalled").get("status") == "True"
        return (now.get("joined", 0), now.get("failed", 0)) == (total - count, count) and stalled

    return ended


@pytest.mark.parametrize(
    ("total", "odd", "http", "code", "text", "reason"),
    [
        (200, 0, 400, "CCE.01400025", SUB_ENI, "QuotaExceeded"),
        (200, 117, 400, "CCE.01400025", SUB_ENI, "QuotaExceeded"),
        (450, 449, 400, "CCE.01400025", SUB_ENI, "QuotaExceeded"),
        (200, 117, 404, "CCE.01404001", "no such server", "NotFound"),
        (200, 117, 400, "CCE.01400016", "flavor kai1s.2xlarge.1 is not for this cluster type", "PoolNotReady"),
        (200, 117, 400, "CCE_CM.0004", "ECS quota of the server's flavor: 0", "QuotaExceeded"),
    ],
)
def test_one_odd_server_costs_itself_only(
    cluster: Cluster,
    namespace: str,
    simulate: Simulate,
    operate: Operate,
    total: int,
    odd: int,
    http: int,
    code: str,
    text: str,
    reason: str,
) -> None:
    bad = BadServer(servers=(IDS[odd],), naming="none", status=http, error_code=code, reason=text)
    simulator = simulate(QUICK.model_copy(update={"bad_servers": (bad,)}))
    operate(simulator)
    create(cluster, namespace, simulator, IDS[:total], maxAttempts=1)
    done = cluster.wait(namespace, "m", f"{total - 1} joined, 1 failed", all_but(1, total), seconds=120)
    (server, (why, message)), *others = failures(done).items()
    assert (server, why, others) == (IDS[odd], reason, [])
    assert text in str(message)
    assert simulator.accepted() == {i: 1 for i in IDS[:total] if i != IDS[odd]}
    print(f"{code}: {len(simulator.entries('addNodes'))} calls for one odd server among {total}")


def answering(http: int, body: object) -> FaultRule:
    return FaultRule(route="addNodes", answer=Answer(status=http, body=json.dumps(body)))


NEED_AUTHORIZE = "Need authorize CCE to operate user resources"
NO_CALL = [
    (404, {"message": "API not found", "request_id": "6f1b"}),
    (404, {"error_msg": "The API does not exist or has not been published in the environment", "request_id": "6f1b"}),
    (404, {"message": "no Route matched with those values"}),
    (405, {"error": {"message": "Method Not Allowed"}}),
]
ACCOUNT = [
    (400, {"error_code": "CCE_CM.0004", "error_msg": NEED_AUTHORIZE}),
    (403, {"errorCode": "CCE.01403001", "errorMessage": "CCE is not authorized: agency cce_admin_trust not found"}),
    (400, {"errorCode": "CCE.01400001", "errorMessage": "Invalid request.", "message": "请先授权CCE访问其他云服务"}),
]


@pytest.mark.parametrize(
    ("http", "body", "reason", "remedy"),
    [
        *((http, body, "NotFound", "nodes/add") for http, body in NO_CALL),
        *((http, body, "Forbidden", "confirm the authorization") for http, body in ACCOUNT),
    ],
)
def test_what_no_server_can_help_is_said_at_once_and_blamed_on_nobody(
    cluster: Cluster,
    namespace: str,
    simulate: Simulate,
    operate: Operate,
    http: int,
    body: dict[str, object],
    reason: str,
    remedy: str,
) -> None:
    simulator = simulate(QUICK.model_copy(update={"faults": (answering(http, body),)}))
    operate(simulator)
    create(cluster, namespace, simulator, IDS[:2])
    said = cluster.wait(namespace, "m", reason, lambda m: condition(m).get("reason") == reason)
    message = str(condition(said)["message"])
    assert remedy in message
    texts = {str(text) for text in [*body.values(), *dict(body.get("error") or {}).values()] if " " in str(text)}  # type: ignore[call-overload]
    assert any(text in message for text in texts), message
    now = status(said)
    assert (now.get("failed", 0), now.get("failures", []), now["pending"]) == (0, [], 2)
    assert len(simulator.entries("addNodes")) == 1, "it is not asked again at once"
    assert simulator.accepted() == {}


def test_a_quota_of_the_account_is_found_to_be_about_all(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate
) -> None:
    """Three servers are asked for alone: then it waits, instead of asking for each."""
    answer = Answer(status=400, error_code="CCE.01400008", message="ECS quota exceeded: 10 of 10 used")
    simulator = simulate(QUICK.model_copy(update={"faults": (FaultRule(route="addNodes", answer=answer),)}))
    operate(simulator)
    create(cluster, namespace, simulator, IDS[:200])
    waits = cluster.wait(namespace, "m", "QuotaExceeded", lambda m: condition(m).get("reason") == "QuotaExceeded")
    assert "raise the quota" in str(condition(waits)["message"])
    assert len(simulator.entries("addNodes")) == 4
    assert len(failures(waits)) == 200
    assert [job for job in status(waits)["jobs"] if job["phase"] == "Queued"] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("clashes", "total"),
    [([(3, 11)], 20), ([(0, 1)], 2), ([(3, 11, 17)], 20), ([(2, 9), (4, 13), (5, 6)], 20)],
    ids=["two of 20", "both of two", "three of 20", "three pairs of 20"],
)
def test_of_servers_that_clash_with_one_another_one_joins(
    cluster: Cluster,
    namespace: str,
    simulate: Simulate,
    operate: Operate,
    clashes: Sequence[Sequence[int]],
    total: int,
) -> None:
    text = "the servers have the same host name"
    bad = [BadServer(servers=tuple(IDS[i] for i in c), way="clash", naming="all", reason=text) for c in clashes]
    simulator = simulate(QUICK.model_copy(update={"bad_servers": tuple(bad)}))
    operate(simulator)
    create(cluster, namespace, simulator, IDS[:total], maxAttempts=1)
    lost = sum(len(clash) - 1 for clash in clashes)
    done = cluster.wait(namespace, "m", f"{lost} failed", all_but(lost, total), seconds=120)
    for clash in clashes:
        assert sum(IDS[index] in failures(done) for index in clash) == len(clash) - 1
    assert all(text in str(message) for _, message in failures(done).values())
    print(f"{len(simulator.entries('addNodes'))} calls for {clashes}")


def test_what_the_gateway_echoes_is_shown_nowhere(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate
) -> None:
    """Case 4: the echo of what was sent as the key stood in Ready's message and in an Event."""
    secret_key = "Forty-Characters/AsSome+OtherBrandHasThem="
    text = f"Incorrect IAM authentication information: ak {secret_key} not exist, sk {json.dumps(secret_key)}"
    answer = Answer(status=401, error_code="APIGW.0301", message=text)
    simulator = simulate(QUICK.model_copy(update={"faults": (FaultRule(answer=answer),)}))
    operator = operate(simulator, ("--log-level=debug",))
    cluster.create_secret(namespace, name="cce-credentials", accessKey=secret_key, secretKey="HPUAQ7XKZ3M5T9WB2CDE-x")
    cluster.create(MembershipSpec("m", IDS[:2], simulator.url, namespace))
    cluster.wait(namespace, "m", "Unauthenticated", lambda m: condition(m).get("reason") == "Unauthenticated")
    wait_for("an Event or a log line", lambda: "<redacted>" in operator.output() or cluster.events(namespace) or None)
    membership = cluster.get(namespace, "m")
    told = (
        json.dumps([status(membership), cluster.events(namespace)]) + operator.output() + operator.get("/metrics").text
    )
    assert "ak <redacted> not exist" in str(condition(membership)["message"])
    for value in (secret_key, "HPUAQ7XKZ3M5T9WB2CDE-x"):
        assert value[:8] not in told
