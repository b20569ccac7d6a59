"""Servers looked at before they are wiped, on a real API server and over the wire: what is sent, what is told.

Not for: the checks one by one (tests/unit/core/preflight/test_preflight_rules.py), or the client
(tests/contract/test_cce_servers.py).
"""

from collections.abc import Callable
from typing import Final

import httpx
import pytest

from cce_simulator.config import (
    CLUSTER_ID,
    NODE_POOL_ID,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    ServerConfig,
    SimulatorConfig,
)
from cce_simulator.faults import Answer, FaultRule
from harness import Cluster
from harness.cluster import MembershipSpec, Object, condition, is_ready, status
from harness.scene import Scene, server_ids

ELSEWHERE = {"metadata": {"vpc_id": "ffffffff-0000-4000-8000-000000000001"}}
MARK = "nodepool-membership"

Stage = Callable[..., Scene]


def odd(scene: Scene, *servers: ServerConfig) -> None:
    """From now on these servers are as told, all others fit."""
    scene.simulator.post("config", {"servers": [server.to_json() for server in servers]})


def marked(*servers: str, value: str = NODE_POOL_ID) -> ServerConfig:
    return ServerConfig(servers=servers, patch={"tags": [f"{MARK}={value}"]})


def failures(membership: Object) -> dict[str, str]:
    """Reason by server."""
    groups = status(membership).get("failures", [])
    assert isinstance(groups, list)
    return {server: group["reason"] for group in groups for server in group["serverIDs"]}


def findings(membership: Object) -> list[str]:
    found = status(membership).get("findings", [])
    assert isinstance(found, list)
    return [str(finding["reason"]) for finding in found]


def reads(scene: Scene) -> int:
    return len(scene.calls("listServers"))


def test_a_server_that_is_not_fit_is_not_wiped_and_joins_once_it_is_mended(stage: Stage) -> None:
    scene = stage()
    good, other, stopped = server_ids(3)
    odd(
        scene,
        ServerConfig(servers=(other,), patch=ELSEWHERE),
        ServerConfig(servers=(stopped,), patch={"status": "SHUTOFF"}),
    )
    scene.create([good, other, stopped])
    held = scene.until("two are left out", lambda m: status(m).get("joined") == 1 and status(m).get("failed") == 2)
    assert failures(held) == {other: "OtherVPC", stopped: "ServerNotRunning"}
    assert scene.accepted([good, other, stopped]) == {good: 1}
    scene.until_reason("ServersFailed")
    odd(scene)
    scene.until_joined([good, other, stopped])


def test_a_server_that_changes_after_it_was_read_is_refused_by_the_cloud_and_told_alone(stage: Stage) -> None:
    behaviour = Behaviour(job_seconds=0.5, unfit_server="refuseCall")
    scene = stage(SimulatorConfig(behaviour=behaviour, writes_per_minute=0))
    changed, *others = servers = server_ids(3)
    stops = {"status": "SHUTOFF"}
    odd(scene, ServerConfig(servers=(changed,), patch=stops, from_read=2))
    scene.create(servers)
    held = scene.until("one is left out", lambda m: status(m).get("joined") == 2 and status(m).get("failed") == 1)
    assert set(failures(held)) == {changed}
    assert [(call["status"], call["server_ids"]) for call in scene.adds()] == [(400, servers), (200, others)]
    refusal = "the server does not meet the node pool's conditions"
    scene.until("an Event", lambda _: any(refusal in str(e.get("note")) for e in scene.cluster.events(scene.namespace)))
    assert scene.accepted(servers) == dict.fromkeys(others, 1)


@pytest.mark.parametrize("mode", ["Off", "Report", "Enforce"])
def test_a_mistyped_id_without_the_mark_is_not_wiped_in_any_mode(stage: Stage, mode: str) -> None:
    scene = stage()
    ours, mistyped = server_ids(2)
    odd(scene, marked(ours), ServerConfig(servers=(mistyped,), patch=ELSEWHERE))
    scene.create([ours, mistyped], preflight={"mode": mode, "requiredTag": {"key": MARK}})
    scene.until_reason("RequiredTagMissing")
    scene.until_called("listServers", times=4)
    assert scene.accepted([ours, mistyped]) == {ours: 1}


def test_what_is_only_documented_is_told_and_sent_or_under_enforce_not(stage: Stage) -> None:
    scene = stage()
    (server,) = servers = server_ids(1)
    odd(scene, ServerConfig(servers=(server,), patch={"flavor": {"id": "tiny"}}))
    scene.create(servers, preflight={"mode": "Enforce"})
    membership = scene.until_reason("OtherFlavor")
    assert "tiny" in str(condition(membership)["message"])
    scene.edit(preflight={"mode": "Report"})
    joined = scene.until_joined(servers)
    assert findings(joined) == ["OtherFlavor"]
    scene.until("an Event", lambda _: "OtherFlavor" in scene.event_reasons())


def test_a_flavor_that_is_not_for_turbo_is_left_out_and_another_joins(stage: Stage) -> None:
    group = {"spec": {"flavor": "c3.large.2"}}
    pool = NodePoolConfig(id=NODE_POOL_ID, spec={"extensionScaleGroups": [group]})
    cluster = ClusterConfig(id=CLUSTER_ID, node_pools=(pool,), spec={"category": "Turbo"})
    scene = stage(SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0, clusters=(cluster,)))
    good, unfit = server_ids(2)
    odd(scene, ServerConfig(servers=(unfit,), patch={"flavor": {"id": "c3.large.2"}}))
    scene.create([good, unfit], preflight={"mode": "Enforce"})
    held = scene.until("one is left out", lambda m: status(m).get("joined") == 1 and status(m).get("failed") == 1)
    assert failures(held) == {unfit: "FlavorNotForTurbo"}
    assert scene.accepted([good, unfit]) == {good: 1}


def answers(code: int, text: str) -> FaultRule:
    return FaultRule(route="listServers", name="no", answer=Answer(status=code, error_code=text))


@pytest.mark.parametrize(("code", "text"), [(403, "Pdp.0001"), (429, "Common.1503"), (500, "Ecs.0000")])
def test_servers_that_cannot_be_read_stop_nothing_unless_they_must_be_read(stage: Stage, code: int, text: str) -> None:
    scene = stage()
    first, second = server_ids(2)
    scene.simulator.post("faults", answers(code, text).to_json())
    scene.create([first])
    joined = scene.until_joined([first])
    assert findings(joined) == ["ServersUnread"]
    scene.edit(serverIDs=[first, second], preflight={"mode": "Enforce"})
    reason = {403: "Forbidden", 429: "Throttled", 500: "CloudUnreachable"}[code]
    waits = scene.until_waits(reason, text, "spec.preflight")
    assert (status(waits)["pending"], scene.accepted([second])) == (1, {})
    scene.simulator.delete("faults?name=no")
    scene.until(
        "both joined", lambda m: is_ready(m) and status(m).get("joined") == 2 and "ServersUnread" not in findings(m)[1:]
    )


def test_reads_are_one_for_fifty_servers_and_writes_are_as_without(stage: Stage) -> None:
    scene = stage()
    servers = server_ids(450)
    scene.create(servers)
    scene.until_joined(servers)
    assert reads(scene) == 4 + 4 + 1


def test_a_count_that_stays_above_the_list_stops_nobody_whose_document_has_none_of_cces_tags(stage: Stage) -> None:
    pool = NodePoolConfig(id=NODE_POOL_ID, current_node=7)
    cluster = ClusterConfig(id=CLUSTER_ID, node_pools=(pool,))
    scene = stage(SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0, clusters=(cluster,)))
    servers = server_ids(2)
    scene.create(servers, preflight={"mode": "Off"})
    scene.until_waits("ListingImplausible", "currentNode")
    assert scene.adds() == []
    scene.edit(preflight={"mode": "Report"})
    told = scene.until("they joined", lambda m: status(m).get("members") == servers)
    assert "AbsentByTag" in findings(told)
    assert scene.accepted(servers) == dict.fromkeys(servers, 1)


BAD_KEYS: Final = {
    "team/mark": "no dot, slash, space or equals sign",
    "team.mark": "no dot, slash, space or equals sign",
    "a mark": "no dot, slash, space or equals sign",
    "mark=yes": "no dot, slash, space or equals sign",
    "märk": "letters, digits, Chinese characters",
    "": "letters, digits, Chinese characters",
    "_sys_enterprise_project_id": "are the cloud's own",
    "__type_baremetal": "are the cloud's own",
    "m" * 128: "Too long: may not be",
}


def key_put(cluster: Cluster, namespace: str, key: str) -> httpx.Response:
    """What the API server says to a membership that asks for a tag of this key."""
    more = {"preflight": {"requiredTag": {"key": key}}}
    body = MembershipSpec("tagged", server_ids(1), "https://cce.example.com", namespace, more=more).manifest()
    path = f"/apis/cce.nodepools.dev/v1alpha1/namespaces/{namespace}/nodepoolmemberships"
    return cluster.http.post(path, params={"dryRun": "All"}, json=body)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_no_servers_tag_can_have_is_refused_with_the_rule(
    cluster: Cluster, namespace: str, key: str
) -> None:
    answer = key_put(cluster, namespace, key)
    assert answer.status_code == 422, answer.text
    assert "spec.preflight.requiredTag.key" in answer.json()["message"]
    assert BAD_KEYS[key] in answer.json()["message"]


@pytest.mark.parametrize("key", [MARK, "A_b-9", "部门", "m" * 127])
def test_a_key_that_a_servers_tag_can_have_is_taken(cluster: Cluster, namespace: str, key: str) -> None:
    answer = key_put(cluster, namespace, key)
    assert answer.status_code == 201, answer.text
