"""The whole way without a stored key: a real API server makes the token, the cloud takes it by the cluster's real keys.

Not for: requests and answers one by one (`contract/test_cce_sources.py`), or what a simulator is worth.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from cce_simulator.faults import Answer, FaultRule
from harness import Cluster, Operator, Scene, SimulatorProcess, wait_for
from harness.cluster import condition, is_ready, jobs, status
from harness.identity import ACCOUNT, FEDERATION, STS, endpoints, grant, trusting
from harness.operator_process import FAST
from harness.scene import server_ids

QUICK: Final = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)
TWO: Final = server_ids(2)
WAYS: Final = pytest.mark.parametrize("identity", [FEDERATION, STS], ids=["Federation", "STS"])

Set = Callable[..., Scene]


@pytest.fixture
def keyless(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    tmp_path: Path,
) -> Iterator[Set]:
    """`keyless(config)`: a cloud that knows no key but the cluster's, and an operator without a Secret."""
    scenes: list[Scene] = []

    def start(config: SimulatorConfig = QUICK, *, granted: bool = True) -> Scene:
        simulator = simulate(trusting(cluster, namespace, config))
        (tmp_path / "endpoints.yaml").write_text(endpoints(simulator.url))
        if granted:
            grant(cluster, namespace)
        scenes.append(Scene(cluster, namespace, simulator, run(operate, tmp_path)))
        return scenes[-1]

    yield start
    for scene in scenes:
        check_secrets_stay(scene)


def run(operate: Callable[..., Operator], folder: Path, name: str = "operator") -> Operator:
    return operate([], (*FAST, f"--endpoints={folder / 'endpoints.yaml'}", "--log-level=debug"), name=name)


def check_secrets_stay(scene: Scene) -> None:
    """Nothing that was issued shows in what the operator tells: JWTs begin with eyJ; of keys the ids are known here."""
    issued = {str(call["access_key"]) for call in scene.simulator.entries()} - {""}
    said = scene.operator.log.read_text() + json.dumps([scene.get(), scene.cluster.events(scene.namespace)])
    assert "eyJ" not in said
    assert [key for key in issued if key in said] == []
    assert scene.cluster.http.get(f"/api/v1/namespaces/{scene.namespace}/secrets").json()["items"] == []


def users(scene: Scene) -> set[object]:
    """Access keys that CCE was called with."""
    return {call["access_key"] for call in scene.simulator.entries() if "/api/v3/" in str(call["path"])}


@WAYS
def test_a_service_account_is_all_that_is_needed(keyless: Set, identity: Mapping[str, object]) -> None:
    scene = keyless()
    scene.create(TWO, identityRef=identity)
    scene.until_joined(TWO)
    assert len(users(scene)) == 1


# 24 s of jobs at least, and three starts: the keys end several times.
@pytest.mark.timeout(400)
@WAYS
def test_450_servers_join_with_keys_of_20_seconds_under_kills(
    keyless: Set, operate: Callable[..., Operator], tmp_path: Path, identity: Mapping[str, object]
) -> None:
    scene = keyless(QUICK.model_copy(update={"behaviour": Behaviour(job_seconds=15, session_seconds=20)}))
    servers = server_ids(450)
    scene.create(servers, identityRef=identity)
    for kill in (1, 2, 3):
        scene.until_called("addNodes", times=kill)
        scene.operator.kill()
        scene.operator = run(operate, tmp_path, f"operator-{kill}")
    done = scene.until("Ready", is_ready, seconds=180)
    assert status(done)["members"] == servers
    assert scene.accepted(servers) == dict.fromkeys(servers, 1)
    assert scene.simulator.get("summary")["double_adds"] == 0
    assert len(users(scene)) > 4
    refused = [call for call in scene.simulator.entries() if call["status"] == 401]
    assert refused == []


@WAYS
def test_keys_that_end_while_a_call_is_on_its_way_cost_no_attempt(keyless: Set, identity: Mapping[str, object]) -> None:
    """Held up before it is looked at, for longer than the keys live."""
    late = FaultRule(name="late", route="addNodes", times=1, delay_seconds=6)
    behaviour = Behaviour(job_seconds=0.5, session_seconds=4)
    scene = keyless(QUICK.model_copy(update={"behaviour": behaviour, "faults": (late,)}))
    scene.create(TWO, identityRef=identity)
    done = scene.until_joined(TWO)
    assert [(job["phase"], job["attempt"]) for job in jobs(done)] == [("Refused", 1), ("Succeeded", 1)]
    assert "temporary keys ended" in str(jobs(done)[0]["message"])
    assert [call["status"] for call in scene.adds()] == [401, 200]


def test_without_the_right_the_message_has_the_commands_that_grant_it(keyless: Set) -> None:
    scene = keyless(granted=False)
    control_plane = scene.cluster.control_plane
    scene.create(TWO, identityRef=FEDERATION)
    scene.until_waits("IdentityRefused", f"service account '{ACCOUNT}'", "deploy/samples/identity")
    message = str(condition(scene.get())["message"])
    commands = message.partition("let it: ")[2].partition(" (or ")[0].split(" && ")
    assert [command.split()[3:5] for command in commands] == [["create", "role"], ["create", "rolebinding"]]
    for command in commands:
        control_plane.kubectl(*command.split()[1:])
    missing = f"service account '{ACCOUNT}' does not exist"
    scene.until("the right is there", lambda m: missing in str(condition(m)["message"]))
    scene.until_waits("IdentityRefused", missing, scene.namespace)
    assert scene.simulator.entries() == []
    control_plane.kubectl("create", "serviceaccount", ACCOUNT, f"--namespace={scene.namespace}")
    scene.until_joined(TWO)


def test_an_account_that_is_deleted_in_mid_run_is_told_and_goes_on_when_it_is_made_anew(keyless: Set) -> None:
    scene = keyless(QUICK.model_copy(update={"behaviour": Behaviour(job_seconds=0.5, session_seconds=4)}))
    control_plane, missing = scene.cluster.control_plane, f"service account '{ACCOUNT}' does not exist"
    scene.create(TWO[:1], identityRef=FEDERATION)
    scene.until_joined(TWO[:1])
    control_plane.kubectl("delete", "serviceaccount", ACCOUNT, f"--namespace={scene.namespace}")
    # Keys that live are used to their end, then the cause is told; nobody takes the members for gone.
    told = scene.until("told", lambda m: missing in str(condition(m)["message"]))
    assert status(told)["members"] == TWO[:1]
    scene.edit(serverIDs=TWO)
    scene.until_waits("IdentityRefused", missing)
    control_plane.kubectl("create", "serviceaccount", ACCOUNT, f"--namespace={scene.namespace}")
    scene.until_joined(TWO)
    assert scene.accepted(TWO) == dict.fromkeys(TWO, 1)


def test_a_secret_and_an_identity_are_exchanged_without_a_gap(keyless: Set) -> None:
    scene = keyless()
    keys = {"accessKey": "A-KEY-OF-A-SECRET-00", "secretKey": "the-secret-key-of-it"}
    scene.simulator.post("config", {"accessKeys": [keys]})
    three = server_ids(3)
    scene.secret(keys)
    scene.create(three[:1])
    scene.until_joined(three[:1])
    assert users(scene) == {keys["accessKey"]}
    scene.edit(credentialsRef=None, identityRef=FEDERATION, serverIDs=three[:2])
    scene.until_joined(three[:2])
    scene.cluster.http.delete(f"/api/v1/namespaces/{scene.namespace}/secrets/cce-credentials")
    scene.simulator.post("config", {"accessKeys": []})
    scene.edit(identityRef={**STS, "federation": None}, serverIDs=three)
    scene.until_joined(three)
    assert len(users(scene)) == 3
    assert scene.simulator.get("summary")["double_adds"] == 0


def repeat(route: str, status: int, code: str, **more: object) -> Mapping[str, object]:
    """A fault that answers each call of a route so, until it is taken away."""
    answer = Answer(status=status, error_code=code, message="the cloud's own words", **more)
    return FaultRule(name="no", route=route, answer=answer).to_json()


BAD: Final[Sequence[tuple[Mapping[str, object], Mapping[str, object], Mapping[str, object], str, Sequence[str]]]] = [
    # Identity, configuration of the cloud, fault; reason and words.
    ({**FEDERATION, "audience": "other"}, {}, {}, "IdentityRefused", ["401 IAM.0001", "spec.identityRef.audience"]),
    ({**STS, "audience": "other"}, {}, {}, "IdentityRefused", ["STS5.2001", "client ids"]),
    (
        {**FEDERATION, "federation": {"identityProvider": "nobody"}},
        {},
        {},
        "IdentityRefused",
        ["404 IAM.0004", "'nobody'", "identityProvider"],
    ),
    (STS, {"agencies": []}, {}, "IdentityRefused", ["403 STS5.1001", "trust policy", "oidc:sub"]),
    (FEDERATION, {}, repeat("createTokenByIdToken", 410, "IAM.0020"), "CloudUnreachable", ["410 IAM.0020"]),
    (
        FEDERATION,
        {},
        repeat("createSecurityToken", 429, "IAM.0012", headers={"Retry-After": "1"}),
        "Throttled",
        ["429 IAM.0012", "the cloud's own words"],
    ),
    (FEDERATION, {}, repeat("createTokenByIdToken", 503, "IAM.0006"), "CloudUnreachable", ["503", "asked again"]),
]
IDS: Final = ["audience", "client-id", "no-provider", "no-trust", "failing-over", "throttled", "away"]


@pytest.mark.parametrize(("identity", "cloud", "fault", "reason", "words"), BAD, ids=IDS)
def test_what_gives_no_keys_is_told_with_its_text_and_goes_on_when_it_is_mended(
    keyless: Set,
    identity: Mapping[str, object],
    cloud: Mapping[str, object],
    fault: Mapping[str, object],
    reason: str,
    words: Sequence[str],
) -> None:
    scene = keyless()
    good = scene.simulator.get("config")
    if cloud:
        scene.simulator.post("config", cloud)
    if fault:
        scene.simulator.post("faults", fault)
    scene.create(TWO, identityRef=identity)
    scene.until_waits(reason, *words)
    assert users(scene) == set()
    scene.simulator.delete("faults")
    scene.simulator.post("config", {name: good[name] for name in cloud})
    scene.edit(identityRef=FEDERATION if identity["method"] == "Federation" else STS)
    scene.until_joined(TWO)


def test_a_user_without_rights_is_told_what_to_grant(keyless: Set) -> None:
    """Federation and keys are fine: it is CCE that says no."""
    scene = keyless()
    providers = scene.simulator.get("config")["identityProviders"]
    assert isinstance(providers, list)
    denied = json.loads(json.dumps(providers))
    denied[0]["mappings"][0]["deny"] = ["cce:node:list"]
    scene.simulator.post("config", {"identityProviders": denied})
    scene.create(TWO, identityRef=FEDERATION)
    scene.until_waits("Forbidden", "cce:node:list", "user group or agency")
    scene.simulator.post("config", {"identityProviders": providers})
    scene.until_joined(TWO)


def test_while_iam_is_away_keys_that_live_are_used_and_a_revoked_trust_locks_nobody_out(keyless: Set) -> None:
    behaviour = Behaviour(job_seconds=0.5, session_seconds=900)
    scene = keyless(QUICK.model_copy(update={"behaviour": behaviour}))
    scene.create(TWO[:1], identityRef=FEDERATION)
    scene.until_joined(TWO[:1])
    scene.simulator.post("faults", repeat("createTokenByIdToken", 403, "IAM.0003"))
    scene.edit(serverIDs=TWO)
    scene.until_joined(TWO)
    # The keys are refused now, and there are no others.
    ended = FaultRule(
        name="ended",
        method="GET",
        answer=Answer(status=401, error_code="APIGW.0301", message="decrypt token fail"),
    )
    scene.simulator.post("faults", ended.to_json())
    # Ready for three looks, then unknown, with the cause.
    scene.until("told", lambda m: condition(m)["reason"] == "IdentityRefused")
    assert "403 IAM.0003" in str(condition(scene.get())["message"])
    called = [call for call in scene.simulator.entries() if call["fault"] == "ended"]
    assert len(called) == 1
    scene.simulator.delete("faults")
    wait_for("Ready again", lambda: is_ready(scene.get()) or None)
