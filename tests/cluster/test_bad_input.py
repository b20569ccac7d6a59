"""Whatever is wrong with spec, Secret, rights or pool ends in a condition that names the thing and the remedy.

Not for: what admission refuses (`test_crd`), the cloud's answers to an add (`test_bad_answers`), an API server that is
away (`test_outages`). All cases are there at once: none disturbs another. After each, the process lives, its log has
no traceback, and nothing secret is in log, Events or status.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig, TokenConfig
from cce_simulator.faults import FaultRule
from controlplane.ports import free_ports
from harness import Case, Cluster, Operator, Scene, SimulatorProcess, wait_for
from harness.cluster import condition, is_ready, status
from harness.leaks import check_unharmed

POLL_SECONDS = 0.2
NOBODY = "11111111-2222-3333-4444-000000000000"
WRONG_SECRET = "wrong-secret-key-value"
EXPIRED_TOKEN = "expired-token-value"
VALID_TOKEN = "valid-token-value"
SECURITY_TOKEN = "temporary-security-token-value"
NEW_SECURITY_TOKEN = "new-security-token-value"
SECRETS = (WRONG_SECRET, EXPIRED_TOKEN, VALID_TOKEN, SECURITY_TOKEN, NEW_SECURITY_TOKEN)

ONE, TWO = Case("doubled").servers
ONLY_NAME: Mapping[str, str | None] = {"accessKey": None, "secretKey": None}


def with_good_secret(scene: Scene, case: Case) -> None:
    scene.secret(case.good_secret())


def with_valid_token(scene: Scene, _: Case) -> None:
    scene.secret({"token": VALID_TOKEN})


def with_good_key(scene: Scene, case: Case) -> None:
    """A new pair, with a security token of its own: the old one is left alone for minutes."""
    config = scene.simulator.get("config")
    keys = config["accessKeys"]
    assert isinstance(keys, list)
    others = [key for key in keys if key["accessKey"] != case.corner.access_key]
    good = {**case.good_key(), "securityToken": NEW_SECURITY_TOKEN}
    scene.simulator.post("config", {"accessKeys": [*others, good]})
    scene.secret({**case.good_secret(), "securityToken": NEW_SECURITY_TOKEN})


def with_usable_pool(scene: Scene, case: Case) -> None:
    scene.simulator.post("pools", {"nodePoolID": case.corner.node_pool_id, "phase": ""})


def with_available_cluster(scene: Scene, case: Case) -> None:
    scene.simulator.post("clusters", {"clusterID": case.corner.cluster_id, "phase": "Available"})


def with_sound_answers(scene: Scene, case: Case) -> None:
    scene.simulator.delete(f"faults?name={case.name}")


@dataclass(frozen=True)
class Bad:
    """A case, the condition it ends in, and what repairs it (None: a field that cannot be changed)."""

    case: Case
    reason: str
    words: Sequence[str]
    route: str | None = None
    """Which calls are made less and less often; None: the cloud is not called."""
    repair: Callable[[Scene, Case], None] | None = None


def _listing(name: str, **fault: object) -> Case:
    return Case(name, faults=(FaultRule.model_validate({"route": "listNodes", **fault}),))


_LOGIN = ["401", "check the keys", "Secret", "spec.credentialsRef"]
_WRONG = ["APIGW.0301", *_LOGIN]
"""A key that is left alone after 3 calls."""
_TEMPORARY: Mapping[str, object] = {"securityToken": SECURITY_TOKEN, "expiresAt": 1.0}

BAD = [
    Bad(
        Case("unknown-region", pool={"region": "atlantis-1", "endpoint": None}),
        "RegionUnknown",
        ["'atlantis-1'", "spec.nodePool.endpoint", "--allow-endpoint"],
    ),
    Bad(
        Case("not-on-the-allow-list", pool={"endpoint": "https://cce.example.com"}),
        "EndpointNotAllowed",
        ["spec.nodePool.endpoint", "--allow-endpoint=https://cce.example.com:443"],
    ),
    Bad(
        Case("plain-http", pool={"endpoint": "http://127.0.0.1:1"}),
        "EndpointNotAllowed",
        ["spec.nodePool.endpoint", "plain http", "--allow-endpoint=http://127.0.0.1:1"],
    ),
    Bad(
        Case("no-secret", secret=None),
        "SecretNotFound",
        ["'no-secret'", "does not exist", "accessKey", "spec.credentialsRef"],
        repair=with_good_secret,
    ),
    Bad(
        Case("other-keys", secret={**ONLY_NAME, "username": "somebody"}),
        "CredentialsInvalid",
        ["no key accessKey", "secretKey", "token"],
        repair=with_good_secret,
    ),
    Bad(
        Case("half-a-key", secret={"secretKey": None}),
        "CredentialsInvalid",
        ["no key secretKey"],
        repair=with_good_secret,
    ),
    Bad(
        Case("empty-key", secret={"secretKey": ""}),
        "CredentialsInvalid",
        ["secretKey is empty"],
        repair=with_good_secret,
    ),
    Bad(
        Case("both-kinds", secret={"token": VALID_TOKEN}),
        "CredentialsInvalid",
        ["both token and accessKey"],
        repair=with_good_secret,
    ),
    Bad(
        Case(
            "swapped",
            secret={"accessKey": "k3yOfFortyCharactersAsTheConsoleShowsIt0", "secretKey": "HPUAQ7XKZ3M5T9WB2CDE"},
        ),
        "CredentialsInvalid",
        ["accessKey and secretKey are swapped"],
        repair=with_good_secret,
    ),
    Bad(
        Case("json", secret={"accessKey": '{"access": "HPUAQ7XKZ3M5T9WB2CDE"}'}),
        "CredentialsInvalid",
        ["accessKey is a JSON document"],
        repair=with_good_secret,
    ),
    Bad(
        Case("wrong-secret-key", secret={"secretKey": WRONG_SECRET}),
        "Unauthenticated",
        _WRONG,
        "getNodePool",
        with_good_secret,
    ),
    Bad(
        Case("unknown-access-key", secret={"accessKey": "NOSUCHACCESSKEY00000"}),
        "Unauthenticated",
        _WRONG,
        "getNodePool",
        with_good_secret,
    ),
    Bad(
        Case(
            "expired-token",
            secret={**ONLY_NAME, "token": EXPIRED_TOKEN},
            tokens=(TokenConfig(value=EXPIRED_TOKEN, expires_at=1.0), TokenConfig(value=VALID_TOKEN)),
        ),
        "Unauthenticated",
        ["401", "expired token", "Secret", "spec.credentialsRef"],
        "getNodePool",
        with_valid_token,
    ),
    Bad(
        Case("expired-temporary-key", key=_TEMPORARY, secret={"securityToken": SECURITY_TOKEN}),
        "Unauthenticated",
        _WRONG,
        "getNodePool",
        with_good_key,
    ),
    Bad(
        Case("wrong-project", pool={"projectID": "f" * 32}),
        "Forbidden",
        ["403", "spec.nodePool.projectID", "cce:node:list"],
        "getNodePool",
    ),
    Bad(Case("wrong-cluster", pool={"clusterID": NOBODY}), "NotFound", ["404", "clusterID"], "getNodePool"),
    Bad(Case("wrong-pool", pool={"nodePoolID": NOBODY}), "NotFound", ["404", "nodePoolID"], "getNodePool"),
    Bad(
        Case("pool-in-error", pool_phase="Error"),
        "PoolNotReady",
        ["phase Error", "CCE console"],
        "getCluster",
        with_usable_pool,
    ),
    Bad(Case("pool-deleting", pool_phase="Deleting"), "PoolNotReady", ["phase Deleting", "CCE console"], "getCluster"),
    Bad(
        Case("cluster-hibernates", cluster_phase="Hibernation"),
        "ClusterNotReady",
        ["phase Hibernation", "Available"],
        "getCluster",
        with_available_cluster,
    ),
    Bad(
        _listing("listing-is-html", answer={"status": 200, "html": True}),
        "CloudUnreachable",
        ["the node list", "cannot be read", "spec.nodePool.endpoint"],
        "listNodes",
        with_sound_answers,
    ),
    Bad(
        _listing("listing-is-an-html-error", answer={"status": 502, "html": True}),
        "CloudUnreachable",
        ["the node list", "502", "check the network"],
        "listNodes",
        with_sound_answers,
    ),
    Bad(
        _listing("listing-is-cut-off", cutBody=True),
        "CloudUnreachable",
        ["the node list", "check the network"],
        "listNodes",
        with_sound_answers,
    ),
    Bad(
        _listing("listing-fails", answer={"status": 500, "errorCode": "CCE.01500001"}),
        "CloudUnreachable",
        ["the node list", "500", "CCE.01500001"],
        "listNodes",
        with_sound_answers,
    ),
    Bad(
        _listing(
            "listing-is-throttled",
            answer={"status": 429, "errorCode": "APIGW.0308", "headers": {"Retry-After": "0.5"}},
        ),
        "Throttled",
        ["the node list", "429", "waits"],
        "listNodes",
        with_sound_answers,
    ),
]

GOOD = [
    Case("empty", spec={"serverIDs": []}),
    Case("doubled", spec={"serverIDs": [TWO, ONE, TWO.upper(), ONE.upper(), TWO]}),
    Case("goes-away"),
    Case("broken-status"),
    _throttled := _listing(
        "retry-after",
        times=1,
        answer={"status": 429, "errorCode": "APIGW.0308", "headers": {"Retry-After": "2.5"}},
    ),
]


@pytest.fixture(scope="module")
def scenes(crowd: Callable[[Sequence[Case]], Mapping[str, Scene]]) -> Mapping[str, Scene]:
    return crowd([*(bad.case for bad in BAD), *GOOD])


@pytest.fixture
def scene_of(scenes: Mapping[str, Scene]) -> Iterator[Callable[[str], Scene]]:
    """`scene_of(name of the case)`; and the check that holds after each."""
    used: list[Scene] = []

    def of(name: str) -> Scene:
        used.append(scenes[name])
        return scenes[name]

    yield of
    secret_keys = [case.secret_key for case in (*(bad.case for bad in BAD), *GOOD)]
    for scene in used:
        check_unharmed(scene, [*SECRETS, *secret_keys])


def check_backs_off(scene: Scene, bad: Bad) -> None:
    """Waits of 2, 4 and 8 poll intervals, each up to a tenth shorter, and some leeway for a busy machine."""
    assert bad.route is not None
    times = [float(str(call["time"])) for call in scene.until_called(bad.route, times=4)]
    assert times[3] - times[0] > 10 * POLL_SECONDS


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.case.name)
def test_it_is_told_and_asked_less_and_less_often_and_repaired(scene_of: Callable[[str], Scene], bad: Bad) -> None:
    scene = scene_of(bad.case.name)
    scene.until_waits(bad.reason, *bad.words)
    if bad.route is None:
        assert scene.calls() == []
    elif bad.words is _WRONG:
        scene.until("left alone", lambda m: "not called again" in str(condition(m)["message"]))
        assert len(scene.calls()) == 3
    elif bad.reason != "Throttled":
        check_backs_off(scene, bad)
    assert scene.adds() == []
    if bad.repair is None:
        scene.cluster.delete(scene.namespace, scene.name)
        wait_for("the object is gone", lambda: None if scene.cluster.exists(scene.namespace, scene.name) else True)
        return
    bad.repair(scene, bad.case)
    scene.request("repaired")
    scene.until_joined(bad.case.servers)
    assert len(scene.adds()) == 1


def test_an_empty_list_is_done(scene_of: Callable[[str], Scene]) -> None:
    scene = scene_of("empty")
    done = scene.until_ready()
    assert "0 of 0" in str(condition(done)["message"])
    assert status(done)["desired"] == 0
    assert scene.adds() == []


def test_duplicates_and_upper_case_count_once(scene_of: Callable[[str], Scene]) -> None:
    scene = scene_of("doubled")
    assert status(scene.until_joined([ONE, TWO]))["desired"] == 2
    assert [call["server_ids"] for call in scene.adds()] == [[ONE, TWO]]


def test_retry_after_is_honoured_also_as_a_float(scene_of: Callable[[str], Scene]) -> None:
    scene = scene_of(_throttled.name)
    scene.until_joined(_throttled.servers)
    first, second = (float(str(call["time"])) for call in scene.calls("listNodes")[:2])
    assert 2.5 <= second - first < 30


def test_a_ready_membership_turns_unknown_after_three_looks_that_failed(scene_of: Callable[[str], Scene]) -> None:
    scene = scene_of("goes-away")
    servers = Case("goes-away").servers
    scene.until_joined(servers)
    key = scene.corner.access_key
    scene.simulator.post("faults", FaultRule(name="away", method="GET", access_key=key, drop=True).to_json())
    unknown = scene.until_reason("CloudUnreachable")
    assert condition(unknown)["status"] == "Unknown"
    assert "3 consecutive reads of the cloud API failed" in str(condition(unknown)["message"])
    assert status(unknown)["members"] == servers
    scene.simulator.delete("faults?name=away")
    scene.until_joined(servers)
    assert len(scene.adds()) == 1


def test_a_status_that_cannot_be_understood_stops_all_calls(scene_of: Callable[[str], Scene]) -> None:
    scene = scene_of("broken-status")
    one, two = Case("broken-status").servers
    recorded = status(scene.until_joined([one, two]))["jobs"]
    assert isinstance(recorded, list)
    broken = [{**recorded[0], "phase": "Perplexed"}]
    scene.edit_status(jobs=broken)
    scene.edit(serverIDs=[one, two, NOBODY])
    stalled = scene.until_reason("StatusInvalid")
    assert condition(stalled, "Stalled")["status"] == "True"
    assert "status.jobs.0.phase" in str(condition(stalled)["message"])
    assert "kubectl edit --subresource=status" in str(condition(stalled)["message"])
    assert (status(stalled)["jobs"], status(stalled)["members"]) == (broken, [one, two])
    assert len(scene.adds()) == 1
    scene.edit_status(jobs=recorded)
    scene.until("Ready with 3", lambda m: is_ready(m) and status(m)["joined"] == 3)
    assert scene.accepted([one, two, NOBODY]) == dict.fromkeys([one, two, NOBODY], 1)


def test_a_cloud_that_is_away_is_waited_for(
    cluster: Cluster,
    namespace: str,
    operate: Callable[..., Operator],
    simulate: Callable[..., SimulatorProcess],
) -> None:
    case, (port,) = Case("away"), free_ports(1)
    away = simulate(case.configure(SimulatorConfig(behaviour=Behaviour(job_seconds=0.5))), port=port)
    away.kill()
    scene = Scene(cluster, namespace, away, operate(away), corner=case.corner)
    scene.secret(case.good_secret())
    scene.create(case.servers)
    scene.until_waits("CloudUnreachable", "the node pool", "connection refused", "spec.nodePool.endpoint")
    scene.simulator = simulate(away.config, port=port)
    scene.request("it is back")
    scene.until_joined(case.servers)
    check_unharmed(scene, [case.secret_key])
