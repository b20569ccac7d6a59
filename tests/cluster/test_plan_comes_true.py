"""`kubectl npmem plan` and `approve` on a real API server, by the rights of a namespace's editor, and what comes of it.

Not for: every case that a plan can tell (`unit.core.decision.test_core_preview`), or that it comes true in any history
(`property.test_preview`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from cce_simulator.config import NODE_POOL_ID, Behaviour, ServerConfig, SimulatorConfig
from controlplane import ControlPlane
from controlplane.ports import free_ports
from harness import Cluster, Scene, SimulatorProcess
from harness.cluster import MembershipSpec, finalizers, status
from harness.editor import EDITOR, VIEWER, Person, everywhere
from harness.identity import FEDERATION, STS, trusting
from harness.operator_process import FAST
from harness.scene import server_ids

IDS: Final = server_ids(6)
MARK: Final = "nodepool-membership"
APPROVED: Final = "cce.nodepools.dev/approved-plan"
Stage = Callable[..., Scene]


@pytest.fixture
def editor(control_plane: ControlPlane, cluster: Cluster, namespace: str) -> Person:
    assert cluster.control_plane is control_plane
    return Person.with_rights(control_plane, namespace, EDITOR)


def odd(scene: Scene, *servers: ServerConfig) -> None:
    """From now on these servers are as told, all others fit."""
    scene.simulator.post("config", {"servers": [server.to_json() for server in servers]})


def told(person: Person, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a plan that can be told."""
    done = person.npmem("plan", "m", "-o", "json", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def changed(scene: Scene) -> list[object]:
    """Calls to the cloud that were more than looks."""
    return [call["route"] for call in scene.simulator.entries() if call["method"] != "GET"]


def test_what_a_plan_tells_is_done_then_and_to_tell_it_changes_nothing(
    stage: Stage, editor: Person, tmp_path: Path
) -> None:
    scene = stage(options=(*FAST, "--removal-delay=1s"))
    joined, leaving, new, other, stopped = IDS[:5]
    scene.create([joined, leaving], removalPolicy="Remove")
    scene.until_joined([joined, leaving])
    scene.simulator.post(
        "config",
        {
            "servers": [
                ServerConfig(servers=(stopped,), patch={"status": "SHUTOFF"}).to_json(),
                ServerConfig(
                    servers=(other,), patch={"metadata": {"os_type": "Windows", "charging_mode": "0"}}
                ).to_json(),
            ]
        },
    )
    scene.edit(serverIDs=[joined, new, other, stopped], suspend=True)
    scene.until_reason("Suspended")
    # An edit is acknowledged before the cloud is looked at for it; what is surplus holds the object.
    scene.until("all is stored", lambda m: "plan" in status(m) and finalizers(m) != [])
    before, calls = scene.get(), changed(scene)
    where = everywhere(scene.simulator.url, tmp_path)
    code, plan = told(editor, where)
    assert code == 2
    assert (plan["add"], plan["adopt"], plan["remove"]) == (sorted([new, other]), [], [leaving])
    assert [(left["reason"], left["serverIDs"]) for left in plan["left"]] == [("ServerNotRunning", [stopped])]
    assert "WindowsServer" in [finding["reason"] for finding in plan["findings"]]
    assert [stop["reason"] for stop in plan["inTheWay"]] == ["Suspended", "Pending"], "a removal has a delay"
    text = editor.npmem("plan", "m", where).stdout
    assert f"+ {new}  add: WIPED" in text
    assert f"- {leaving}  remove: REINSTALLED" in text
    assert "2 to add in 1 call, which WIPES them; 0 to adopt; 1 to remove, which REINSTALLS it; 1 left" in text
    assert "\x1b" not in text
    after = scene.get()
    assert (after["metadata"], changed(scene)) == (before["metadata"], calls)
    scene.edit(suspend=False)
    scene.until("it is done", lambda m: status(m).get("members") == sorted([joined, new, other]))
    assert scene.accepted(IDS) == dict.fromkeys([joined, leaving, new, other], 1)
    assert len(scene.until_called("removeNodes")) == 1
    odd(scene)
    scene.until_ready()
    code, plan = told(editor, where)
    assert (code, plan["add"], plan["remove"], plan["inTheWay"]) == (0, [], [], [])


@pytest.mark.parametrize("identity", [FEDERATION, STS], ids=["Federation", "STS"])
def test_without_a_stored_key_the_person_asks_for_the_token(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    editor: Person,
    tmp_path: Path,
    identity: Mapping[str, object],
) -> None:
    config = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5))
    simulator = simulate(trusting(cluster, namespace, config))
    cluster.control_plane.kubectl("create", "serviceaccount", str(identity["serviceAccountName"]), f"-n={namespace}")
    cluster.create(MembershipSpec("m", IDS, simulator.url, namespace, secret=None, more={"identityRef": identity}))
    code, plan = told(editor, everywhere(simulator.url, tmp_path))
    assert (code, plan["add"]) == (2, IDS)


def test_a_server_of_another_namespace_is_left_to_it_where_that_can_be_seen(
    stage: Stage, editor: Person, tmp_path: Path
) -> None:
    scene = stage()
    scene.create(IDS[:2])
    scene.until_joined(IDS[:2])
    scene.cluster.create(
        MembershipSpec("other", IDS[1:3], scene.simulator.url, scene.namespace, more={"suspend": True})
    )
    where = everywhere(scene.simulator.url, tmp_path)
    done = editor.npmem("plan", "other", "-o", "json", where)
    plan = json.loads(done.stdout)
    assert (plan["add"], plan["adopt"]) == (IDS[2:3], [])
    assert [(left["reason"], left["serverIDs"]) for left in plan["left"]] == [("Conflict", IDS[1:2])]
    assert "other namespaces were not looked at" in plan["notes"][0]
    refused = editor.npmem("plan", "other", where, "--all-namespaces")
    assert refused.returncode == 1
    assert 'cannot list resource "nodepoolmemberships"' in refused.stderr


def test_what_keeps_a_plan_from_being_made_is_one_line_and_exit_code_1(
    stage: Stage, editor: Person, control_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = stage()
    scene.create(IDS[:1], suspend=True)
    where = everywhere(scene.simulator.url, tmp_path)

    def refused(person: Person, *words: str) -> str:
        done = person.npmem("plan", *words)
        assert (done.returncode, done.stdout) == (1, ""), done.stdout
        (line,) = done.stderr.splitlines()
        return line

    assert "no NodePoolMembership 'n'" in refused(editor, "n", where)
    assert "--allow-endpoint" in refused(editor, "m")
    viewer = Person.with_rights(control_plane, scene.namespace, VIEWER)
    assert 'cannot get resource "secrets"' in refused(viewer, "m", where)
    scene.cluster.http.delete(f"/api/v1/namespaces/{scene.namespace}/secrets/cce-credentials")
    assert "SecretNotFound" in refused(editor, "m", where)
    away = tmp_path / "away"
    (port,) = free_ports(1)
    away.write_text(editor.kubeconfig.read_text().replace(control_plane.url, f"https://127.0.0.1:{port}"))
    line = refused(Person(away, scene.namespace), "m", where)
    assert f"the API server https://127.0.0.1:{port} does not answer" in line
    scene.secret({"accessKey": "AKIDUNKNOWN00000", "secretKey": "unknown-secret-key-value"})
    line = refused(editor, "m", where)
    assert "Unauthenticated" in line
    assert "unknown-secret-key-value" not in line
    scene.simulator.kill()
    assert "CloudUnreachable" in refused(editor, "m", where)


def test_a_plan_that_waits_is_approved_by_the_id_that_was_looked_at(
    stage: Stage, editor: Person, tmp_path: Path
) -> None:
    scene = stage()
    scene.create(IDS, approval="Manual", batchSize=2, preflight={"mode": "Report", "requiredTag": {"key": MARK}})
    odd(scene, ServerConfig(servers=tuple(IDS), patch={"tags": [f"{MARK}={NODE_POOL_ID}"]}))
    waits = scene.until_reason("AwaitingApproval")
    waiting = status(waits)["plan"]
    assert isinstance(waiting, dict)
    code, plan = told(editor, everywhere(scene.simulator.url, tmp_path))
    assert (code, plan["id"], plan["add"], plan["calls"]) == (2, waiting["id"], IDS, 3)
    explained = editor.npmem("explain", "m").stdout
    assert f"kubectl npmem approve -n {editor.namespace} m" in explained
    unasked = editor.npmem("approve", "m")
    assert (unasked.returncode, unasked.stdout) == (1, "")
    assert "6 servers would be added in 3 calls, which WIPES them" in unasked.stderr
    wrong = editor.npmem("approve", "m", "--plan", "another", "--yes")
    assert f"the plan that waits is {plan['id']}, not another" in wrong.stderr
    assert scene.adds() == []
    done = editor.npmem("approve", "m", "--plan", plan["id"], "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{editor.namespace}/m approved plan {plan['id']}\n"
    scene.until_joined(IDS)
    assert [len(call["server_ids"]) for call in scene.adds()] == [2, 2, 2]  # type: ignore[arg-type]
    again = editor.npmem("approve", "m", "--yes")
    assert "no plan waits for an approval" in again.stderr


def test_the_definition_that_is_missing_is_named(editor: Person) -> None:
    """On a control plane of its own: the others need the definition."""
    with ControlPlane() as bare:
        bare.ensure_namespace("team")
        asked = Person(bare.admin_kubeconfig, "team").npmem("plan", "m")
    assert asked.returncode == 1
    assert "the cluster does not know nodepoolmemberships.cce.nodepools.dev/v1alpha1" in asked.stderr
    assert editor.npmem("plan", "m").returncode == 1
